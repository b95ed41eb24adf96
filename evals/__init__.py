"""Judges what a model answers: tasks, graders and a runner over HTTP. Knows no model's inside.

Everything here speaks the OpenAI-compatible interface of a server, ours or another.
"""
