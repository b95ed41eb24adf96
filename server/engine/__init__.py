"""Schedules requests, builds steps and replays programs. Knows no HTTP and no text."""
