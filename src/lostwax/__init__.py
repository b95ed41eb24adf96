"""lostwax compiles DeepSeek-V3.2 once per target and serves it by replay."""

__version__ = "0.1.0"
