"""Runs the sampling kernels in Triton's interpreter as their lowerings launch them.

A program of its own because Triton decides at import whether it interprets. Output: one JSON
object, what must hold to the cases in which it does not.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping

import numpy as np
import torch
from plain_run import run
from sampled_rows import ROWS, Arrays, rows_of

from lostwax.backends.gpu_kernels.lowerings.sample import LOGPROB, MASK, NUCLEUS, PICK
from lostwax.backends.gpu_kernels.lowerings.sample_tail import SAMPLE_TAIL
from lostwax.backends.gpu_kernels.lowerings.score import SCORE
from lostwax.backends.lowering import Lowering
from lostwax.backends.portable.kernels import sample as portable
from lostwax.backends.proof.plain_match import Value
from lostwax.ir.contract.program import Bucket
from lostwax.ir.reference import sample

TOP = 20

OPS: dict[str, tuple[Lowering, str, str]] = {
    "mask": (MASK, "logits masks mask_rows", "op.out"),
    "nucleus": (NUCLEUS, "logits temperature top_k top_p min_p", "op.out"),
    "pick": (PICK, "logits temperature seeds counters", "op.ids op.logprobs"),
    "logprob": (LOGPROB, "logits targets", "op.logprobs"),
}
"""By op: lowering, operands and results."""

WHOLE: dict[str, tuple[Lowering, str, str]] = {
    "sample a tail": (
        SAMPLE_TAIL,
        "logits counts count_rows recent repetition frequency presence biases bias_rows masks"
        " mask_rows temperature top_k top_p min_p seeds counters",
        "picked.ids logprob",
    ),
    "score": (SCORE, "logits targets", "op.target_logprobs op.top_ids op.top_logprobs"),
}  # fmt: skip
"""The same where a program holds a row."""


def launched(op: str, data: Mapping[str, np.ndarray], **knobs: int) -> Arrays:
    """Results by name, as f64; rows in parts of 512 ids unless `block` says otherwise."""
    lowering, reads, writes = (OPS | WHOLE)[op]
    rows, vocab = data["logits"].shape
    given = {name: data[name] for name in reads.split()}
    values = {
        n: Value(a.shape, "f32" if a.dtype == np.float32 else "i32") for n, a in given.items()
    }
    shapes = {"op.out": (rows, vocab)}
    shapes |= dict.fromkeys(("op.top_ids", "op.top_logprobs"), (rows, min(TOP, vocab)))
    values |= {
        name: Value(shapes.get(name, (rows,)), "i32" if "ids" in name else "f32")
        for name in writes.split()
    }
    knobs = {"block": 512} | knobs if op in OPS else knobs
    found = run(lowering, Bucket(rows, rows, 1, rows), values, {}, given, knobs)
    return {name: found[name] for name in writes.split()}


STATES = ("counts", "biases", "masks")
"""What has rows that are nobody's."""


def alone(data: Arrays, row: int) -> Arrays:
    """The inputs of one row; masks are of nobody."""
    return {n: a if n in STATES else a[row : row + 1] for n, a in data.items()}


def narrows(data: Arrays) -> np.ndarray:
    """Which rows are sampled from some ids only."""
    some = (data["top_p"] < 1) | (data["top_k"] > 0) | (data["min_p"] > 0)
    return (data["temperature"] > 0) & some


def same(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Whether values are equal, NaN to NaN."""
    return (got == want) | (np.isnan(got) & np.isnan(want))


def near(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Whether log-probabilities are equal but for rounding to f32, NaN to NaN."""
    return same(got, want) | (np.abs(got - want) <= 3e-6 * np.maximum(1, np.abs(want)))


def torch_pick(data: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """What the portable kernel picks, with its log-probabilities."""
    given = [torch.from_numpy(data[n]) for n in ("logits", "temperature", "seeds", "counters")]
    ids, logprobs = torch.empty(len(given[0]), dtype=torch.int32), torch.empty(len(given[0]))
    portable.pick(given[0], given[1], given[2], given[3], ids, logprobs)
    return ids.numpy(), logprobs.double().numpy()


def torch_logprob(data: Arrays) -> np.ndarray:
    """The portable kernel's log-probabilities of targets."""
    out = torch.empty(len(data["logits"]))
    portable.logprob(torch.from_numpy(data["logits"]), torch.from_numpy(data["targets"]), out)
    return out.double().numpy()


Expect = Callable[[str, np.ndarray], None]
Failed = dict[str, list[str]]


def check(names: tuple[str, ...], vocab: int, failed: Failed) -> None:
    """All three ops on rows of these kinds."""

    def expect(what: str, holds: np.ndarray) -> None:
        failed[what] += [
            f"{n}, {vocab} ids" for n, row in zip(names, holds, strict=True) if not row
        ]

    data = rows_of(names, vocab)
    inside = check_nucleus(data, expect)
    check_pick(data, inside, expect)
    check_whole(data, inside, expect)
    check_masked(data, expect)
    check_biased(data, expect)
    for target in (-1, vocab // 2):
        data["targets"] = np.full(len(names), target, np.int32)
        found = launched("logprob", data)["op.logprobs"]
        expect("a target's log-probability is torch's", near(found, torch_logprob(data)))
        check_score(data, found, expect)


def check_score(data: Arrays, logprobs: np.ndarray, expect: Expect) -> None:
    """Targets and first ids, where both ops give the same log-probabilities."""
    found = launched("score", data)
    ids = found["op.top_ids"].astype(np.int32)
    _, want, _ = sample.score(data["logits"], data["targets"], n=ids.shape[1])
    expect("first ids are the reference's", np.all(ids == want, axis=1))
    expect("a score has a target's log-probability", same(found["op.target_logprobs"], logprobs))
    by_rank = [
        launched("logprob", data | {"targets": rank}, block=1024)["op.logprobs"] for rank in ids.T
    ]
    alike = same(found["op.top_logprobs"], np.stack(by_rank, axis=1))
    expect("first ids have a target's log-probability", np.all(alike, axis=1))


def check_nucleus(data: Arrays, expect: Expect) -> np.ndarray:
    """The nucleus of each row, which is returned."""
    given = tuple(data[n] for n in ("logits", "temperature", "top_k", "top_p", "min_p"))
    logits, found = given[0], launched("nucleus", data)["op.out"]
    is_open = sample.nucleus_border(*given) & (same(found, logits) | (found == -np.inf))
    is_broken = np.isnan(logits).any(axis=1, keepdims=True)
    right = np.where(is_broken, same(found, logits), is_open | (found == sample.nucleus(*given)))
    expect("a nucleus is the reference's, and NaN stays", np.all(right, axis=1))
    return found.astype(np.float32)


def check_pick(data: Arrays, inside: np.ndarray, expect: Expect) -> None:
    """The pick from all ids, and from the nucleus where a row has none."""
    found = launched("pick", data)
    ids, logprobs = found["op.ids"], found["op.logprobs"]
    want, _ = sample.pick(*(data[n] for n in ("logits", "temperature", "seeds", "counters")))
    chosen, by_torch = torch_pick(data)
    expect("an id is the reference's", ids == want)
    expect("an id is the portable kernel's", ids == chosen)
    expect("a picked id's log-probability is torch's", near(logprobs, by_torch))
    again = launched("logprob", data | {"targets": ids.astype(np.int32)})["op.logprobs"]
    expect("both ops give the same log-probability", same(again, logprobs))
    passed = launched("pick", data | {"logits": inside})["op.ids"]
    has_nucleus = narrows(data)
    expect("without a nucleus the pick is the same", has_nucleus | (passed == ids))


def check_whole(data: Arrays, inside: np.ndarray, expect: Expect) -> None:
    """One program a row gives the bits of the parts at their first knobs."""
    whole = launched("pick", data, block=1024)
    ids = launched("pick", data | {"logits": inside}, block=1024)["op.ids"]
    targets = data | {"targets": ids.astype(np.int32)}
    logprobs = launched("logprob", targets, block=1024)["op.logprobs"]
    sampled = launched("sample a tail", data)
    parts = {"picked.ids": ids, "logprob": logprobs}
    expect("a sample of whole rows has the bits of parts", same_all(sampled, parts))
    alike = same(sampled["picked.ids"], whole["op.ids"])
    alike &= same(sampled["logprob"], whole["op.logprobs"])
    has_nucleus = narrows(data)
    expect("without a nucleus both heads give the same bits", has_nucleus | alike)


def check_masked(data: Arrays, expect: Expect) -> None:
    """The reference's mask; in whole rows the bits of mask, nucleus and pick one by one."""
    logits, masks = data["logits"], data["masks"]
    for first in range(2):
        rows = (np.arange(len(logits)) * 3 + first) % (len(masks) + 1) - 1
        own = data | {"mask_rows": rows.astype(np.int32)}
        found = launched("mask", own)["op.out"]
        want = sample.mask(logits, masks, rows)
        expect("masked logits are the reference's", np.all(same(found, want), axis=1))
        masked = own | {"logits": found.astype(np.float32)}
        inside = launched("nucleus", masked, block=1024)["op.out"].astype(np.float32)
        ids = launched("pick", masked | {"logits": inside}, block=1024)["op.ids"]
        is_broken = np.isnan(inside).any(axis=1)
        is_allowed = want[np.arange(len(ids)), ids.astype(int)] > -np.inf
        is_empty = np.all(want == -np.inf, axis=1)
        expect("an id is allowed, where any is", is_allowed | is_broken | is_empty)
        expect("where none is it is id 0", ~is_empty | (ids == 0))
        parts = {"picked.ids": ids}
        targets = data | {"targets": ids.astype(np.int32)}
        parts["logprob"] = launched("logprob", targets, block=1024)["op.logprobs"]
        whole = launched("sample a tail", own)
        expect("a masked sample of whole rows has the bits of parts", same_all(whole, parts))


def check_biased(data: Arrays, expect: Expect) -> None:
    """A sample of rows with penalties and biases is that of what these give, but for its
    log-probability."""
    logits, biases, count = data["logits"], data["biases"], len(data["logits"])
    for first in range(2):
        rows = (np.arange(count) * 3 + first) % (len(biases) + 1) - 1
        masks = (np.arange(count) + first) % (len(data["masks"]) + 1) - 1
        own = data | {"bias_rows": rows.astype(np.int32), "mask_rows": masks.astype(np.int32)}
        own["count_rows"] = ((np.arange(count) * 2 + first) % 5 - 1).astype(np.int32)
        less, sums = torch.empty(logits.shape), torch.empty(logits.shape)
        x = {n: torch.from_numpy(a) for n, a in own.items()}
        told = x["repetition"], x["frequency"], x["presence"]
        portable.penalise(x["logits"], x["counts"], x["count_rows"], x["recent"], *told, less)
        portable.bias(less, x["biases"], x["bias_rows"], sums)
        none = np.full(count, -1, np.int32)
        nobody = {"logits": sums.numpy(), "bias_rows": none, "count_rows": none}
        found, want = launched("sample a tail", own), launched("sample a tail", own | nobody)
        expect("an id is that of the biased row", same(found["picked.ids"], want["picked.ids"]))
        targets = data | {"targets": found["picked.ids"].astype(np.int32)}
        logprobs = launched("logprob", targets, block=1024)["op.logprobs"]
        expect("its log-probability is the row's", same(found["logprob"], logprobs))


def same_all(got: Arrays, want: Arrays) -> np.ndarray:
    """By row, whether all results are equal."""
    return np.all([same(got[name], want[name]) for name in got], axis=0)


def check_half(failed: Failed) -> None:
    """Masses are whole numbers: where half of them is before an id is no matter of rounding."""
    rows = np.array([[2, 2, 2, 2], [0, 1, 1, 1], [0, 0, 1e-30, 1e-30]], np.float32)
    want = [[0, 1], [1, 2], [2, 3]]
    data = {"logits": rows, "temperature": np.ones(3, np.float32)}
    data["top_p"] = np.full(3, 0.5, np.float32)
    data |= {"top_k": np.zeros(3, np.int32), "min_p": np.zeros(3, np.float32)}
    kept = launched("nucleus", data)["op.out"] > -np.inf
    many = {name: np.repeat(a, 20, axis=0) for name, a in data.items()}
    many |= {"biases": np.zeros((1, 4), np.float32), "bias_rows": np.full(60, -1, np.int32)}
    many |= {"counts": np.zeros((1, 4), np.int32), "count_rows": np.full(60, -1, np.int32)}
    many |= {"recent": np.full((60, 3), -1, np.int32)}
    many |= {n: np.zeros(60, np.float32) for n in ("repetition", "frequency", "presence")}
    many |= {"masks": np.zeros((1, 1), np.int32), "mask_rows": np.full(60, -1, np.int32)}
    many |= {"seeds": np.arange(60, dtype=np.int32), "counters": np.zeros(60, np.int32)}
    picked = launched("sample a tail", many)["picked.ids"].reshape(3, 20)
    for found in ([np.flatnonzero(row) for row in kept], [np.unique(row) for row in picked]):
        if [ids.tolist() for ids in found] != want:
            failed["an id before which top_p lies is outside"].append(str(found))


def check_border(names: tuple[str, ...], vocab: int, failed: Failed) -> None:
    """Noise that favours the last id inside, or the first outside, does not make it another's."""
    data = rows_of(names, vocab)
    inside = launched("nucleus", data)["op.out"] > -np.inf
    counters = np.arange(5000)
    noise = sample.gumbel(np.full_like(counters, 3), counters, vocab)
    for row, name in enumerate(names):
        logits = data["logits"][row].astype(np.float64)
        order = np.argsort(-logits, kind="stable")
        last = int(inside[row].sum()) - 1
        scores = logits[order] / data["temperature"][row] + noise[:, order]
        for border in (last, last + 1):
            favoured = np.flatnonzero(scores[:, : border + 1].argmax(axis=1) == border)
            if not favoured.size:
                raise AssertionError(f"no counter favours rank {border} of {name}")
            one = alone(data, row)
            one |= {"seeds": np.array([3], np.int32), "counters": favoured[:1].astype(np.int32)}
            want = order[scores[favoured[0], : last + 1].argmax()]
            if launched("sample a tail", one)["picked.ids"].tolist() != [want]:
                failed["a sample of whole rows is from the nucleus"].append(f"{name}, {border}")


def check_bits(names: tuple[str, ...], vocab: int, failed: Failed) -> None:
    """Neither the rows beside a row nor the width of a part changes a bit of it."""
    data = rows_of(names, vocab)
    data["targets"] = np.arange(len(names), dtype=np.int32)
    data["mask_rows"] = np.array([1, 0], np.int32)
    data["bias_rows"] = np.array([0, 2], np.int32)
    data["count_rows"] = np.array([3, 0], np.int32)
    for op in OPS | WHOLE:
        many = launched(op, data)
        wide = launched(op, data, block=1024) if op in OPS else many
        for name, values in many.items():
            if not same(values, wide[name]).all():
                failed["parts of another width give the same bits"].append(op)
            for row in range(len(names)):
                single = launched(op, alone(data, row))
                if not same(values[row], single[name][0]).all():
                    failed["a row alone has the same bits"].append(f"{op}, row {row}")


def main() -> None:
    """Run every case and print what does not hold."""
    failed: Failed = defaultdict(list)
    every = tuple(ROWS)
    with np.errstate(all="ignore"):  # rows hold NaN and infinities
        check(every[:9], 1300, failed)
        check(every[9:16], 1025, failed)
        check(every[16:], 1300, failed)
        check(every[16:], 300, failed)
        check(("plain", "greedy", "tied"), 7, failed)
        check(("plain",), 1, failed)
        check_half(failed)
        check_border(("one value", "zeros"), 1300, failed)
        check_border(("late", "few of equals", "all three"), 1030, failed)
        check_bits(("tied", "greedy"), 1025, failed)
        check_bits(("all three", "few"), 1025, failed)
    print(json.dumps(failed))


if __name__ == "__main__":
    main()
