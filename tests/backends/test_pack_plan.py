"""A plan is written as it would be were it the first: what came before it leaves nothing."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from msgspec import structs

from lostwax.backends.runtime.pack_plan import Misplanned, PlanPacker, pack_plan
from lostwax.ir.contract.step_layout import StepLayout
from lostwax.ir.contract.step_plan import StepPlan

LAYOUT = StepLayout(max_reqs=4, max_pages=2, max_drafts=2, max_rows=16, vocab_size=9)
DECODE = StepPlan(
    entry="decode", head="sample", seqs=(1, 2), counts=(2, 1), ends=(9, 5), logits=((0, 3),)
)
EXTEND = StepPlan(
    entry="extend", head="score", seqs=(1, 2, 3), counts=(2, 2, 1), ends=(9, 5, 3), drafts=1,
    tokens=(5, 6, 7, 8, 4), logits=((1, 3),), scored=((1, 1),), targets=(8,), masked=((2, 1),),
    behind=(3,),
)  # fmt: skip
PLANS = (
    DECODE,
    structs.replace(DECODE, ends=(10, 6)),
    structs.replace(DECODE, seqs=(2, 1)),
    structs.replace(DECODE, counts=(1, 2)),
    structs.replace(DECODE, masked=((1, 1),)),
    structs.replace(DECODE, drafts=1),
    EXTEND,
    structs.replace(EXTEND, entry="decode"),
    structs.replace(EXTEND, tokens=(5, 6, 7, 8, 3)),
    structs.replace(EXTEND, logits=((0, 1), (2, 2))),
    structs.replace(EXTEND, scored=((2, 1),), masked=()),
    structs.replace(EXTEND, targets=(7,)),
    structs.replace(EXTEND, masked=((0, 1),)),
    structs.replace(EXTEND, drafts=2),
    structs.replace(EXTEND, behind=(2,)),
    structs.replace(EXTEND, logits=(), scored=(), targets=(), masked=(), drafts=0, behind=()),
)


def test_the_last_plan_leaves_nothing() -> None:
    for before, plan in product(PLANS, repeat=2):
        packer, out, fresh = PlanPacker(LAYOUT), *np.zeros((2, 100), np.int32)
        packer.pack(before, np.zeros(100, np.int32))
        assert packer.pack(plan, out) == pack_plan(plan, LAYOUT, fresh)
        assert (out == fresh).all(), (before, plan)


def test_a_refused_plan_is_refused_again_and_leaves_nothing() -> None:
    packer, out, fresh = PlanPacker(LAYOUT), *np.zeros((2, 100), np.int32)
    many = structs.replace(DECODE, counts=(4, 1), logits=((0, 5),))
    for _ in range(2):
        packer.pack(DECODE, out)
        with pytest.raises(Misplanned, match="4 rows of a sequence pick; 3 tokens follow at most"):
            packer.pack(many, out)
    packer.pack(DECODE, out)
    pack_plan(DECODE, LAYOUT, fresh)
    assert (out == fresh).all()
