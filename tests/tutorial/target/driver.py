"""The toy target's memory and launches are the host's."""

from tutorial.target.toy import BACKEND

from lostwax.backends.runtime.host_driver import HostDriver


class ToyDriver(HostDriver):
    """Satisfies `lostwax.backends.runtime.driver.Driver`."""

    packages = BACKEND.kernels
