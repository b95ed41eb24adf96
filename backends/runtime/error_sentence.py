"""What a process prints of an error that ends it: the same for the command line, a compile apart,
the engine and its ranks. Knows none of them."""

from __future__ import annotations

from lostwax.backends.runtime.torch_extensions import extension_failure


def sentence_of(error: BaseException) -> str | None:
    """What to print of an error that says what to do; None for one that keeps its traceback.

    Those that this project raises on purpose say it, and torch's of a package that fails with it,
    which may come from wherever torch is imported first.
    """
    if type(error).__module__.startswith("lostwax.") or isinstance(error, OSError):
        return str(error)
    return extension_failure(error)


def described(error: BaseException) -> str:
    """The sentence; of an error without one its text, behind its class, which says more."""
    sentence = sentence_of(error)
    return f"{type(error).__name__}: {error}" if sentence is None else sentence
