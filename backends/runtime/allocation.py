"""Memory of a device, or a sentence that says what asked for how much. Knows no program."""

from __future__ import annotations

from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.memory import Buffer
from lostwax.ir.contract.foreign_file import reason


class NotEnoughMemory(RuntimeError):
    """The device cannot give what was asked for; the message says for what, and the remedy."""


def allocated(driver: Driver, num_bytes: int, what: str, *, host: bool = False) -> Buffer:
    """A zeroed u8 [num_bytes] buffer of the driver's, or of host memory that the device reads.

    Raises NotEnoughMemory.
    """
    try:
        if not host:
            return driver.allocate(num_bytes)
        buffer = driver.staging(num_bytes)
        buffer[:] = 0
        return buffer
    # numpy says MemoryError or, beyond what it can count, ValueError; torch says RuntimeError.
    except (MemoryError, RuntimeError, ValueError) as error:
        raise NotEnoughMemory(
            f"{what} of {num_bytes} bytes cannot be allocated ({reason(error)}); give a smaller"
            " --num-pages, or compile for smaller sizes (`lostwax plan ARTIFACT` adds up what it"
            " takes)"
        ) from error
