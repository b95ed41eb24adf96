"""Golden probes: small inputs of a chosen lowering with what its reference gives. Data only."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from lostwax.ir.contract.bounds import Count, Reason, Seed, Shape, Word
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.contract.weights import StoredWeight

PROBES = "probes.json"


class Drawn(msgspec.Struct, frozen=True, kw_only=True, tag="drawn"):
    """An array too large to keep: uniform numbers from a seed, rounded to the dtype.

    `backends/runtime/draw.py` draws it, the same on every machine. With `edges`, rows of zeros, of
    exact powers of two and of equal numbers stand among the others, where there are enough.
    """

    shape: Shape
    dtype: Word
    seed: Seed
    low: float
    high: float
    edges: bool = False


class Kept(msgspec.Struct, frozen=True, kw_only=True, tag="kept"):
    """An array as its bytes."""

    shape: Shape
    dtype: Word
    data: bytes


class DrawnCache(msgspec.Struct, frozen=True, kw_only=True, tag="drawn_cache"):
    """Pages of a scaled layout: drawn rows, quantised as appending them would."""

    layout: Word
    row: tuple[Count, ...]
    page_tokens: Count
    pages: Count
    seed: Seed


Data = Drawn | DrawnCache | Kept


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What a buffer holds before the launches run."""

    name: Word
    data: Data


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A logical weight, with its block scales where it has any (blocks of `rows` x `cols`)."""

    values: Data
    scales: Data | None = None
    rows: Count = 1
    cols: Count = 1


class GivenWeight(msgspec.Struct, frozen=True, kw_only=True):
    """A weight as the artifact's plan stores it, made of its parts as the loader makes it."""

    stored: StoredWeight
    parts: tuple[Part, ...]


class CacheRows(msgspec.Struct, frozen=True, kw_only=True):
    """How to read a cache: its layout, the widths of a row's parts, and the slots written to.

    `Expected.want` has a row for each slot outside the trash page, ascending.
    """

    layout: Word
    row: tuple[Count, ...]
    page_tokens: Count
    slots: tuple[Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)], ...]


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What one output must be.

    `integers` must agree in at least `agreement` of the rows. `values` (times the scales at
    `scale`, blocks of `rows` x `cols`) and the written rows of a `cache` must be within the probe's
    tolerance; `want` keeps every `stride`-th number of a row (the first axis), in few bits. With
    `rows_of`, only rows count where those outputs' integers agree.
    """

    name: Word
    kind: Literal["integers", "values", "cache"]
    view: View
    want: Kept
    stride: Count = 1
    scale: View | None = None
    rows: Count = 1
    cols: Count = 1
    cache: CacheRows | None = None
    agreement: float = 1.0
    rows_of: tuple[str, ...] = ()


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One lowering as the artifact chose it, run by itself on one small step.

    `id` is the digest of what may make a difference: region, types, lowering, knobs, binaries and
    host functions. A place that could not be probed has a `refusal` in place of launches.
    """

    id: Word
    lowering: Word
    ops: tuple[Word, ...]
    program: Word
    launches: tuple[Launch, ...] = ()
    given: tuple[Given, ...] = ()
    weights: tuple[GivenWeight, ...] = ()
    expected: tuple[Expected, ...] = ()
    max_error: float = 0.0
    rms_error: float = 0.0
    refusal: Reason = ""


class Probes(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of `probes.json`."""

    probes: tuple[Probe, ...]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What this device made of one probe: `what` names lowering and ops, `reason` why it never ran.

    Errors are relative to the reference's RMS, None where nothing ran.
    """

    state: Literal["executed", "compiled"]
    ran: tuple[Word, ...] = ()
    """What code ran: host functions, and kernels with their binaries (`check_program.code_of`)."""
    what: Reason = ""
    reason: Reason = ""
    max_error: float | None = None
    rms_error: float | None = None
    agreement: float | None = None


CERTIFICATES_SCHEMA = 2
"""Version of `certificates.json`; another one is measured again. 2: evidence says what ran."""


class Certificates(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of `certificates.json`: evidence by probe id, for one artifact on one device.

    `device` is the driver's fingerprint, `code` the digest of the host functions that ran. The
    binaries' digests are the artifact's, which `artifact` covers.
    """

    schema: int = CERTIFICATES_SCHEMA
    artifact: str
    device: str
    code: str
    evidence: dict[str, Evidence]
