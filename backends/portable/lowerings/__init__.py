"""Lowerings of every op onto torch operators, and fusions of them, written once."""
