"""Follows grammars: which tokens may come next in an answer. Knows no HTTP, model or scheduler.

A grammar is compiled and followed in a process of its own, which is forked for it, bounded in time
and memory, and ended without harm to anybody else.
"""
