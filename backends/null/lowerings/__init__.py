"""Lowerings of a device that plans and executes nothing."""
