"""How long grammars may take to be compiled. Imports nothing: both ends of the socket need it."""

COMPILE_S = 2.0
"""For compiling a grammar and trying it, from the first look at it."""
