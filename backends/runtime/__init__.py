"""Loads an artifact and replays its programs. Imports no xdsl, no frontend, no compiler."""
