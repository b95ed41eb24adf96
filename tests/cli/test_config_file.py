"""A file of options is read as a command line is: checked, refused by name, shown with origins."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from command_line import lostwax, one_sentence

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def given(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What `serve` is called with instead of running."""
    seen: list[dict[str, object]] = []

    def may_listen(host: str, port: int, *, insecure: bool = False) -> None:
        seen.append({"host": host, "port": port, "insecure": insecure})
        raise KeyboardInterrupt

    monkeypatch.setattr("lostwax.server.gateway.serve.require_may_listen", may_listen)
    return seen


def _file(folder: Path, text: str) -> Path:
    path = folder / "serve.toml"
    path.write_text(text)
    return path


def test_a_file_says_what_the_command_line_leaves_out(
    tmp_path: Path, capsys: Capture, given: list[dict[str, object]]
) -> None:
    path = _file(tmp_path, '[serve]\nport = 9000\nhost = "0.0.0.0"\napi-key = ["a", "b"]\n')
    lostwax(capsys, "serve", "--config", path)
    lostwax(capsys, "serve", f"--config={path}", "--port", 9001)
    lostwax(capsys, "serve")
    assert given == [
        {"host": "0.0.0.0", "port": 9000, "insecure": True},
        {"host": "0.0.0.0", "port": 9001, "insecure": True},
        {"host": "127.0.0.1", "port": 8000, "insecure": False},
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[serve]\nprot = 1\n", "no option 'prot'; did you mean 'port'?"),
        ("[serve]\nmax_stall = 2\n", "no option 'max_stall'; did you mean 'max-stall'?"),
        ("[serve]\nxyzzy = 1\n", "no option 'xyzzy'; lostwax serve --help-all lists"),
        ("[serve]\nport = 99999999\n", "serve.toml: --port must be in 0..65535, not 99999999"),
        ('[serve]\nport = "9000"\n', "port: Expected `int`, got `str`"),
        ("[serve]\nport = true\n", "port: Expected `int`, got `bool`"),
        ("[serve]\nthreads = 1.5\n", "threads: Expected `int | null`, got `float`"),
        ('[serve]\nenable-metrics = "yes"\n', "enable-metrics: Expected `bool`, got `str`"),
        ('[serve]\napi-key = "abc"\n', "api-key: Expected `array | null`, got `str`"),
        ('[serve]\nlog-format = "xml"\n', "log-format: Invalid enum value 'xml'"),
        ('[serve]\ncheckpoint = "none"\n', "none does not exist; give the folder"),
        ('[serve]\nconfig = "x.toml"\n', "a file names no other; leave out 'config'"),
        ('[serve]\npath = "x"\n', "no option 'path'"),
        ("[sever]\nport = 1\n", "nothing reads 'sever'; did you mean 'serve'?"),
        ("port = 1\n", "nothing reads 'port'; options stand in the table [serve]"),
        ("serve = 1\n", "'serve' is no table"),
        ("[serve\n", "is no TOML: "),
        (f"[serve]\nport = {'9' * 5000}\n", "is no TOML: "),
        (f"[serve]\nport = {'[' * 20000}\n", "is no TOML: "),
        ("[serve]\nport = 1\nport = 2\n", "is no TOML: "),
        ("#" * 70_000, "and at most 65536 are read"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_sentence_that_names_it(
    tmp_path: Path, capsys: Capture, text: str, said: str
) -> None:
    path = _file(tmp_path, text)
    status, out, err = lostwax(capsys, "serve", "--config", path)
    assert (status, out) == (1, "")
    assert said in one_sentence(err)
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["none.toml", "."])
def test_a_file_that_is_none_is_refused(tmp_path: Path, capsys: Capture, name: str) -> None:
    status, _, err = lostwax(capsys, "serve", "--config", tmp_path / name)
    assert status == 1
    assert one_sentence(err)


def test_show_says_where_each_option_comes_from(tmp_path: Path, capsys: Capture) -> None:
    path = _file(tmp_path, '[serve]\nport = 9000\nmax-stall = 2\napi-key = ["secret"]\n')
    line = ("config", "show", "--config", path, "--port", 9001, "--enable-metrics")
    status, out, err = lostwax(capsys, *line, "--origin")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "[serve]"
    assert "port = 9001 # command line" in lines
    assert f"max-stall = 2.0 # {path}" in lines
    assert "enable-metrics = true # command line" in lines
    assert 'host = "127.0.0.1" # default' in lines
    assert "# drafts has no value # default" in lines
    assert f"# api-key is set and not shown # {path}" in lines
    assert "secret" not in out


def test_what_show_prints_is_a_file_that_says_the_same(tmp_path: Path, capsys: Capture) -> None:
    line = ("--port", 9001, "--allow-host", "a.b", "--allow-host", "c.d", "--drain", 2.5)
    _, first, _ = lostwax(capsys, "config", "show", *line)
    assert tomllib.loads(first)["serve"]["allow-host"] == ["a.b", "c.d"]
    path = _file(tmp_path, first)
    _, second, _ = lostwax(capsys, "config", "show", "--config", path)
    assert second == first


def test_options_of_other_servers_stand_in_a_file_and_are_shown_where_they_are_given(
    tmp_path: Path, capsys: Capture
) -> None:
    path = _file(tmp_path, "[serve]\ntp = 2\nenable-dp-attention = true\nmax-model-len = 8\n")
    status, _, err = lostwax(capsys, "serve", "--config", path)
    assert status == 1
    assert "no option 'max-model-len'" in one_sentence(err)
    path = _file(tmp_path, "[serve]\ntp = 2\nenable-dp-attention = true\n")
    status, _, err = lostwax(capsys, "serve", "--config", path)
    assert status == 1
    assert "--enable-dp-attention goes with --dp N" in one_sentence(err)
    shown = ("config", "show", "--origin", "--config", path, "--dp", 8)
    status, out, _ = lostwax(capsys, *shown)
    assert status == 0
    lines = out.splitlines()
    assert f"tp = 2 # {path}" in lines
    assert "dp = 8 # command line" in lines
    assert f"enable-dp-attention = true # {path}" in lines
    assert not any("kv-cache-dtype" in line for line in lines)
