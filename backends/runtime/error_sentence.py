"""What a process prints of an error that ends it: the same for the command line, a compile apart,
the engine and its ranks. Knows none of them."""

from __future__ import annotations

from lostwax.backends.runtime.torch_extensions import extension_failure


def sentence_of(error: BaseException) -> str | None:
    """What to print of an error that says what to do; None for one that keeps its traceback.

    Those that this project raises on purpose say it, and torch's of a package that fails with it,
    which may come from wherever torch is imported first.
    """
    if _is_ours(error) or isinstance(error, OSError):
        return str(error)
    return extension_failure(error)


def described(error: BaseException) -> str:
    """The sentence. Where it is read among others' words, an error of the system keeps its class,
    as one without a sentence does: the text alone may say as little as a path."""
    sentence = sentence_of(error)
    if sentence is None or (isinstance(error, OSError) and not _is_ours(error)):
        return f"{type(error).__name__}: {error}"
    return sentence


def _is_ours(error: BaseException) -> bool:
    return type(error).__module__.startswith("lostwax.")
