"""Measures how a server bears load: arrivals, prompts, streams, statistics. Grades nothing."""
