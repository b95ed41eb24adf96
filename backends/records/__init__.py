"""Measurements and certificates of lowerings: keys, the store, what is read back as prices."""
