"""The meaning of the `act` ops in numpy. This file would be ir/reference/act.py."""

import numpy as np

from lostwax.ir.reference.dtype import Array, Real, widen


def relu2_mul(gate: Array, up: Array) -> Real:
    """relu(gate)^2 * up."""
    return np.maximum(widen(gate), 0) ** 2 * widen(up)
