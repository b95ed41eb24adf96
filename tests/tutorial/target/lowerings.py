"""One op of its own; portable's lowerings do the rest."""

from lostwax.backends.lowering import Lowering
from lostwax.backends.portable.lowerings import lowerings as portable
from lostwax.backends.portable.lowerings.calls import emit_call
from lostwax.ir.contract.target import Target
from lostwax.ir.dialects.core import RmsNormOp
from lostwax.ir.region import Region

KERNEL = "tutorial.target.kernels.norms:rms_norm"
NORM = Lowering(
    name="toy_rms_norm",
    pattern=Region.single(RmsNormOp),
    emit=emit_call("toy_rms_norm", KERNEL, "x weight op.out", "eps"),
)


def lowerings(target: Target) -> tuple[Lowering, ...]:
    """What plans for this target choose from."""
    return (NORM, *portable(target))
