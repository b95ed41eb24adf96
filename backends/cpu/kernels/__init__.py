"""Host functions that CPU programs call by name. Knows tensors, never xdsl or a graph."""
