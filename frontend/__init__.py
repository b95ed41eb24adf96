"""Reads a checkpoint and captures its model as IR. Knows no target and no server."""
