"""A runtime whose steps run late, over pages that know whose they are.

Steps run in the order in which they were submitted, at any moment until somebody waits for them.
Every slot holds whose row was written there, its position and its token. A step fails that reads
anything but what its request wrote or found in its pages when it entered, or that writes a page
which others may read; `wrong` keeps what it was. Knows nothing of the engine but the step contract,
whose a sequence is when a step is submitted, and which pages are shared when it runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fake_runtime import VOCAB, FakeLimits, FakeRuntime
from run_at_once import require_submittable
from step_oracle import StepBatch

from lostwax.backends.runtime.mask_gate import MaskGate, Masks
from lostwax.ir.contract.step import StepResult
from lostwax.ir.contract.step_plan import Move, StepPlan


class WrongSlot(RuntimeError):
    """A step read what its request neither wrote nor found, or wrote what is not its own."""


class DeviceFault(RuntimeError):
    """The planted failure of a step."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A request; the epoch tells those of one name apart."""

    name: str
    epoch: int


@dataclass(frozen=True, slots=True)
class _Slot:
    owner: Owner
    position: int
    token: int


@dataclass(slots=True)
class LateTicket:
    """A step that waits for its turn; `result` takes all turns up to it."""

    runtime: LateRuntime
    plan: StepPlan
    owners: tuple[Owner, ...]
    outcome: StepResult | Exception | None = None
    masks: Masks | None = None
    is_behind: bool = False
    """Whether its body ran behind a failure of which the engine has heard since."""
    gate: MaskGate = field(init=False)

    def __post_init__(self) -> None:
        self.gate = MaskGate(self.plan.num_masked, self.runtime.limits.vocab_size)

    @property
    def done(self) -> bool:
        """Whether the step has run."""
        return self.outcome is not None

    def finish(self, masks: Masks) -> None:
        """From now on it may run."""
        self.gate.take(masks)
        self.masks = masks.copy()

    def result(self) -> StepResult:
        """Run the step, and all before it that have not run."""
        self.gate.require_open()
        while self.outcome is None:
            self.runtime.run_next()
        self.runtime.hear(self)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@dataclass(slots=True)
class _Plane:
    """One kind of cache: its slots, and what each request must read there by position."""

    slots: dict[int, _Slot] = field(default_factory=dict[int, _Slot])
    of: dict[Owner, dict[int, _Slot | None]] = field(
        default_factory=dict[Owner, dict[int, _Slot | None]]
    )


class LateRuntime(FakeRuntime):
    """`holder` names whose a sequence is now, `is_shared` says whether a page has several holders
    now, or is kept for others. `fail_in` steps from now, one fails (0: the next).

    A step behind one that failed gives ids which no model picked, as of a device that went on;
    `struck` gathers whose steps failed, by themselves or by the one before, who had not ended
    (`lives`) when the engine heard of it.
    """

    def __init__(
        self,
        limits: FakeLimits,
        holder: Callable[[int], Owner],
        lives: Callable[[Owner], bool] = lambda _: True,
        is_shared: Callable[[int], bool] = lambda _: False,
    ) -> None:
        super().__init__(limits)
        self.fail_in: int | None = None
        self.queue: deque[LateTicket] = deque()
        """Steps that have not run."""
        self.unheard: list[LateTicket] = []
        """Steps whose result nobody has asked for."""
        self.wrong: list[str] = []
        """What steps found wrong, which the engine takes for failures of the device."""
        self.struck: set[Owner] = set()
        self.num_faults = 0
        self._holder, self._lives, self._is_shared = holder, lives, is_shared
        self._behind: set[Owner] = set()
        self._failed: LateTicket | None = None
        """The last ticket that failed, until its `result` has told of it."""
        self._of_seq: dict[int, Owner] = {}
        self._playing: list[tuple[int, Owner]] = []
        self._main, self._drafts = _Plane(), _Plane()

    def submit(self, plan: StepPlan) -> LateTicket:
        """Queue a step; whose rows they are is as the sequences are held now."""
        waits = bool(self.queue) and not self.queue[-1].gate.is_open
        require_submittable(plan, self.limits, waits)
        for enter in plan.entering:
            self._of_seq[enter.seq] = self._holder(enter.seq)
        ticket = LateTicket(self, plan, tuple(self._of_seq[seq] for seq in plan.seqs))
        self.queue.append(ticket)
        self.unheard.append(ticket)
        return ticket

    def take(self) -> LateTicket:
        """The step whose turn it is."""
        return self.queue.popleft()

    def run_next(self) -> None:
        """Run the oldest step that has not run, unless it waits for masks."""
        if not self.queue[0].gate.is_open:
            return
        ticket = self.take()
        if self._failed is not None or ticket.is_behind:
            if self._failed is not None:
                self._behind |= {*ticket.owners}
            self._spoil(ticket.plan)
            ticket.outcome = self.sequences.play(ticket.plan, _garbage)
            return
        if self.fail_in == 0:
            self.fail_in = None
            self.num_faults += 1
            self._behind |= {*ticket.owners}
            self._spoil(ticket.plan)
            self.sequences.play(ticket.plan, _garbage)
            self._failed, ticket.outcome = ticket, DeviceFault("planted")
            return
        if self.fail_in is not None:
            self.fail_in -= 1
        self._playing = list(zip(ticket.plan.seqs, ticket.owners, strict=True))
        try:
            self.move(ticket.plan.moves)
            self._look_around(ticket)
            ticket.outcome = self.sequences.play(ticket.plan, self._run, ticket.masks)
        except (AssertionError, LookupError, WrongSlot) as error:  # the first two are the fake's
            self.wrong.append(repr(error))
            ticket.outcome = error

    @property
    def planes(self) -> tuple[dict[int, Any], ...]:
        """Whose a slot is, too."""
        return *super().planes, self._main.slots, self._drafts.slots

    def move(self, moves: Sequence[Move]) -> None:
        """Copy as the fake does, never into a page that others may read."""
        for move in moves:
            if move.is_restore and self._is_shared(move.page):
                raise WrongSlot(f"page {move.page}, which is shared, is restored")
        super().move(moves)

    def _spoil(self, plan: StepPlan) -> None:
        """Nobody knows what a step that failed has copied."""
        for move in plan.moves:
            self._host.pop(move.slot, None)

    def hear(self, ticket: LateTicket) -> None:
        """Somebody was told how a ticket ended; what waits now still ran behind the failure."""
        self.unheard = [each for each in self.unheard if each is not ticket]
        if ticket is self._failed:
            while self.queue and self.queue[0].gate.is_open:
                self.run_next()
            for waiting in self.queue:  # its body has run
                waiting.is_behind = True
                self._behind |= {*waiting.owners}
            self._failed = None
            self.struck |= set(filter(self._lives, self._behind))
            self._behind.clear()

    def _look_around(self, ticket: LateTicket) -> None:
        """Who enters goes on behind what it finds in its pages."""
        owners, size = dict(self._playing), self.limits.page_tokens
        for enter in ticket.plan.entering:
            slots = [enter.pages[p // size] * size + p % size for p in range(enter.length)]
            for plane in (self._main, self._drafts):
                found = {position: plane.slots.get(slot) for position, slot in enumerate(slots)}
                plane.of[owners[enter.seq]] = found

    def _run(self, batch: StepBatch) -> StepResult:
        """Write the rows' slots, look at every slot that the step sees, then run it."""
        plane = self._drafts if batch.entry == "draft" else self._main
        owners, size = self._owners(batch), self.limits.page_tokens
        looks: set[int] = set()
        for request, owner in enumerate(owners):
            for row in range(batch.q_starts[request], batch.q_starts[request + 1]):
                position, token = batch.positions[row], batch.tokens[row]
                if token >= 0:
                    looks.add(request)
                    slot = batch.slots[row]
                    if self._is_shared(slot // size):
                        raise WrongSlot(f"{owner} writes page {slot // size}, which is shared")
                    plane.slots[slot] = plane.of[owner][position] = _Slot(owner, position, token)
        for request, owner in enumerate(owners):
            for position in range(batch.kv_lens[request] if request in looks else 0):
                slot = batch.page_table[request][position // size] * size + position % size
                want, found = plane.of[owner].get(position), plane.slots.get(slot)
                if want is None or want != found:
                    raise WrongSlot(f"slot {slot} holds {found}, where {want} was written")
        return self.run(batch)

    def _owners(self, batch: StepBatch) -> list[Owner]:
        """Whose pages each of the batch's lists is: drafts are of some of the step's requests."""
        lists = {tuple(self.sequences.rows[seq].pages): o for seq, o in self._playing}
        return [lists[tuple(pages)] for pages in batch.page_table]


def _garbage(batch: StepBatch) -> StepResult:
    """What a step gives that ran over what a failed one left."""
    count = len(batch.logit_rows)
    result = StepResult(ids=[(7 * i) % VOCAB for i in range(count)], logprobs=[-1.0] * count)
    if batch.head == "score":
        result.target_logprobs = [-1.0] * count
        result.top_ids = [[*range(20)] for _ in range(count)]
        result.top_logprobs = [[-1.0] * 20 for _ in range(count)]
    return result
