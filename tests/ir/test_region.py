"""Regions match wirings of ops that nothing outside needs and no path re-enters."""

from __future__ import annotations

from pathlib import Path

import pytest
from xdsl.dialects import func
from xdsl.ir import Block
from xdsl.parser import Parser

from lostwax.backends.lowering import Lowering
from lostwax.ir.dialects import context
from lostwax.ir.dialects.core import AddOp
from lostwax.ir.dialects.kv import AppendOp
from lostwax.ir.region import Node, Region, find_matches, is_convex

MODEL = Path(__file__).with_name("tiny_model.mlir")
T8, F8 = "!lostwax.tensor<[T, 8], bf16>", "!lostwax.tensor<[T, 8], f32>"
ADD_NORM = {
    "sum": Node("core.add", {"a": "residual", "b": "delta"}),
    "rounded": Node("core.cast", {"x": "sum"}),
    "normed": Node("core.rms_norm", {"x": "sum", "weight": "weight"}),
}


def _block(name: str, text: str | None = None) -> Block:
    module = Parser(context(), text or MODEL.read_text()).parse_module()
    functions = [f for f in module.ops if isinstance(f, func.FuncOp)]
    return next(f.body.block for f in functions if f.sym_name.data == name)


def _silu_chain(extra: str, returned: str) -> Block:
    """s = silu_mul(x, x), t = cast(s), then `extra`."""
    return _block(
        "f",
        f"""
        func.func @f(%x: {T8}) -> {F8} {{
          %s = "core.silu_mul"(%x, %x) : ({T8}, {T8}) -> {T8}
          %t = "core.cast"(%s) : ({T8}) -> {F8}
          {extra}
          func.return {returned} : {F8}
        }}""",
    )


def _chain(outputs: tuple[str, ...] = ("t",)) -> Region:
    nodes = {
        "s": Node("core.silu_mul", {"gate": "x", "up": "x"}),
        "t": Node("core.cast", {"x": "s"}),
    }
    return Region(nodes, outputs)


def test_add_cast_norm_is_found_before_attention_and_before_the_mlp() -> None:
    matches = find_matches(Region(ADD_NORM, ("rounded", "normed")), _block("dense"))
    assert [m.ops["sum"].results[0].name_hint for m in matches] == ["s", "s2"]
    assert [v.name_hint for v in matches[0].input_values()] == ["residual", "delta", "input_norm"]
    assert [v.name_hint for v in matches[0].output_values()] == ["residual1", "x"]


def test_every_op_matches_its_single_region_and_variadic_operands_bind_whole() -> None:
    latent, index_key = find_matches(Region.single(AppendOp), _block("dense"))
    assert [
        len(m.values["rows"]) for m in (latent, index_key) if isinstance(m.values["rows"], tuple)
    ] == [2, 1]
    assert len(find_matches(Region.single(AddOp), _block("dense"))) == 2


def test_a_variadic_operand_listed_value_by_value_reaches_the_ops_that_make_them() -> None:
    append = {"cache_in": "cache", "slots": "slots"}
    normed = Node("core.rms_norm", {"x": "x", "weight": "weight"})
    rope = Node("core.rope", {"x": "k_pe", "positions": "positions"})
    nodes = {"normed": normed, "turned": rope}

    def found(*rows: str) -> list[str | None]:
        region = Region(
            {**nodes, "append": Node("kv.append", {**append, "rows": rows})}, ("append",)
        )
        return [m.ops["append"].results[0].name_hint for m in find_matches(region, _block("dense"))]

    whole = find_matches(Region.single(AppendOp), _block("dense"))[0]
    assert found("normed", "turned") == [whole.ops["op"].results[0].name_hint]
    assert found("turned", "normed") == []
    assert found("normed", "turned", "more") == []


def test_a_region_is_refused_where_an_inner_value_is_used_outside() -> None:
    extra = f'%u = "core.cast"(%s) : ({T8}) -> {F8}'
    used_twice = _silu_chain(f'{extra}\n%v = "core.add"(%t, %u) : ({F8}, {F8}) -> {F8}', "%v")
    assert find_matches(_chain(), used_twice) == []
    assert len(find_matches(_chain(("t", "s")), used_twice)) == 2
    assert len(find_matches(_chain(), _silu_chain("", "%t"))) == 1


def test_a_region_is_refused_where_a_path_leaves_and_comes_back() -> None:
    block = _silu_chain(f'%v = "core.add"(%s, %t) : ({T8}, {F8}) -> {F8}', "%v")
    nodes = {
        "s": Node("core.silu_mul", {"gate": "x", "up": "x"}),
        "v": Node("core.add", {"a": "s", "b": "other"}),
    }
    # %t reads %s and feeds the add, so it could run neither before nor after the region
    assert find_matches(Region(nodes, ("s", "v")), block) == []
    silu, cast, add = list(block.ops)[:3]
    assert not is_convex(frozenset({silu, add}), block)
    assert is_convex(frozenset({silu, cast, add}), block)


def test_two_unrelated_ops_make_no_region_when_one_feeds_the_other() -> None:
    nodes = {"one": Node("core.cast", {"x": "a"}), "two": Node("core.add", {"a": "b", "b": "c"})}
    block = _silu_chain(f'%v = "core.add"(%t, %t) : ({F8}, {F8}) -> {F8}', "%v")
    assert find_matches(Region(nodes, ("one", "two")), block) == []


def test_one_name_binds_one_value() -> None:
    same = Region({"sum": Node("core.add", {"a": "x", "b": "x"})}, ("sum",))
    assert find_matches(same, _block("dense")) == []


def test_the_digest_does_not_depend_on_names_or_place() -> None:
    short = {
        "r": Node("core.add", {"a": "in", "b": "d"}),
        "c": Node("core.cast", {"x": "r"}),
        "n": Node("core.rms_norm", {"x": "r", "weight": "w"}),
    }
    named = find_matches(Region(ADD_NORM, ("rounded", "normed")), _block("dense"))
    renamed = find_matches(Region(short, ("c", "n")), _block("dense"))
    assert named[0].digest() == named[1].digest() == renamed[0].digest()


def test_the_digest_depends_on_attributes_and_on_what_leaves() -> None:
    region = Region(ADD_NORM, ("rounded", "normed"))
    digest = find_matches(region, _block("dense"))[0].digest()
    other_eps = MODEL.read_text().replace("eps = 1.000000e-06", "eps = 1.000000e-05")
    assert find_matches(region, _block("dense", other_eps))[0].digest() != digest
    swapped = Region(ADD_NORM, ("normed", "rounded"))
    assert find_matches(swapped, _block("dense"))[0].digest() != digest


def test_an_output_that_no_node_makes_is_refused() -> None:
    with pytest.raises(ValueError, match="'nothing' is no node"):
        Region(ADD_NORM, ("nothing",))


TWO = {
    "a": Node("quant.linear", {"x": "x", "weight": "w_a"}),
    "b": Node("quant.linear", {"x": "x", "weight": "w_b"}),
}


def _turned(x: str, **flags: bool) -> Node:
    return Node("core.rope", {"x": x, "positions": "positions"}, flags)


FLAGGED = TWO | {
    "a_turned": _turned("a", interleaved=True), "b_turned": _turned("b", interleaved=False)
}  # fmt: skip
"""Alike in wiring; a flag tells them apart."""


def test_a_flag_tells_ops_apart_that_are_wired_alike() -> None:
    nodes = {"turned": Node("core.rope", {"x": "x", "positions": "positions"})}
    block = _block("dense")
    every = find_matches(Region(nodes, ("turned",)), block)
    by_flag = [
        find_matches(Region({"turned": _turned("x", interleaved=flag)}, ("turned",)), block)
        for flag in (True, False)
    ]
    assert [len(found) for found in (every, *by_flag)] == [4, 2, 2]
    assert not find_matches(Region({"turned": _turned("x", theta=True)}, ("turned",)), block)


@pytest.mark.parametrize(
    ("nodes", "outputs", "pair"),
    [
        (TWO, ("a", "b"), ("a", "b")),
        (TWO, ("a",), None),
        (TWO | {"act": Node("core.silu_mul", {"gate": "a", "up": "b"})}, ("act",), None),
        (TWO | {"a": Node("quant.linear", {"x": "y", "weight": "w_a"})}, ("a", "b"), ("a", "b")),
        (TWO | {"n": Node("core.cast", {"x": "a"})}, ("n", "b"), None),
        ({"a": TWO["a"]}, ("a",), None),
        (FLAGGED, ("a_turned", "b_turned"), None),
    ],
)
def test_a_symmetric_pattern_is_told_and_no_lowering_has_one(
    nodes: dict[str, Node], outputs: tuple[str, ...], pair: tuple[str, str] | None
) -> None:
    region = Region(nodes, outputs)
    assert region.symmetry() == pair
    if pair is None:
        Lowering(name="l", pattern=region, emit=_nothing)
        return
    with pytest.raises(ValueError, match="the pattern of l cannot tell 'a' from 'b'"):
        Lowering(name="l", pattern=region, emit=_nothing)


def _nothing(match: object, knobs: object) -> tuple[()]:
    return ()
