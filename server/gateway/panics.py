"""Turns panics of the tokenizers' library into errors. Knows no tokenizer.

It is written in Rust, where a panic means a defect; Python gets it as a `BaseException`, which
passes all that handles errors, and names a class that cannot be imported.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from lostwax.ir.contract.one_line import one_line

_MODULE = "pyo3_runtime"


class TokenizerPanic(RuntimeError):
    """The tokenizers' library failed in a way that it does not know itself."""


@contextmanager
def no_panic() -> Generator[None]:
    """Raises TokenizerPanic for a panic; everything else passes. A decorator, too."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if type(error).__module__ != _MODULE:
            raise
        raise TokenizerPanic(one_line(str(error))) from error
