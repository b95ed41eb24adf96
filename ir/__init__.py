"""What a program means: dialects, reference, passes, contracts. Knows no device and no web."""
