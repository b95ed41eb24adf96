"""The shapes of `/explain`: what was compiled, and what was chosen for each op of a program.

Microseconds are of one run of a program by the artifact's own prices, not of this server's steps.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from lostwax.server.gateway.answer_models import Count

UNREADABLE = 3
"""Exit status of the process that reads an artifact, where it cannot: its last line says why."""

Us = Annotated[float, Meta(ge=0)]


class ExplainedBlock(Struct, forbid_unknown_fields=True):
    """A block kind, and how many layers of the model are of it (1 of what is no layer)."""

    name: str
    layers: Annotated[int, Meta(ge=1)]


class ExplainedProgram(Struct, forbid_unknown_fields=True):
    """A program, the bounds of the steps that it takes (0: it has no such bound), its price, and
    how much of that was measured. `shown` is false where its choices are left out for their size.
    """

    name: str
    segment: Literal["extend", "decode", "draft", "pick", "sample", "score"]
    guard: str
    tokens: Count
    reqs: Count
    pages: Count
    rows: Count
    us: Us
    measured_us: Us
    num_choices: Count
    shown: bool


class Explained(Struct, forbid_unknown_fields=True):
    """What was compiled. `device` is the one that its lowerings were proven on, null where none
    were yet; `activations` says which were chosen where nobody asked for any."""

    artifact: str
    model: str
    target: str
    ranks: Count
    activations: str
    device: str | None
    blocks: list[ExplainedBlock]
    programs: list[ExplainedProgram]


class ExplainedProof(Struct, forbid_unknown_fields=True):
    """What the device made of a lowering; errors are relative to the reference's RMS."""

    state: Literal["executed", "compiled"]
    max_error: float | None
    rms_error: float | None


class ExplainedLoser(Struct, forbid_unknown_fields=True):
    """What was not chosen, and why; `us` is null where it had no price."""

    lowering: str
    reason: str
    us: Us | None


class ExplainedChoice(Struct, forbid_unknown_fields=True):
    """The lowering of one region of a block, priced for one of `layers` layers.

    `source` says whether `us` was measured (record); `estimate_us` is the estimate in either case,
    and of both `prepared_us` are its share of what a step prepares once. `num_losers` are all that
    lost, of which `losers` are the first.
    """

    block: str
    layers: Annotated[int, Meta(ge=1)]
    ops: list[str]
    lowering: str
    knobs: dict[str, int]
    us: Us
    source: str
    estimate_us: Us
    prepared_us: Us
    portable: bool
    proof: ExplainedProof | None
    losers: list[ExplainedLoser]
    num_losers: Count


class ExplainedChoices(Struct, forbid_unknown_fields=True):
    """What was chosen in one program, in the order in which it runs."""

    name: str
    choices: list[ExplainedChoice]
