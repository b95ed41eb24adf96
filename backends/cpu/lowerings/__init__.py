"""The CPU's own lowerings; whatever they leave open falls back to backends/portable."""
