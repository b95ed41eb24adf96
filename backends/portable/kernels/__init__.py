"""Host functions on torch operators that programs call by name. Never imports xdsl."""
