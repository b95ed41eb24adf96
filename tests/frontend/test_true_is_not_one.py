"""JSON's true is no number and 1 is no true, whatever Python's == says of them."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import MTP, PLAIN

from lostwax.frontend.config import parse_config
from lostwax.frontend.config_fields import ConfigError, Fields
from lostwax.frontend.known_fields import IMPLEMENTED, UNIMPLEMENTED
from lostwax.frontend.spellings import OTHER_NAMES

KINDS = [True, False, 1, 0]


def _is_taken(name: str, value: Any) -> bool:
    try:
        parse_config(PLAIN | {name: value})
    except ConfigError as e:
        assert str(e).startswith(f"{name} is {value!r}")  # noqa: PT017 - refused or taken, both fit
        return False
    return True


def _says(value: Any, values: tuple[object, ...]) -> bool:
    """Whether JSON would write the value as one of the values."""
    return any(type(value) is type(other) and value == other for other in values)


@pytest.mark.parametrize("name", UNIMPLEMENTED)
def test_a_feature_is_neutral_by_what_json_says_of_it(name: str) -> None:
    neutral = (False, 0, *UNIMPLEMENTED[name].neutral)
    assert [_is_taken(name, v) for v in KINDS] == [_says(v, neutral) for v in KINDS]


@pytest.mark.parametrize("name", IMPLEMENTED)
def test_a_field_of_one_value_is_taken_by_what_json_says_of_it(name: str) -> None:
    values = IMPLEMENTED[name]
    assert [_is_taken(name, v) for v in KINDS] == [_says(v, values) for v in KINDS]


def test_one_and_its_float_are_one_number() -> None:
    parse_config(PLAIN | {"partial_rotary_factor": 1.0, "residual_multiplier": 1.0})


@pytest.mark.parametrize("where", [True, 1.0])
def test_a_field_inside_an_object_is_no_exception(where: float | bool) -> None:
    yarn = PLAIN["rope_scaling"]
    changed = PLAIN | {"rope_scaling": yarn | {"partial_rotary_factor": where}}
    if where is True:
        with pytest.raises(ConfigError, match=r"rope_scaling\.partial_rotary_factor is True"):
            parse_config(changed)
    else:
        assert parse_config(changed).rope == parse_config(PLAIN).rope
    with pytest.raises(ConfigError, match="a is 1; lostwax implements True only"):
        Fields({"a": 1}).only("a", True)


def test_a_flag_does_not_agree_with_a_number() -> None:
    for other, name in OTHER_NAMES.items():
        if name == "num_nextn_predict_layers":
            with pytest.raises(ConfigError, match=f"{name} is 1 and {other} is True"):
                parse_config(MTP | {name: 1, other: True})


def test_one_is_neutral_only_for_what_multiplies_or_counts_each() -> None:
    """A flag such as `use_index_cache` is switched on by 1, as transformers takes it."""
    scales = {f"{part}_multiplier" for part in ("embedding", "residual", "attention")}
    scales |= {"logits_scaling", "logit_scale", "scale_emb", "scale_depth"}
    taken = {name for name in UNIMPLEMENTED if _is_taken(name, 1)}
    assert taken == scales | {"index_topk_freq", "index_kpool"}
