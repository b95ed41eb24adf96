"""Chooses how many threads a CPU's steps run on, by timing real steps. Knows no request.

More threads help where a step has much arithmetic, and cost where it is a thousand short operators,
each of which waits for the slowest thread: the default model's decode step takes 7 ms on one thread
and 9 on two, its prefill step of 16 rows behind 4,096 tokens 47 and 30. So steps of few rows and
steps of many have each their own number. Only the clock is
asked, since it alone knows what else runs on these cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median_low
from typing import TYPE_CHECKING, Literal

from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import Enter

if TYPE_CHECKING:
    from lostwax.backends.runtime.load import RuntimeLimits

MANY_ROWS = 16
"""From here a step counts as one of many rows: the least that prefill steps usually have."""
EXTEND_ROWS = (128, MANY_ROWS)
"""Of the timed extend steps."""
CONTEXT = 256
"""Positions that the timed decode steps see, if the artifact and its pages have so many."""
DECODE_REQS = (1, 4)
NEAR = 1.05
"""Fewer threads are taken where they cost no more than this: they leave cores to others."""
HOPELESS = 1.3
"""A number of threads whose best time is so much over the best of all is timed no more."""
ROUNDS = 7
SURE_ROUNDS = 2
"""Rounds before a number of threads may be given up."""
STEP_BUDGET_S = 0.08
"""How long one kind of step is timed, once each number of threads had its turn."""
BUDGET_S = 1.0
"""How long all are timed: from then on one round has to do."""
MAX_STEP_S = 1.0
"""A slower step is arithmetic all through: every core is taken, and no time spent on asking."""
LONG_S = 0.1
"""A step of this length on some threads, and much longer than the best one, is not tried on
fewer."""
MUCH = 1.5
Seconds = Mapping[int, float]
"""Of a step, by number of threads."""


@dataclass(frozen=True, slots=True)
class StepThreads:
    """Threads of steps of few and of many rows, out of `usable`; `timed` says why."""

    few: int
    many: int
    usable: int
    timed: tuple[tuple[str, Seconds], ...] = ()

    def of(self, rows: int) -> int:
        """For a step of so many rows."""
        return self.many if rows >= MANY_ROWS else self.few

    def __str__(self) -> str:
        chosen = f"{self.few} for few rows, {self.many} from {MANY_ROWS} rows on"
        if self.few == self.many:
            chosen = str(self.few)
        shown = "; ".join(f"{name} {_shown(seconds)}" for name, seconds in self.timed)
        return f"threads, of {self.usable} usable: {chosen}" + (f" ({shown})" if shown else "")


def _shown(seconds: Seconds) -> str:
    each = (f"{1e3 * seconds[n]:.1f} ms on {n}" for n in sorted(seconds))
    return ", ".join(each) or f"over {MAX_STEP_S:g} s"


def choose_threads(
    run: Callable[[StepPlan], object],
    limits: RuntimeLimits,
    usable: int,
    use: Callable[[int], None],
    *,
    one_number: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> StepThreads:
    """Time decode and extend steps on 1, 2, 4, … `usable` threads, which `use` sets, and choose.

    It writes into pages that no request has yet. With `one_number` all steps get the same: nobody
    promises that a row's last bits are equal on other threads.
    """
    if usable == 1:
        return StepThreads(1, 1, 1)
    timed: list[tuple[str, Seconds]] = []
    deadline = clock() + BUDGET_S
    few, many = list[Seconds](), list[Seconds]()
    # Extend steps come first: they fill positions that the decode steps read.
    for name, plan in _steps(limits):
        seconds = _time(partial(run, plan), _counts(usable), use, clock, deadline)
        timed.append((name, seconds))
        (few if plan.entry == "decode" else many).append(seconds)
    if one_number:
        few_threads = many_threads = fewest([*many, *few], usable)
    else:
        few_threads, many_threads = fewest(few, usable), fewest(many, usable)
    return StepThreads(few_threads, many_threads, usable, tuple(timed))


def fewest(timed: Sequence[Seconds], usable: int) -> int:
    """The smallest number whose steps take, on average, little longer than the best one's.

    `usable` where a step was too slow to be timed, and where no number was timed for all.
    """
    common = [n for n in sorted(timed[0]) if all(n in seconds for seconds in timed)]
    if not common:
        return usable
    # Each step counts alike: its times are taken relative to its own best.
    costs = {n: sum(s[n] / min(s.values()) for s in timed) / len(timed) for n in common}
    best = min(costs.values())
    return next(n for n in common if costs[n] <= NEAR * best)


def _counts(usable: int) -> list[int]:
    """Powers of two, and `usable`: the largest first."""
    powers = [1 << k for k in range(usable.bit_length()) if 1 << k < usable]
    return [usable, *reversed(powers)]


def _time(
    step: Callable[[], object],
    counts: Sequence[int],
    use: Callable[[int], None],
    clock: Callable[[], float],
    deadline: float,
) -> Seconds:
    """Median seconds of a step by number of threads, in interleaved rounds (of two, the lower: one
    slow step may be the machine's); none of a slow step."""

    def seconds(count: int) -> float:
        use(count)
        begin = clock()
        step()
        return clock() - begin

    seconds(counts[0])  # binds the program and touches its memory
    start, found = clock(), dict[int, list[float]]()
    for count in counts:
        found[count] = [seconds(count)]
        best = min(times[0] for times in found.values())
        if best > MAX_STEP_S:
            return {}
        if found[count][0] > max(LONG_S, MUCH * best):
            break
    for done in range(1, ROUNDS):
        kept = _kept(found) if done >= SURE_ROUNDS else list(found)
        if len(kept) == 1 or clock() - start > STEP_BUDGET_S or clock() > deadline:
            break
        for count in reversed(kept) if done % 2 else kept:
            found[count].append(seconds(count))
    return {count: median_low(times) for count, times in found.items()}


def _kept(found: Mapping[int, Sequence[float]]) -> list[int]:
    best = min(min(times) for times in found.values())
    return [count for count, times in found.items() if min(times) <= HOPELESS * best]


def _steps(limits: RuntimeLimits) -> list[tuple[str, StepPlan]]:
    """Extend steps, then decode steps behind them; all requests see the same pages."""
    context = min(CONTEXT, limits.max_context, (limits.num_pages - 1) * limits.page_tokens)
    most = min(limits.max_tokens, context)
    found: list[tuple[str, StepPlan]] = []
    for rows in sorted({min(count, most) for count in EXTEND_ROWS}, reverse=True):
        name = f"a step of {rows} rows"
        found.append((name, _plan("extend", range(context - rows, context), 1, limits)))
    for reqs in sorted({min(count, limits.max_reqs) for count in DECODE_REQS}):
        name = "1 request" if reqs == 1 else f"{reqs} requests"
        found.append((name, _plan("decode", range(context - 1, context), reqs, limits)))
    return found


def _plan(
    entry: Literal["extend", "decode"], positions: range, reqs: int, limits: RuntimeLimits
) -> StepPlan:
    """`positions` of each of `reqs` requests, in pages 1, 2, …; the last rows' logits."""
    length, end = len(positions), positions.stop
    pages = tuple(range(1, 1 + -(-end // limits.page_tokens)))
    seqs = tuple(range(1, 1 + reqs))
    tokens = [7 * row % limits.vocab_size for row in range(reqs * length)]
    is_decode = entry == "decode"
    return StepPlan(
        entry=entry,
        seqs=seqs,
        counts=(length,) * reqs,
        ends=(end,) * reqs,
        tokens=() if is_decode else tuple(tokens),
        entering=tuple(
            Enter(seq, pages, positions.start, end, end, tokens=(token,) if is_decode else ())
            for seq, token in zip(seqs, tokens, strict=False)
        ),
        logits=tuple((seq * length - 1, 1) for seq in seqs),
    )
