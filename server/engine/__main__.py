"""`python -m lostwax.server.engine`: the engine process."""

from lostwax.server.engine.process import main

main()
