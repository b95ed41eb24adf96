"""Turns panics of the tokenizers' library into errors. Knows no tokenizer.

It is written in Rust, where a panic means a defect; Python gets it as a `BaseException`, which
passes all that handles errors, and names a class that cannot be imported.
"""

from __future__ import annotations

from contextlib import ContextDecorator
from types import TracebackType

from lostwax.ir.contract.one_line import one_line

_MODULE = "pyo3_runtime"


class TokenizerPanic(RuntimeError):
    """The tokenizers' library failed in a way that it does not know itself."""


class NoPanic(ContextDecorator):
    """Raises TokenizerPanic for a panic; everything else passes. A decorator, too."""

    def __enter__(self) -> None:
        """Guard what follows. No generator does: each token is decoded under it twice."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None and kind.__module__ == _MODULE:
            raise TokenizerPanic(one_line(str(error))) from error
