"""A device that is not there: programs are planned and bound, nothing is computed."""

from __future__ import annotations

from lostwax.backends.registry import Backend

BACKEND = Backend(
    name="null",
    targets="lostwax.backends.null.target:TARGETS",
    lowerings="lostwax.backends.null.lowerings:lowerings",
    driver="lostwax.backends.null.driver:NullDriver",
    compiler=None,
    kernels=("lostwax.backends.portable.kernels",),
    executes=False,
    presence="lostwax.backends.null.presence:presence",
)
