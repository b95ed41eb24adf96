"""One pass a file: valid IR in, valid IR out. No pass fuses for speed; covering does that."""
