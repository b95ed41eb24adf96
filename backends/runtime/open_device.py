"""While a device is opened, whatever its libraries raise is said as why there is none."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from lostwax.backends.runtime.driver import DeviceUnavailable
from lostwax.backends.runtime.error_causes import with_causes


@contextmanager
def opening(no_device: Callable[[str], DeviceUnavailable]) -> Generator[None]:
    """DeviceUnavailable for every error within; `no_device` makes it, given the reason in words."""
    try:
        yield
    except DeviceUnavailable:
        raise
    except Exception as error:  # torch's, ctypes', and classes of vendors that nobody can list
        raise no_device(with_causes(error)) from error
