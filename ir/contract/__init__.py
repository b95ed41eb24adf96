"""Plain data that crosses rooms. Imports neither xdsl nor torch."""
