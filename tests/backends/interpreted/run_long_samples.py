"""Runs a sampling tail on long rows in Triton's interpreter.

A program of its own because Triton decides at import whether it interprets. Output: one JSON
object, what must hold to the cases in which it does not.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from run_sample_cases import launched
from sampled_rows import Arrays, rows_of

from lostwax.backends.portable.kernels import sample as portable
from lostwax.ir.reference import sample

TRIES = 3
LISTED = (
    "plain",
    "one value",
    "few of equals",
    "more than all",
    "likely",
    "all three",
    "corner",
)
TRIED_TWICE: dict[str, tuple[str, dict[str, float]]] = {
    "one value": ("one value", {}),
    "hot": ("hot", {}),
    "flat": ("flat", {}),
    "likely": ("flat", {"top_p": 0.95, "min_p": 0.15}),
    "penalised": (
        "flat", {"count_rows": 1, "repetition": 1.4, "frequency": 0.8, "presence": 0.3}
    ),
    "lowered": ("flat", {"bias_rows": 0, "top_p": 0.1, "counters": 7}),
    "masked": ("flat", {"mask_rows": 0}),
}  # fmt: skip
"""By name: a row's logits and how it is sampled, and what is other for it."""


def of_parts(data: Arrays) -> np.ndarray:
    """Ids of a nucleus and a pick from it, one by one."""
    inside = launched("nucleus", data, block=1024)["op.out"].astype(np.float32)
    return launched("pick", data | {"logits": inside}, block=1024)["op.ids"]


def of_reference(data: Arrays) -> np.ndarray:
    """Ids of all ops of a tail, one by one, by the portable kernels and the reference: those of
    parts take the interpreter ten times as long."""
    x = {name: torch.from_numpy(array) for name, array in data.items()}
    less, sums = torch.empty_like(x["logits"]), torch.empty_like(x["logits"])
    told = x["repetition"], x["frequency"], x["presence"]
    portable.penalise(x["logits"], x["counts"], x["count_rows"], x["recent"], *told, less)
    portable.bias(less, x["biases"], x["bias_rows"], sums)
    allowed = sample.mask(sums.numpy(), data["masks"], data["mask_rows"])
    heat = data["temperature"]
    inside = sample.nucleus(allowed, heat, data["top_k"], data["top_p"], data["min_p"])
    return sample.pick(inside, heat, data["seeds"], data["counters"])[0]


def rows_tried_twice(vocab: int) -> Arrays:
    """The inputs of TRIED_TWICE. The first bias makes every id far less likely than it was: what
    takes a logit from before it for one behind it accepts ids outside, at these counters."""
    data = rows_of(tuple(row for row, _ in TRIED_TWICE.values()), vocab)
    data["biases"][0] = np.random.default_rng(1).standard_normal(vocab) - 9
    for row, (_, changes) in enumerate(TRIED_TWICE.values()):
        for name, value in changes.items():
            data[name][row] = value
    return data


def main() -> None:
    """Run every case and print what does not hold."""
    parts, twice = list[str](), list[str]()
    listed, long = rows_of(LISTED, 4500), rows_tried_twice(17_000)
    for more in range(TRIES):
        one = listed | {"counters": listed["counters"] + np.int32(more)}
        same = of_parts(one) == launched("sample a tail", one)["picked.ids"]
        parts += [name for name, ok in zip(LISTED, same, strict=True) if not ok]
        one = long | {"counters": long["counters"] + np.int32(more)}
        same = of_reference(one) == launched("sample a tail", one)["picked.ids"]
        twice += [name for name, ok in zip(TRIED_TWICE, same, strict=True) if not ok]
    failed = {
        "a row of more ids than are listed has the bits of parts": parts,
        "a row of more than 16,384 ids, which has a second try, is the reference's": twice,
    }
    print(json.dumps(failed))


if __name__ == "__main__":
    main()
