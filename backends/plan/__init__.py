"""Which programs exist, what covers them, where values and weights lie: all of a compile that
decides. Runs nothing."""
