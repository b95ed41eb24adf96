"""A checkpoint's chat encoding is V3.2's own, or told by the template that it brings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lostwax.frontend.chat_encoding import MAX_TEMPLATE_BYTES, read_chat_encoding
from lostwax.frontend.config_fields import ConfigError
from lostwax.ir.contract.model import CHAT_SPECIALE, CHAT_V31, CHAT_V32, CHAT_V32_EXP

V31 = [
    "{{ bos_token }}{{ ns.system_prompt }}",
    "{{'<｜User｜>' + message['content']}}",  # noqa: RUF001
    "{{ '<｜Assistant｜></think>' }}",  # noqa: RUF001
    "{{ '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>'"  # noqa: RUF001
    " + tool['function']['name'] + '<｜tool▁sep｜>' }}",  # noqa: RUF001
    "{{'<｜tool▁calls▁end｜><｜end▁of▁sentence｜>'}}",  # noqa: RUF001
    "{{'<｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>'}}",  # noqa: RUF001
    "{% set content = content.split('</think>', 1)[1] %}",
]
"""What the official templates have of the encoding, each line of it once."""
V32_EXP = [*V31, "{% if ns.is_only_sys %}"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (None, CHAT_V32),
        ({}, CHAT_V32),
        ({"chat_template": None}, CHAT_V32),
        ({"chat_template": "{{ bos_token }}"}, None),
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


@pytest.mark.parametrize(("lines", "expected"), [(V31, CHAT_V31), (V32_EXP, CHAT_V32_EXP)])
def test_official_templates_are_known_by_what_they_hold(
    tmp_path: Path, lines: list[str], expected: str
) -> None:
    config, file = tmp_path / "tokenizer_config.json", tmp_path / "chat_template.jinja"
    for template in ("".join(lines), "\n\n  ".join(lines)):
        config.write_text(json.dumps({"chat_template": template}))
        assert read_chat_encoding(tmp_path) == expected
        several = [{"name": "tool", "template": "x"}, {"name": "default", "template": template}]
        config.write_text(json.dumps({"chat_template": several}))
        assert read_chat_encoding(tmp_path) == expected
        config.write_text(json.dumps({"chat_template": [*several[::-1], 5, {}]}))
        assert read_chat_encoding(tmp_path) == expected
        file.write_text(template)
        config.write_text(json.dumps({"chat_template": "another"}))
        assert read_chat_encoding(tmp_path) == expected
        file.unlink()


@pytest.mark.parametrize("left_out", range(len(V31)))
def test_a_template_that_lacks_a_part_is_not_known(tmp_path: Path, left_out: int) -> None:
    lines = [*V31[:left_out], *V31[left_out + 1 :]]
    (tmp_path / "chat_template.jinja").write_text("\n".join(lines))
    assert read_chat_encoding(tmp_path) is None


def test_a_template_that_is_too_long_or_no_text_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "chat_template.jinja"
    path.write_text("\n".join(V31) + " " * MAX_TEMPLATE_BYTES)
    assert read_chat_encoding(tmp_path) is None
    path.write_bytes(b"\xff" * 100)
    assert read_chat_encoding(tmp_path) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("DeepSeek-V3.2-Speciale", CHAT_SPECIALE),
        ("models--deepseek-ai--DeepSeek-V3.2-Speciale/snapshots/0a1b", CHAT_SPECIALE),
        ("v32-speciale-w4", CHAT_SPECIALE),
        ("DeepSeek-V3.2", CHAT_V32),
        ("speciale/a/b/c", CHAT_V32),
    ],
)
def test_speciale_is_known_by_its_name(tmp_path: Path, name: str, expected: str) -> None:
    folder = tmp_path / "x" / "y" / name
    folder.mkdir(parents=True)
    assert read_chat_encoding(folder) == expected
    (folder / "chat_template.jinja").write_text("x")
    assert read_chat_encoding(folder) is None


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, "\xff"])
def test_damaged_settings_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer_config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"tokenizer_config\.json"):
        read_chat_encoding(tmp_path)
