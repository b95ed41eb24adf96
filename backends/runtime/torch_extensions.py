"""Packages that torch loads with itself, such as torch_npu: where one fails, torch does not load.

So a machine with such a package and without its vendor's libraries runs no target at all.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import entry_points

from lostwax.backends.runtime.error_causes import with_causes
from lostwax.backends.runtime.library_loading import LibraryEnds, loading

GROUP = "torch.backends"
"""The entry points that torch calls when it is imported (`_import_device_backends`)."""
SWITCH = "TORCH_DEVICE_BACKEND_AUTOLOAD"
"""torch's variable that keeps them out; its error names it."""


class TorchDoesNotLoad(RuntimeError):
    """One of these packages raised something, or would end the process; the message says what, and
    what to do."""


def extension_failure(error: BaseException) -> str | None:
    """What torch's error of such a package comes to, with the remedy; None for any other error."""
    if not isinstance(error, RuntimeError) or f"{SWITCH}=0" not in str(error):
        return None
    return _with_remedy(with_causes(error))


def _with_remedy(reason: str) -> str:
    return (
        f"torch does not load here ({reason}): for torch_npu source CANN's set_env.sh;"
        f" for a target that goes without set {SWITCH}=0"
    )


@contextmanager
def torch_loading() -> Generator[None]:
    """TorchDoesNotLoad where torch is imported within and such a package would end the process."""
    try:
        with loading("torch, or what loads with it,"):
            yield
    except LibraryEnds as error:
        if not entry_points(group=GROUP):
            raise
        raise TorchDoesNotLoad(_with_remedy(str(error))) from error


def require_torch_loads() -> None:
    """Import torch, which takes seconds, if there is such a package.

    Raises TorchDoesNotLoad, and whatever else torch does.
    """
    if not entry_points(group=GROUP):
        return
    try:
        with torch_loading():
            import_module("torch")
    except TorchDoesNotLoad:
        raise
    except RuntimeError as error:
        said = extension_failure(error)
        if said is None:
            raise
        raise TorchDoesNotLoad(said) from error
