"""Device code that several GPU targets share. Knows no target and no driver."""
