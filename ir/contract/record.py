"""What was measured and certified of one lowering. Knows no device driver and no storage."""

from __future__ import annotations

import hashlib
import math
from statistics import median
from typing import Literal

import msgspec

from lostwax.ir.contract.canonical import canonical_json

SCHEMA = 2
"""Version of the record's fields; readers refuse every other.

2: keys have the SKU and libraries' versions, and concrete shapes in the place of a bucket."""

State = Literal["executed", "interpreted", "compiled"]


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence that a lowering means what its region's reference means.

    `state` is never rounded up: `executed` ran on the device itself, `interpreted` ran the same
    source elsewhere, `compiled` never ran. Errors are relative to the reference's RMS, the worst
    over all outputs and cases; None where nothing ran. `set_agreement` is the share of rows whose
    chosen set is the reference's (top-k, routing, sampling), None without such an output. `waiver`
    names the rule that a vendor's op is allowed to break (`tie_order`), empty for none; what an op
    itself leaves to rounding (`sample.nucleus`: ids at its border) needs no waiver.
    """

    state: State
    max_error: float | None = None
    rms_error: float | None = None
    set_agreement: float | None = None
    waiver: str = ""
    input_digest: str = ""
    binary_digest: str = ""
    tool_versions: dict[str, str] = {}

    def __post_init__(self) -> None:
        bad = [
            e for e in (self.max_error, self.rms_error) if e is not None and not 0 <= e < math.inf
        ]
        if bad:
            raise ValueError(f"an error relative to the reference is no {bad[0]}")
        if self.set_agreement is not None and not 0 <= self.set_agreement <= 1:
            raise ValueError(f"set_agreement is a share of rows, not {self.set_agreement}")
        if self.state != "compiled" and (self.max_error is None or not self.input_digest):
            raise ValueError(
                f"a certificate of state {self.state!r} needs errors and the inputs' digest; "
                "use state 'compiled' for a lowering that never ran"
            )

    def bound_to(self, binary_digest: str) -> Certificate:
        """The same evidence, bound to the binaries that ran."""
        return msgspec.structs.replace(self, binary_digest=binary_digest)


class RecordKey(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that changes the answer. No path, clock or environment may enter it.

    `region` is `RegionMatch.digest()`, `source` the digest of the code and of the launches,
    `sku` the model of device (H100, H200 and H20 are three), `libraries` the versions of the
    installed packages that the lowering calls, and of what else is called that is none (CANN),
    `values` the boundary values by pattern name (dtypes, concrete shapes, scale and cache layouts),
    `cache` pages and guard where a cache is an operand, else empty.
    """

    region: str
    lowering: str
    source: str
    sku: str
    libraries: dict[str, str]
    values: dict[str, str]
    cache: str

    def digest(self) -> str:
        """sha256 of the canonical JSON."""
        return hashlib.sha256(canonical_json(self)).hexdigest()


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Raw samples of one knob setting, with the certificate of the binary that ran.

    `samples_us` are of the launches of a layer. What the lowering has prepared once a step is not
    in them: a compile adds the share that falls to the layer, as it does to an estimate.

    `knobs` gives the lowering's knobs by name; one that is missing had its first value. A compile
    that chooses the record emits with these knobs.
    """

    schema: int = SCHEMA
    key: RecordKey
    knobs: dict[str, int] = {}
    samples_us: tuple[float, ...] = ()
    certificate: Certificate

    def __post_init__(self) -> None:
        bad = [s for s in self.samples_us if not 0 < s < float("inf")]
        if bad:
            raise ValueError(f"record of {self.key.lowering}: sample {bad[0]} us is not positive")

    @property
    def median_us(self) -> float | None:
        """The middle sample, None if nothing was timed."""
        return median(self.samples_us) if self.samples_us else None

    @property
    def noise_us(self) -> float:
        """Median absolute deviation of the samples."""
        if not self.samples_us:
            return 0.0
        middle = median(self.samples_us)
        return median(abs(s - middle) for s in self.samples_us)

    @property
    def knob_order(self) -> tuple[tuple[str, int], ...]:
        """Knobs as a sort key."""
        return tuple(sorted(self.knobs.items()))
