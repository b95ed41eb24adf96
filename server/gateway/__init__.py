"""Parses, forwards and streams OpenAI-style requests. Knows text, never torch."""
