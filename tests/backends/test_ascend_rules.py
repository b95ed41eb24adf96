"""Rules of CANN's operators: what each forbids is refused with a sentence, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import pytest

from lostwax.backends.ascend.contract.rule import Axis, Call, Described, Rule, Value, refusal
from lostwax.backends.ascend.contract.rules import RULES, gating_numbers
from lostwax.backends.ascend.contract.snapshot import (
    SNAPSHOT,
    Snapshot,
    differences,
    read_snapshot,
    snapshot_text,
)
from lostwax.backends.ascend.lowerings.keeps import keeps
from lostwax.backends.lowering import Match

SIZES: dict[int | str, int] = {
    "N": 4,
    "block": 64,
    "K": 8,
    "E": 8,
    "R": 16,
    "D": 64,
    "P": 3,
    "B": 2,
}
UNKNOWN = 7


def legal(rule: Rule) -> Call:
    """A call that keeps the rule."""
    sizes = {name: SIZES.get(name, 16) for a in rule.arguments.values() for name in a.shape}
    tensors = {
        name: Described(
            argument.dtypes[0],
            tuple(axis if isinstance(axis, int) else sizes[axis] for axis in argument.shape),
        )
        for name, argument in rule.arguments.items()
    }
    axes = {axis for argument in rule.arguments.values() for axis in argument.shape}
    derived = {name: max(axis.least, 1) for name, axis in rule.axes.items() if name not in axes}
    return Call(tensors, {name: allowed[0] for name, allowed in rule.values.items()}, derived)


def illegal_size(axis: Axis) -> int:
    """A size that the axis may not have."""
    if axis.one_of:
        return next(n for n in range(1, 1000) if n not in axis.one_of)
    if axis.multiple_of > 1:
        return axis.multiple_of * max(axis.least, 1) + 1
    return axis.least - 1 if axis.most is None else axis.most + 1


def resized(rule: Rule, call: Call, axis: str, size: int) -> Call:
    """The call with another size of one axis, everywhere."""
    if axis in call.derived:
        return replace(call, derived={**call.derived, axis: size})
    tensors = {
        name: replace(
            t,
            shape=tuple(
                size if known == axis else old
                for known, old in zip(rule.arguments[name].shape, t.shape, strict=True)
            ),
        )
        for name, t in call.tensors.items()
    }
    return replace(call, tensors=tensors)


def faults(rule: Rule) -> Iterator[tuple[str, Call, str]]:
    """What the rule forbids, one thing at a time: a name, the call, a word of the refusal."""
    call = legal(rule)
    for name, argument in rule.arguments.items():
        given = call.tensors[name]

        def changed(to: Described, name: str = name) -> Call:
            return replace(call, tensors={**call.tensors, name: to})

        wrong = next(d for d in ("f32", "i64", "u8") if d not in argument.dtypes)
        yield f"{name} dtype", changed(replace(given, dtype=wrong)), f"{name} is {wrong}"
        longer = replace(given, shape=(*given.shape, 1))
        yield f"{name} axes", changed(longer), f"wants {len(given.shape)} axes"
        if argument.dense:
            yield f"{name} strided", changed(replace(given, dense=False)), "dense"
        for place, axis in enumerate(argument.shape):
            others = [a for n, a in rule.arguments.items() if n != name and axis in a.shape]
            if isinstance(axis, int) or others or argument.shape.count(axis) > 1:
                shape = list(given.shape)
                shape[place] += 1
                yield f"{name} axis {axis}", changed(replace(given, shape=tuple(shape))), "wants"
    for name, axis in rule.axes.items():
        size = illegal_size(axis)
        yield f"size {name}", resized(rule, call, name, size), f"{name} is {size}"
    for name, allowed in rule.values.items():
        other: Value = "no such" if isinstance(allowed[0], str) else UNKNOWN
        values = {**call.values, name: other}
        yield f"value {name}", replace(call, values=values), f"{name} is {other!r}"
    for group in rule.same:
        kinds = rule.arguments[group[0]].dtypes
        tensors = {**call.tensors, group[0]: replace(call.tensors[group[0]], dtype=kinds[-1])}
        yield f"types {group}", replace(call, tensors=tensors), "wants one type"


@pytest.mark.parametrize("op", RULES)
def test_a_call_that_keeps_the_rule_is_not_refused(op: str) -> None:
    assert refusal(RULES[op], legal(RULES[op])) is None


@pytest.mark.parametrize(
    ("op", "call", "said"),
    [
        pytest.param(op, call, said, id=f"{op}: {name}")
        for op, rule in RULES.items()
        for name, call, said in faults(rule)
    ],
)
def test_what_a_rule_forbids_is_refused_by_name(op: str, call: Call, said: str) -> None:
    found = refusal(RULES[op], call)
    assert found is not None
    assert found.startswith(f"{op}: ")
    assert said in found


BORDERS: tuple[tuple[str, str, int, int], ...] = (
    ("npu_rotary_mul", "N", 999, 1000),
    ("npu_rotary_mul", "D", 894, 896),
    ("npu_quant_matmul", "K", 65535, 65536),
    ("npu_quant_matmul", "N", 65535, 65536),
    ("npu_swiglu", "D", 2, 3),
    ("npu_moe_gating_top_k", "E", 2048, 2049),
    ("npu_moe_gating_top_k", "experts of a group", 3, 2),
    ("npu_moe_gating_top_k", "groups of experts, each rounded up to 32", 2048, 2049),
    ("npu_moe_gating_top_k", "experts in the groups that are kept, less k", 0, -1),
    ("npu_grouped_matmul", "E", 1024, 1025),
    ("npu_lightning_indexer", "N", 64, 65),
    ("npu_lightning_indexer", "sparse_count", 2048, 2049),
    ("npu_sparse_flash_attention", "N", 128, 3),
    ("npu_kv_rmsnorm_rope_cache", "block", 16, 8),
    ("npu_lightning_indexer", "block", 1024, 1040),
    ("npu_sparse_flash_attention", "block", 48, 56),
)
"""Of each bound a size that the documentation allows and one that it does not, written again."""


@pytest.mark.parametrize(("op", "axis", "fits", "does_not"), BORDERS)
def test_bounds_are_those_of_the_documentation(
    op: str, axis: str, fits: int, does_not: int
) -> None:
    call = legal(RULES[op])
    assert refusal(RULES[op], resized(RULES[op], call, axis, fits)) is None
    assert refusal(RULES[op], resized(RULES[op], call, axis, does_not)) is not None


def test_a_lowering_is_refused_in_the_words_of_the_rule() -> None:
    rule = RULES["npu_swiglu"]
    for size, said in ((64, None), (63, "npu_swiglu: D is 63, wants a multiple of 2")):
        call = resized(rule, legal(rule), "D", size)
        kept = keeps("npu_swiglu", lambda match, call=call: call)
        assert kept.refusal(cast("Match", None)) == said


@pytest.mark.parametrize(
    ("sizes", "fits"),
    [
        ((256, 8, 4, 8), True),
        ((8, 4, 2, 2), False),  # two experts a group: the operator wants three at least
        ((2048, 128, 4, 8), False),  # 128 groups of 16, each rounded up to 32
        ((256, 8, 1, 33), False),  # 32 experts are kept
    ],
)
def test_groups_of_experts_are_counted_as_the_operator_does(
    sizes: tuple[int, int, int, int], fits: bool
) -> None:
    experts = sizes[0]
    tensors = {"x": Described("f32", (4, experts)), "bias": Described("f32", (experts,))}
    call = Call(tensors, {}, gating_numbers(*sizes))
    assert (refusal(RULES["npu_moe_gating_top_k"], call) is None) is fits


def test_every_rule_has_a_schema_and_names_its_arguments() -> None:
    kept = read_snapshot()
    assert kept.schemas.keys() == RULES.keys()
    for name, rule in RULES.items():
        for argument in (*rule.arguments, *rule.values):
            assert f" {argument}" in kept.schemas[name], argument
        assert kept.schemas[name].startswith(f"npu::{name}(")


def test_the_snapshot_is_the_file_that_its_writer_makes() -> None:
    assert snapshot_text(read_snapshot()) == SNAPSHOT.read_bytes()


def test_equal_schemas_have_no_difference() -> None:
    kept = read_snapshot().schemas
    assert differences(kept, dict(kept)) == []


@pytest.mark.parametrize(
    ("op", "old", "new", "said"),
    [
        ("npu_rms_norm", "epsilon=9.9999999999999995e-07", "epsilon=1e-05", "epsilon was float=9"),
        ("npu_rms_norm", "Tensor gamma, ", "", "argument gamma is gone (was Tensor)"),
        (
            "npu_swiglu",
            "int dim=-1",
            "int dim=-1, bool fast=False",
            "new argument fast: bool=False",
        ),
        ("npu_swiglu", "-> Tensor", "-> (Tensor, Tensor)", "gave Tensor, gives (Tensor, Tensor)"),
        ("npu_add_rms_norm", "Tensor x1, Tensor x2", "Tensor x2, Tensor x1", "another order"),
        ("npu_dynamic_quant", "*, ", "", "smooth_scales was keyword Tensor?=None, is Tensor?=None"),
        ("npu_grouped_matmul", "Tensor[]? scale", "Tensor? scale", "scale was keyword Tensor[]?"),
        ("npu_scatter_nd_update_", "Tensor(a!) input", "Tensor input", "input was Tensor(a!)"),
    ],
)
def test_a_changed_schema_is_told_by_what_changed(op: str, old: str, new: str, said: str) -> None:
    kept = read_snapshot().schemas
    assert old in kept[op]
    (line, *_) = differences(kept, kept | {op: kept[op].replace(old, new)})
    assert line.startswith(f"{op}: ")
    assert said in line


def test_a_missing_operator_is_told() -> None:
    kept: dict[str, str | None] = dict(read_snapshot().schemas)
    kept["npu_swiglu"] = None
    assert differences(read_snapshot().schemas, kept) == ["npu_swiglu: missing"]


def test_a_snapshot_of_another_form_is_refused(tmp_path: object) -> None:
    import msgspec

    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"torch_npu": "1", "schemas": {}, "more": 1}', type=Snapshot)
