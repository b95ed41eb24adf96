"""The kit that every target's lowerings pass: seeded cases against the fp64 reference."""
