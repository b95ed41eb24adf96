"""Finds the cheapest exact cover of a block function by lowerings' regions. Emits nothing.

There is no priority by order of import: cost decides, then the lowering's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Protocol

from xdsl.dialects import func
from xdsl.ir import Operation, SSAValue

from lostwax.backends.lowering import Lowering
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.price import Measurements, NoMeasurements, Price, price
from lostwax.backends.plan.program_context import BlockFunction, ProgramContext
from lostwax.backends.plan.views import aliased_operand
from lostwax.ir.contract.program import Guard
from lostwax.ir.op import type_bytes
from lostwax.ir.region import Node, Region, RegionMatch, find_matches


@dataclass(frozen=True, slots=True)
class Refusal:
    """A lowering that matched some ops but may not run there, and the predicate's reason."""

    region: RegionMatch
    lowering: str
    reason: str


@dataclass(frozen=True, slots=True)
class Priced:
    """A candidate with its price."""

    candidate: Candidate
    price: Price


@dataclass(frozen=True)
class CandidateSet:
    """Everything that could cover one block function of one program."""

    context: ProgramContext
    block: BlockFunction
    ops: tuple[Operation, ...]
    priced: tuple[Priced, ...]
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True)
class Cover:
    """The chosen candidates in an order that respects their dependencies, and their total price."""

    candidates: CandidateSet
    chosen: tuple[Priced, ...]
    total: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", sum(p.price.total for p in self.chosen))


class NoCover(ValueError):
    """Some op has no lowering; the message lists each candidate and the predicate that refused."""


@dataclass(frozen=True, slots=True)
class Forced:
    """`--lowering [SEGMENT:]OP=NAME`; `selecting`: only where a step's positions are chosen."""

    op: str
    lowering: str
    segment: str | None = None
    selecting: bool = False

    def applies(self, segment: str, guard: Guard) -> bool:
        """Whether the rule speaks of programs of this segment under this guard."""
        return self.segment in (None, segment) and not (self.selecting and guard.selects_all)


def _view_match(op: Operation) -> RegionMatch:
    region = Region({"op": Node(op.name, {"x": "x"})}, ("op",))
    return RegionMatch(region, {"op": op}, {"x": op.operands[0], "op": op.results[0]})  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes that one region may take: results, workspaces and what its calls allocate.

    `strict`: what takes more is refused. Else it is refused only where something takes less: an op
    that cannot be cut smaller takes what it needs, and the memory plan says so.
    """

    num_bytes: int
    strict: bool = True


def _need_bytes(candidate: Candidate, lowering: Lowering, knobs: Mapping[str, int]) -> int:
    env = candidate.context.env
    results = sum(type_bytes(v.type, env) for v in candidate.region.output_values())
    taken = (lowering.workspace, lowering.zeroed, lowering.allocates)
    return results + sum(each(candidate, knobs) for each in taken)


def _fitting_knobs(
    candidate: Candidate, lowering: Lowering, budget: Budget | None, first_only: bool = False
) -> tuple[dict[str, int], str | None]:
    """The first knob setting within the budget; else the smallest one, and why it does not fit.

    Knobs that take no memory stay at their first values.
    """
    if budget is None:
        return lowering.default_knobs(), None
    least: tuple[int, dict[str, int]] | None = None
    tried = (
        k.values if k.takes_memory and not first_only else k.values[:1] for k in lowering.knobs
    )
    for values in product(*tried):
        knobs = {k.name: v for k, v in zip(lowering.knobs, values, strict=True)}
        need = _need_bytes(candidate, lowering, knobs)
        if need <= budget.num_bytes:
            return knobs, None
        if least is None or need < least[0]:
            least = need, knobs
    assert least is not None  # without knobs there is one setting, the empty one
    need, knobs = least
    return knobs, (
        f"needs {need} bytes of results, workspace and temporaries, the budget is"
        f" {budget.num_bytes}; give a larger --budget"
    )


def _priced(
    candidate: Candidate,
    lowering: Lowering,
    knobs: Mapping[str, int],
    measurements: Measurements,
    budget: Budget | None,
) -> Priced:
    """The candidate's price; a record made with more room than the budget gives does not count."""
    found = price(candidate, measurements, knobs)
    room = None if budget is None else budget.num_bytes
    if room is not None and _need_bytes(candidate, lowering, found.knobs) > room:
        found = price(candidate, NoMeasurements(), knobs)
    return Priced(candidate, found)


class Pricing(Protocol):
    """A rule over all programs of an artifact (`batch_invariance.OnePrice`)."""

    def refusal(self, lowering: Lowering) -> str | None:
        """Why the lowering is no choice, None if it is one."""
        ...

    def price(self, candidate: Candidate) -> Price:
        """The candidate's price."""
        ...


Site = tuple[Lowering, RegionMatch]


def find_sites(block: BlockFunction, lowerings: Iterable[Lowering]) -> list[Site]:
    """Every site of every lowering's pattern in a block function, whatever the bucket."""
    ordered = sorted(lowerings, key=lambda low: low.name)
    body = block.function.body.block
    return [(low, match) for low in ordered for match in find_matches(low.pattern, body)]


def _forced_refusal(lowering: Lowering, match: RegionMatch, rules: Sequence[Forced]) -> str | None:
    for rule in rules:
        if rule.lowering != lowering.name and any(op.name == rule.op for op in match.members):
            return f"--lowering asks for {rule.lowering} on {rule.op}"
    return None


def _unasked(
    candidate: Candidate, lowering: Lowering, rules: Sequence[Forced], measurements: Measurements
) -> str | None:
    """Why a lowering that is chosen by name is no choice where nobody named it."""
    ops = {op.name for op in candidate.region.members}
    named = any(rule.lowering == lowering.name and rule.op in ops for rule in rules)
    if not lowering.by_name or named or measurements.best(candidate) is not None:
        return None
    calls = f"; it calls the package {', '.join(lowering.requires)}" if lowering.requires else ""
    return f"is chosen only where --lowering names it or a record has timed it{calls}"


def find_candidates(
    context: ProgramContext,
    block: BlockFunction,
    sites: Iterable[Site],
    measurements: Measurements,
    forced: Sequence[Forced] = (),
    budget: Budget | None = None,
    one_price: Pricing | None = None,
) -> CandidateSet:
    """Test and price every lowering at its sites in one block function.

    `one_price` refuses lowerings and prices them instead of measurements and estimates; a budget
    that is not strict then says nothing, or programs of different sizes would choose differently.
    """
    if one_price is not None and budget is not None and not budget.strict:
        budget = None
    body = block.function.body.block
    ops = tuple(op for op in body.ops if not isinstance(op, func.ReturnOp))
    rules = [f for f in forced if f.applies(context.segment, context.guard)]
    priced: list[Priced] = []
    refusals: list[Refusal] = []
    large: list[Priced] = []
    for op in ops:
        if aliased_operand(op) is not None:
            view = Candidate(context, block, _view_match(op), None)
            priced.append(Priced(view, price(view, measurements, {})))
    for lowering, match in sites:
        candidate = Candidate(context, block, match, lowering)
        reason = lowering.when.refusal(candidate) or _forced_refusal(lowering, match, rules)
        reason = reason or _unasked(candidate, lowering, rules, measurements)
        if one_price is not None:
            reason = reason or one_price.refusal(lowering)
        if reason is not None:
            refusals.append(Refusal(match, lowering.name, reason))
            continue
        knobs, reason = _fitting_knobs(candidate, lowering, budget, one_price is not None)
        if one_price is not None and reason is None:
            priced.append(Priced(candidate, one_price.price(candidate)))
        elif reason is None:
            priced.append(_priced(candidate, lowering, knobs, measurements, budget))
        else:
            refusals.append(Refusal(match, lowering.name, reason))
            large.append(Priced(candidate, price(candidate, NoMeasurements(), knobs)))
    if budget is not None and not budget.strict:
        covered = {op for p in priced for op in p.candidate.region.members}
        wanted = [p for p in large if not p.candidate.region.members <= covered]
        priced += wanted
        taken = {(id(p.candidate.region), p.candidate.name) for p in wanted}
        refusals = [r for r in refusals if (id(r.region), r.lowering) not in taken]
    return CandidateSet(context, block, ops, tuple(priced), tuple(refusals))


def _no_cover(cset: CandidateSet, op: Operation, extra: Sequence[Refusal]) -> NoCover:
    lines = [f"{cset.block.name}: no lowering covers {op.name} in {cset.context.name}:"]
    for refusal in (*cset.refusals, *extra):
        if op in refusal.region.members:
            lines.append(f"  {refusal.lowering}: {refusal.reason}")
    if len(lines) == 1:
        lines.append(
            f"  target {cset.context.target.name} has no lowering whose pattern matches it"
        )
    return NoCover("\n".join(lines))


Solution = tuple[int, tuple[str, ...], tuple[int, ...]]
"""Total price, lowering names (they break ties) and positions in the allowed list."""


class _Search:
    """Exact cover of least price; each bit mask of uncovered ops remembers its solution."""

    def __init__(self, ops: Sequence[Operation], allowed: Sequence[Priced]) -> None:
        index = {op: i for i, op in enumerate(ops)}
        self._allowed = allowed
        self._masks = [sum(1 << index[o] for o in p.candidate.region.members) for p in allowed]
        self.by_op: list[list[int]] = [
            [c for c, mask in enumerate(self._masks) if mask >> i & 1] for i in range(len(ops))
        ]
        self._solved: dict[int, Solution | None] = {0: (0, (), ())}

    def solve(self, left: int) -> Solution | None:
        """The cheapest exact cover of the ops in `left`; its first op picks the next region."""
        if left not in self._solved:
            first = (left & -left).bit_length() - 1
            options = [self._with(c, left) for c in self.by_op[first] if not self._masks[c] & ~left]
            self._solved[left] = min((o for o in options if o is not None), default=None)
        return self._solved[left]

    def _with(self, c: int, left: int) -> Solution | None:
        rest = self.solve(left & ~self._masks[c])
        if rest is None:
            return None
        p = self._allowed[c]
        return (p.price.total + rest[0], (p.candidate.name, *rest[1]), (c, *rest[2]))


def least_price(cset: CandidateSet, passed: Sequence[bool]) -> int | None:
    """Picoseconds of the cheapest cover by the candidates that passed, None if there is none."""
    allowed = [p for p, good in zip(cset.priced, passed, strict=True) if good]
    solution = _Search(cset.ops, allowed).solve((1 << len(cset.ops)) - 1)
    return None if solution is None else solution[0]


def _cheapest(
    cset: CandidateSet, allowed: Sequence[Priced], extra: Sequence[Refusal]
) -> list[Priced]:
    search = _Search(cset.ops, allowed)
    solution = search.solve((1 << len(cset.ops)) - 1)
    if solution is not None:
        return [allowed[c] for c in solution[2]]
    for i, op in enumerate(cset.ops):
        if not search.by_op[i]:
            raise _no_cover(cset, op, extra)
    raise NoCover(f"{cset.block.name}: regions exist for each op but no exact cover of them all")


def _schedule(cset: CandidateSet, chosen: Sequence[Priced]) -> list[Priced] | Priced:
    """Regions in dependency order, or one that lies on a cycle of regions."""
    owner: dict[SSAValue, int] = {}
    for c, p in enumerate(chosen):
        for op in p.candidate.region.members:
            owner.update({r: c for r in op.results})
    needs = [
        {owner[v] for op in p.candidate.region.members for v in op.operands if v in owner} - {c}
        for c, p in enumerate(chosen)
    ]
    position = {op: i for i, op in enumerate(cset.ops)}
    first = [min(position[op] for op in p.candidate.region.members) for p in chosen]
    done: list[int] = []
    left = set(range(len(chosen)))
    while left:
        ready = [c for c in left if needs[c] <= set(done)]
        if not ready:
            return chosen[max(left, key=lambda c: len(chosen[c].candidate.region.members))]
        done.append(min(ready, key=lambda c: first[c]))
        left.remove(done[-1])
    return [chosen[c] for c in done]


def cover(cset: CandidateSet, refuse: Callable[[Candidate], str | None]) -> Cover:
    """The cheapest cover among candidates that `refuse` (the weight plan) lets pass.

    Raises NoCover. Regions that are convex one by one can still wait for each other in a circle;
    then the largest of the circle is given up and the search runs again.
    """
    extra: list[Refusal] = []
    allowed: list[Priced] = []
    for p in cset.priced:
        reason = refuse(p.candidate) if p.candidate.lowering else None
        if reason is None:
            allowed.append(p)
        else:
            extra.append(Refusal(p.candidate.region, p.candidate.name, reason))
    while True:
        ordered = _schedule(cset, _cheapest(cset, allowed, extra))
        if isinstance(ordered, list):
            return Cover(cset, tuple(ordered))
        extra.append(Refusal(ordered.candidate.region, ordered.candidate.name, "waits for itself"))
        allowed.remove(ordered)
