"""Golden probes: inputs of a chosen lowering and samples of what its reference gives. Only data."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from lostwax.ir.contract.bounds import Count, Reason, Seed, Shape, Word
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.contract.weights import StoredWeight

PROBES = "probes.json"


Whole = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
"""A row, a column, or how many of them."""


class Drawn(msgspec.Struct, frozen=True, kw_only=True, tag="drawn"):
    """An array too large to keep: uniform numbers from a seed, rounded to the dtype.

    `backends/runtime/draw.py` draws it, the same on every machine, whole or where it is asked for.
    With `edges`, rows of zeros, of exact powers of two and of equal numbers stand among the others,
    where there are enough.
    """

    shape: Shape
    dtype: Word
    seed: Seed
    low: float
    high: float
    edges: bool = False


class DrawnBits(msgspec.Struct, frozen=True, kw_only=True, tag="drawn_bits"):
    """Numbers in i32 each of whose bits is drawn by itself."""

    shape: Shape
    seed: Seed


class DrawnScores(msgspec.Struct, frozen=True, kw_only=True, tag="drawn_scores"):
    """Scores in f32 to choose from: row r sees its first `visible[r]` columns, -inf stands behind.

    Of every four rows the second has many ties, the third nothing but ties, the fourth NaN in every
    fifth column.
    """

    shape: Shape
    seed: Seed
    visible: tuple[Whole, ...]


class DrawnSelection(msgspec.Struct, frozen=True, kw_only=True, tag="drawn_selection"):
    """Chosen positions in i32: row r has distinct ones below `visible[r]`, ascending, then -1.

    As many as fit; of every three rows the last has fewer.
    """

    shape: Shape
    seed: Seed
    visible: tuple[Whole, ...]


class Kept(msgspec.Struct, frozen=True, kw_only=True, tag="kept"):
    """An array as its bytes. Where `held` is given, these are its first numbers of each axis only:
    every other one is the last of them.
    """

    shape: Shape
    dtype: Word
    data: bytes
    held: Shape | None = None


class DrawnCache(msgspec.Struct, frozen=True, kw_only=True, tag="drawn_cache"):
    """Pages of a scaled layout: drawn rows, quantised as appending them would."""

    layout: Word
    row: tuple[Count, ...]
    page_tokens: Count
    pages: Count
    seed: Seed


Data = Drawn | DrawnBits | DrawnCache | DrawnScores | DrawnSelection | Kept


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What a buffer holds before the launches run.

    Rows of the first axis from `real` on are NaN: they have no token. Of a cache, only the first
    `held` tokens of each page are the data's, where it is given; the others are NaN.
    """

    name: Word
    data: Data
    real: Whole | None = None
    held: tuple[Whole, ...] = ()


class GivenPart(msgspec.Struct, frozen=True, kw_only=True):
    """One source of a stored weight: its values, and their scales where it has any."""

    values: Drawn
    scales: Drawn | None = None


class GivenWeight(msgspec.Struct, frozen=True, kw_only=True):
    """A weight as the artifact's plan stores it, and its parts in storage order, which the loader's
    steps put together.
    """

    stored: StoredWeight
    parts: tuple[GivenPart, ...]


class CacheRows(msgspec.Struct, frozen=True, kw_only=True):
    """How to read a cache: its layout, the widths of a row's parts, and the slots written to.

    `Expected.at` counts the slots outside the trash page, ascending.
    """

    layout: Word
    row: tuple[Count, ...]
    page_tokens: Count
    slots: tuple[Whole, ...]


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What one output must be, in samples: rows `at` of the first axis, and of their numbers (the
    other axes, flattened) those in `columns`, all where that is empty.

    `integers` must agree in at least `agreement` of the sampled rows, whose digests `want` has, 16
    bytes each. `values` (times the scales at `scale`, each of `cols` numbers) and the written rows
    of a `cache` must be within the probe's tolerance; `want` has them in few bits. At least
    `agreement` of them must be: the others may be one step of fp8 off. With `rows_of`, only rows
    count where those outputs' integers agree.

    Of the whole output, the first `real` rows hold no NaN, and no infinity where it is `finite`.
    """

    name: Word
    kind: Literal["integers", "values", "cache"]
    view: View
    want: Kept
    at: tuple[Whole, ...]
    columns: tuple[Whole, ...] = ()
    real: Whole = 0
    finite: bool = True
    scale: View | None = None
    cols: Count = 1
    cache: CacheRows | None = None
    agreement: float = 1.0
    rows_of: tuple[Word, ...] = ()


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One lowering as the artifact chose it, run by itself on one small step.

    `id` is the digest of what may make a difference: region, types, lowering, knobs, and all that
    stands here: host functions and binaries, sizes, seeds, inputs, samples, tolerance. A place that
    could not be probed has a `refusal` in place of launches.
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


STEP_EVIDENCE = "step"
"""Stands where a probe's id stands, for the kernels of the step, which no probe runs."""

CERTIFICATES_SCHEMA = 2
"""Version of `certificates.json`; another one is measured again. 2: evidence says what ran."""


class Certificates(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of `certificates.json`: evidence by probe id, for one artifact on one device.

    `device` is the driver's fingerprint with versions of packages that are called, `code` the
    digest of the host functions that ran. The binaries' digests are the artifact's, which
    `artifact` covers.
    """

    schema: int = CERTIFICATES_SCHEMA
    artifact: str
    device: str
    code: str
    evidence: dict[str, Evidence]
