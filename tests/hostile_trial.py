"""Tries mutants one after another: each must be refused by a clean sentence, or be harmless.

Nothing else may come of them: no other exception, no message of several lines, no hang.
"""

from __future__ import annotations

import signal
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from hostile_files import Mutant, restore

from lostwax.backends.runtime.allocation import NotEnoughMemory
from lostwax.backends.runtime.boot_check import Unproven
from lostwax.backends.runtime.bound_program import LaunchFailed
from lostwax.backends.runtime.checkpoint_content import CheckpointMismatch
from lostwax.backends.runtime.driver import DeviceUnavailable
from lostwax.backends.runtime.load import StepError
from lostwax.backends.runtime.ranks import RankError
from lostwax.backends.runtime.run_probe import WrongKernel

SEED = 1
HANG_S = 60
"""A mutant takes a second on a busy machine."""
WITHOUT_A_FILE = (
    DeviceUnavailable,
    LaunchFailed,
    NotEnoughMemory,
    RankError,
    StepError,
    Unproven,
    WrongKernel,
)
"""Errors that name the target, launch, buffer, step or lowering at fault: that is more."""


@contextmanager
def no_hang(what: str) -> Generator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"{what} hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(HANG_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(what: str, named: str, use: Callable[[], object]) -> str:
    """`harmless` or `refused`; else a sentence: which mutant did what it may not."""
    try:
        with no_hang(what), warnings.catch_warnings():
            # The suite makes them errors; torch warns where an `out=` has another shape.
            warnings.simplefilter("ignore")
            use()
    except Exception as error:
        wrong = _wrong(error, named)
        return f"{what}: {wrong}: {type(error).__name__}: {error!s:.300}" if wrong else "refused"
    return "harmless"


def _wrong(error: Exception, named: str) -> str | None:
    text = str(error)
    if not type(error).__module__.startswith("lostwax."):
        return "a raw exception"
    if not text.isprintable() or len(text) > 1000:
        return "not one clean line"
    if named not in text and not _names_its_place(error):
        return f"it does not name {named}"
    return None


def _names_its_place(error: Exception) -> bool:
    """Of some errors another file is the culprit, or none: they name what is at fault."""
    if isinstance(error, CheckpointMismatch):
        return any(name in str(error) for name in (".safetensors", "/ckpt/", "weights.json"))
    return isinstance(error, WITHOUT_A_FILE)


def try_all(
    art: Path, name: str, mutants: Iterator[Mutant], use: Callable[[], object], named: str
) -> Counter[str]:
    """How many came out how, errors by a name; file and manifest are put back after each.

    The unchanged file is used first: where that is refused, nothing is learnt of the mutants.
    """
    with no_hang(f"{name}, unchanged,"):
        use()
    path, manifest = art / name, art / "manifest.json"
    whole = path.read_bytes() if path.exists() else None
    sealed = manifest.read_bytes() if manifest.exists() else None
    found: Counter[str] = Counter()
    for mutant in mutants:
        try:
            mutant.apply(path)
            found[outcome(mutant.what, named, use)] += 1
        finally:
            restore(path, whole)
            if sealed is not None:
                restore(manifest, sealed)
    wrong = [line for line in found if line not in ("refused", "harmless")]
    assert not wrong, "\n".join(wrong)
    return found
