"""A checkpoint's chat encoding is V3.2's own unless it brings a template."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lostwax.frontend.chat_encoding import read_chat_encoding
from lostwax.frontend.config_fields import ConfigError
from lostwax.ir.contract.model import CHAT_V32


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (None, CHAT_V32),
        ({}, CHAT_V32),
        ({"chat_template": None}, CHAT_V32),
        ({"chat_template": "{{ bos_token }}"}, None),  # V3.2-Exp
        ({"chat_template": [{"name": "default", "template": "x"}]}, None),
    ],
)
def test_a_template_in_the_settings_is_another_encoding(
    tmp_path: Path, settings: dict[str, object] | None, expected: str | None
) -> None:
    if settings is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert read_chat_encoding(tmp_path) == expected


def test_a_template_of_its_own_file_is_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}")
    assert read_chat_encoding(tmp_path) is None


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, "\xff"])
def test_damaged_settings_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer_config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"tokenizer_config\.json"):
        read_chat_encoding(tmp_path)
