"""While a library is imported or opened, its wish to end the process is an error as any other.

Vendors' libraries call `sys.exit` where a device or a part of themselves is lacking, and SystemExit
is no Exception: nobody would hear why a command has ended, nor what to do.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from lostwax.backends.runtime.error_causes import with_causes


class LibraryEnds(RuntimeError):
    """A library would have ended the process; the message has its reason."""


@contextmanager
def loading(library: str) -> Generator[None]:
    """LibraryEnds for a SystemExit within, of what is named."""
    try:
        yield
    except SystemExit as error:
        raise LibraryEnds(f"{library} ends the process: {with_causes(error)}") from error
