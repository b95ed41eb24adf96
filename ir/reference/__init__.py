"""The meaning of every op in numpy, fp64 inside. Slow, obvious, and knows no device."""
