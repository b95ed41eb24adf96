"""A chat template has what transformers gives it, and no more time, memory or rights than that."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hostile_templates import KINDS
from program_end import program_end

from lostwax.server.formats import template_apart
from lostwax.server.formats.brought_template import ChatTemplate
from lostwax.server.formats.chat_template import (
    MAX_TEMPLATE_BYTES,
    TemplateFault,
    TemplateRefusal,
)
from lostwax.server.formats.template_apart import RENDER_S, render_apart, translated, tried_template
from lostwax.server.gateway.templated_chat import sampled_variables

ASK: dict[str, Any] = {"role": "user", "content": "2 + 3?"}
HOSTILE = [(kind, source) for kind, sources in KINDS.items() for source in sources]


def tried(folder: Path, source: str) -> ChatTemplate:
    path = folder / "mine.jinja"
    path.write_text(source)
    return tried_template(path, sampled_variables())


def rendered(source: str, **given: Any) -> str:
    variables: Mapping[str, Any] = sampled_variables() | {"messages": [ASK]} | given
    return render_apart(translated("t", source), variables)


def children() -> set[str]:
    """Ids of this process's; fixtures of other tests have some, too."""
    lists = Path("/proc/self/task").glob("*/children")
    return {pid for each in lists for pid in each.read_text().split()}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}{{ messages[0]['content'] }}", "<｜begin▁of▁sentence｜>2 + 3?"),  # noqa: RUF001
        ("{{ messages[0].role }}|{{ eos_token }}", "user|<｜end▁of▁sentence｜>"),  # noqa: RUF001
        ("{{ {'b': '<ü>', 'a': 1}|tojson }}", '{"b": "<ü>", "a": 1}'),
        ("{{ {'a': [1]}|tojson(indent=1) }}", '{\n "a": [\n  1\n ]\n}'),
        ("{{ {'a': [1, 2]}|tojson(separators=(',', ':')) }}", '{"a":[1,2]}'),
        ("{{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }}", '{"a": 2, "b": 1}'),
        ("{{ '<&>' }}", "<&>"),
        ("  {% if add_generation_prompt %}\nA\n  {% endif %}\nB", "A\nB"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% generation %}x{{ 1 }}{% endgeneration %}", "x1"),
        ("{{ nothing }}{{ tools is none }}", "True"),
        ("{% set n = namespace(a=1) %}{% set n.a = 2 %}{{ n.a }}", "2"),
    ],
)
def test_a_template_has_what_transformers_gives_it(source: str, text: str) -> None:
    assert rendered(source) == text


def test_it_is_told_the_time() -> None:
    assert re.fullmatch(r"\d{4}-\d\d", rendered("{{ strftime_now('%Y-%m') }}"))


def test_what_a_template_refuses_is_its_own_sentence() -> None:
    with pytest.raises(TemplateRefusal, match=r"\Aroles must alternate\Z"):
        rendered("{{ raise_exception('roles must alternate') }}")


def test_what_is_said_of_half_a_character_is_heard() -> None:
    with pytest.raises(TemplateRefusal, match=r"\Ano \?, please\Z"):
        rendered("{{ raise_exception('no \\ud800, please') }}")


def test_variables_that_it_reads_are_known(tmp_path: Path) -> None:
    source = (
        "{% if not thinking is defined %}{% set thinking = false %}{% endif %}"
        "{% set own = 1 %}{% for m in messages %}{{ m.content }}{{ own }}{% endfor %}{{ thinking }}"
    )
    assert tried(tmp_path, source).reads == {"thinking", "messages"}


def test_a_template_that_refuses_the_sample_is_taken(tmp_path: Path) -> None:
    source = "{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}"
    assert tried(tmp_path, source).reads >= {"messages"}


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("a\nb\n{% if %}", 3, "Expected an expression"),
        ("a\n\n{{ nothing.more }}", 3, "'nothing' is undefined"),
        ("{{ 1 + 'x' }}", 1, "unsupported operand"),
        ("a\n{{ messages[0].content.x.y }}", 2, "has no attribute 'x'"),
        ("\n\n\n{{ 1|nofilter }}", 4, "No filter named 'nofilter'"),
    ],
)
def test_an_error_names_file_and_line(tmp_path: Path, source: str, line: int, said: str) -> None:
    with pytest.raises(TemplateFault, match=re.escape(said)) as error:
        tried(tmp_path, source)
    assert f"mine.jinja, line {line}: " in str(error.value)


def test_a_file_that_is_no_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TemplateFault, match=f"more than {MAX_TEMPLATE_BYTES} bytes"):
        tried(tmp_path, "x" * (MAX_TEMPLATE_BYTES + 1))
    (tmp_path / "b").write_bytes(b"\xff")
    with pytest.raises(TemplateFault, match="is no text in UTF-8"):
        tried_template(tmp_path / "b", {})
    with pytest.raises(TemplateFault, match="half a character"):
        tried(tmp_path, "{{ '\\ud800' }}")


@pytest.mark.parametrize(("kind", "source"), HOSTILE)
def test_a_hostile_template_is_refused_or_bounded(tmp_path: Path, kind: str, source: str) -> None:
    """At the start, and so, too, where it waits for one request and then begins."""
    before = children()
    began_s = time.monotonic()
    with pytest.raises(TemplateFault) as error:
        tried(tmp_path, source)
    assert time.monotonic() - began_s < RENDER_S + 2
    assert "root:" not in str(error.value), kind
    assert children() <= before  # no fork is left, not even a dead one


def test_what_it_takes_is_not_its_parents() -> None:
    template = translated("t", "{% if go %}{{ 'x' * 10**10 }}{% endif %}ok")
    with pytest.raises(TemplateFault, match="too much memory"):
        render_apart(template, {"go": True})
    assert render_apart(template, {"go": False}) == "ok"


def test_a_fork_that_is_stopped_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_apart, "RENDER_S", 0.2)
    monkeypatch.setattr(template_apart, "GRACE_S", 0.2)
    monkeypatch.setattr(template_apart, "_bound", lambda: None)  # no alarm
    began_s = time.monotonic()
    source = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(TemplateFault, match="takes more than"):
        render_apart(translated("t", source), {})
    assert time.monotonic() - began_s < 2


BOUND = """
import time
from lostwax.server.formats import template_apart
template_apart.RENDER_S = 0.5
template_apart._bound()
"""


@pytest.mark.parametrize(
    ("work", "end"),
    [
        ("while True: pass", (-signal.SIGALRM, "")),
        ("time.sleep(30)", (-signal.SIGALRM, "")),
        (
            "try: bytearray(2 * template_apart.MORE_BYTES)\nexcept MemoryError: print('no room')",
            (0, "no room\n"),
        ),
    ],
)
def test_a_fork_bounds_itself(work: str, end: tuple[int, str]) -> None:
    """Whoever waits for it has a core, and memory, meanwhile."""
    assert program_end(BOUND + work) == end
