"""Files that build and run a container of lostwax, for each kind of machine. Builds no artifact."""
