"""config.json: both spellings mean the same, and what cannot be served is refused by name."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tiny import PLAIN, YARN, Config, write_config

from lostwax.frontend.config import parse_config, read_config
from lostwax.frontend.config_fields import ConfigError
from lostwax.frontend.known_fields import IMPLEMENTED, READ, UNIMPLEMENTED
from lostwax.frontend.spellings import OTHER_NAMES

FULL = Path(__file__).parents[2] / "examples" / "deepseek-v3.2.json"


def without(config: Config, *names: str):
    return {k: v for k, v in config.items() if k not in names}


def test_both_spellings_of_the_rope_settings_give_the_same_rope():
    old = parse_config(PLAIN)
    new_rope = without(YARN, "type") | {"rope_type": "yarn", "rope_theta": 10000.0}
    new = parse_config(without(PLAIN, "rope_theta", "rope_scaling") | {"rope_parameters": new_rope})
    assert old.rope == new.rope


def test_the_full_configuration_has_the_published_numbers():
    config = read_config(FULL)
    assert math.isclose(config.softmax_scale, 0.1352337788, rel_tol=1e-9)
    assert config.index_scale == 64**-0.5 * 128**-0.5
    assert config.rope.magnitude == 1.0
    assert [config.layer_kind(n) for n in (2, 3, 61)] == ["dense", "moe", "moe"]
    assert list(config.mtp_layers) == [61]
    assert config.quantised
    assert config.eos_token_ids == (1,)


def test_plain_rope_has_factor_one_and_no_mscale():
    config = parse_config(without(PLAIN, "rope_scaling"))
    assert (config.rope.factor, config.rope.magnitude) == (1.0, 1.0)
    assert config.softmax_scale == 48**-0.5


def test_layer_types_as_transformers_writes_them_are_read():
    types = ["dense", "sparse"]
    config = parse_config(without(PLAIN, "first_k_dense_replace") | {"mlp_layer_types": types})
    assert config.first_k_dense_replace == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "'llama' model"),
        ({"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"]}, "deepseek_v3"),
        ({"hidden_size": "big"}, "hidden_size is 'big', wants an integer"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"hidden_size": -4}, "hidden_size is -4, wants at least 1"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": 2**20 + 1}, "hidden_size is 1048577, wants at most 1048576"),
        ({"num_hidden_layers": 2**30}, "num_hidden_layers is 1073741824, wants at most 1024"),
        ({"num_nextn_predict_layers": 2**30}, "num_nextn_predict_layers is 1073741824, wants"),
        ({"n_routed_experts": 2**30}, "n_routed_experts is 1073741824, wants at most 4096"),
        ({"rms_norm_eps": 10**400}, "wants a positive number up to 1e+12"),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0, wants a positive number"),
        ({"architectures": 5}, "architectures is 5, wants a list of strings"),
        ({"mlp_layer_types": 5}, "mlp_layer_types is 5, wants a list of strings"),
        ({"n_group": 3}, "n_routed_experts 8 does not divide into n_group 3"),
        ({"n_group": 8}, "groups of two or more"),
        ({"topk_group": 5}, "topk_group 5"),
        ({"num_experts_per_tok": 5}, "num_experts_per_tok 5"),
        ({"qk_rope_head_dim": 15}, "qk_rope_head_dim 15 must be even"),
        ({"first_k_dense_replace": 9}, "first_k_dense_replace 9 exceeds"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"scoring_func": "softmax"}, "scoring_func is 'softmax'"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"num_key_value_heads": 1}, "num_key_value_heads"),
        ({"torch_dtype": "float16"}, "dtype 'float16'"),
        ({"rope_scaling": {"type": "llama3"}}, "rope_scaling.rope_type is 'llama3'"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling.factor is missing"),
        ({"rope_scaling": [1]}, "rope_scaling is [1], wants an object"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config.quant_method"),
        (
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 64]}},
            "weight_block_size is [64, 64]",
        ),
        ({"mlp_layer_types": ["sparse", "dense"]}, "must be dense layers, then sparse"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(change: Config, message: str):
    with pytest.raises(ConfigError) as caught:
        parse_config(PLAIN | change)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00", "[" * 100_000, '"x"', "NaN"])
def test_a_config_that_is_no_object_is_refused_with_its_path(tmp_path: Path, text: str):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        read_config(path)


def test_the_digest_covers_every_field_but_not_their_order(tmp_path: Path):
    first = read_config(write_config(tmp_path / "a", PLAIN))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(dict(reversed(PLAIN.items())), indent=3))
    assert read_config(path).digest == first.digest
    assert parse_config(PLAIN | {"transformers_version": "5.23.0"}).digest != first.digest


NONSENSE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 10**400, 0.5, 1e308, 1e-320, "", "yarn", "\x00", [], [1],
    ["a"], [[]], {}, {"a": 1}, {"rope_type": "yarn"}, {"factor": 1e308}, [None],
)  # fmt: skip


def test_nonsense_in_any_field_is_taken_or_refused_on_one_line_of_bounded_length():
    """Nothing but ConfigError comes out, and no field makes anything of its own size."""
    names = [*READ, *IMPLEMENTED, *UNIMPLEMENTED, *OTHER_NAMES]
    inside = [*YARN, "rope_type", "rope_theta", "attention_factor", "truncate"]
    changes: list[Config] = [{name: value} for name in names for value in NONSENSE]
    changes += [{"rope_scaling": YARN | {n: value}} for n in inside for value in NONSENSE]
    refusals: list[str] = []
    for change in changes:
        try:
            assert parse_config(PLAIN | change).softmax_scale > 0
        except ConfigError as e:
            refusals.append(str(e))
    assert [text for text in refusals if not text.isprintable() or len(text) > 600] == []
    assert len(refusals) > len(changes) / 2
