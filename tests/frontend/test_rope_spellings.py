"""Every way to write the rope settings means what transformers takes it for, or is refused."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
from tiny import PLAIN, YARN, Config

from lostwax.frontend.config import parse_config
from lostwax.frontend.config_fields import ConfigError

BARE = {k: v for k, v in PLAIN.items() if k not in ("rope_theta", "rope_scaling")}
NEW = {k: v for k, v in YARN.items() if k != "type"} | {"rope_type": "yarn"}
DEFAULT = {"rope_type": "default", "rope_theta": 10000.0}
OBJECTS: dict[str, Any] = {
    "null": None,
    "empty": {},
    "default": DEFAULT,
    "default with leftovers": YARN | {"type": "default"},
    "yarn": NEW,
    "yarn of old spelling": YARN,
    "yarn by 20": NEW | {"factor": 20},
    "yarn with a base": NEW | {"rope_theta": 5e5},
    "yarn and default": YARN | {"rope_type": "default"},
    "half of the head": NEW | {"partial_rotary_factor": 0.5},
    "no type": {"factor": 40, "original_max_position_embeddings": 4096},
}
ABSENT = object()
THETAS = (ABSENT, 10000, 5e5)


def _configs() -> dict[str, Config]:
    found: dict[str, Config] = {}
    names = ("absent", *OBJECTS)
    for scaling, parameters, theta in itertools.product(names, names, THETAS):
        given = {"rope_scaling": scaling, "rope_parameters": parameters}
        config = {k: OBJECTS[v] for k, v in given.items() if v != "absent"}
        config |= {} if theta is ABSENT else {"rope_theta": theta}
        found[f"{scaling} + {parameters} + {theta if theta is not ABSENT else 'none'}"] = config
    return found


def test_no_combination_of_spellings_differs_from_transformers_in_silence() -> None:
    """transformers takes any of them; what it makes of the accepted ones is the right value."""
    from transformers import DeepseekV32Config

    accepted = 0
    for name, config in _configs().items():
        try:
            ours = parse_config(BARE | config).rope
        except ConfigError:
            continue
        accepted += 1
        settings: Any = DeepseekV32Config(**copy.deepcopy(BARE | config)).rope_parameters
        factor = settings.get("factor", 1.0) if settings["rope_type"] == "yarn" else 1.0
        assert (ours.theta, ours.factor) == (settings["rope_theta"], factor), name
    assert accepted == 128  # of 432


@pytest.mark.parametrize("parameters", [{}, None, NEW, NEW | {"rope_theta": 10000.0}, YARN])
def test_rope_scaling_is_not_lost_beside_rope_parameters(parameters: Config | None) -> None:
    both = parse_config(PLAIN | {"rope_parameters": parameters})
    assert both.rope == parse_config(PLAIN).rope
    assert both.rope.factor == 40
    assert both.softmax_scale == pytest.approx(48**-0.5 * 1.3688879454113937**2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_parameters": DEFAULT}, "rope_scaling is {'type': 'yarn'"),
        ({"rope_parameters": NEW | {"factor": 20}}, "which disagree; remove the wrong one"),
        ({"rope_parameters": NEW | {"rope_theta": 5e5}}, "rope_theta is 10000.0 and"),
        ({"rope_scaling": YARN | {"rope_type": "default"}}, "rope_scaling.rope_type is 'default'"),
        ({"rope_scaling": YARN | {"rope_theta": 1}}, "rope_theta is 1.0, wants more than 1"),
        ({"rope_scaling": {"factor": 40}}, "rope_scaling.factor is 40; lostwax implements 1"),
        ({"rope_scaling": DEFAULT | {"mscale": 1.0}}, "rope_scaling.mscale is 1.0, a field"),
        ({"rope_scaling": YARN | {"mrope_section": [8, 8]}}, "rope_scaling.mrope_section is"),
        ({"rope_scaling": YARN | {"truncate": False}}, "rope_scaling.truncate is False"),
        ({"rope_scaling": {"indexed_attention": NEW}}, "rope_scaling.indexed_attention is"),
        ({"original_max_position_embeddings": 8192}, "original_max_position_embeddings is 8192"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"rope_scaling": YARN | {"type": ["yarn"]}}, "rope_type is ['yarn']"),
    ],
)
def test_settings_that_disagree_or_are_not_implemented_are_named(
    change: Config, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(PLAIN | change)
    assert message in str(caught.value)
