"""Generators of training and held-out documents, one family a file. Knows no tokenizer."""
