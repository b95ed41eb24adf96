"""Sizes are integer polynomials: arithmetic and text agree with plain integers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.parser import Parser

from lostwax.ir.dialects import context
from lostwax.ir.size import Size
from lostwax.ir.types import TensorType, tensor

SYMBOLS = ("B", "P", "T")
COEFFICIENTS = st.integers(-9, 9)
MONOMIALS = st.lists(st.sampled_from(SYMBOLS), max_size=3).map(lambda m: tuple(sorted(m)))
SIZES = st.lists(st.tuples(MONOMIALS, COEFFICIENTS), max_size=4).map(
    lambda t: Size({m: c for m, c in t})
)
ENVS = st.fixed_dictionaries({s: st.integers(0, 50) for s in SYMBOLS})


@given(SIZES, SIZES, ENVS)
def test_sums_and_products_evaluate_as_integers_do(a: Size, b: Size, env: dict[str, int]) -> None:
    assert (a + b).at(env) == a.at(env) + b.at(env)
    assert (a * b).at(env) == a.at(env) * b.at(env)


@given(SIZES, SIZES, SIZES)
def test_equal_polynomials_are_equal_sizes_with_one_text(a: Size, b: Size, c: Size) -> None:
    left, right = a * (b + c), c * a + b * a
    assert left == right
    assert hash(left) == hash(right)
    assert str(left) == str(right)


@given(SIZES)
def test_text_parses_back_to_the_same_size(size: Size) -> None:
    text = str(TensorType.of([size], "f32"))
    assert tensor(Parser(context(), text).parse_type(), "size").sizes == (size,)


@given(SIZES, SIZES, ENVS)
def test_substitution_evaluates_as_the_substituted_value(
    size: Size, other: Size, env: dict[str, int]
) -> None:
    assert size.substitute({"T": other}).at(env) == size.at({**env, "T": other.at(env)})


def test_a_difference_of_equals_is_the_constant_zero() -> None:
    b = Size.of("B")
    nothing = b + b * Size.of(-1)
    assert nothing == Size.of(0)
    assert nothing.constant == 0
    assert str(nothing) == "0"


def test_only_sizes_without_symbols_are_constant() -> None:
    assert Size.of(7).constant == 7
    assert Size.of("T").constant is None
    assert (Size.of("T") + Size.of(1)).constant is None
    assert (Size.of("B") * Size.of("P")).symbols == {"B", "P"}


def test_a_missing_symbol_is_named() -> None:
    with pytest.raises(KeyError, match="P"):
        (Size.of("B") * Size.of("P")).at({"B": 2})
