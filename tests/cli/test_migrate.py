"""Another server's command in ours: no option gets lost, and what is printed is what we take."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from command_line import command_app, lostwax, one_sentence
from foreign_commands import GUIDES

from lostwax.cli.decided import Decided
from lostwax.cli.foreign_options import LACKING, NEEDLESS

Capture = pytest.CaptureFixture[str]
SGLANG = "python -m sglang.launch_server --model-path org/V3.2"
VLLM = "vllm serve org/V3.2"
OTHERS = {
    "SGLang, a template by name": f"{SGLANG} --chat-template chatml --tool-call-parser deepseekv31",
    "vLLM, a template as text": f"{VLLM} --chat-template '{{{{ messages }}}}'",
}
"""Commands that no guide has."""


def migrated(capsys: Capture, command: str, *more: str) -> dict[str, Any]:
    status, out, err = lostwax(capsys, "migrate", command, "--json", *more)
    assert err == ""
    found = json.loads(out)
    assert status == (3 if found["left_out"] else 0)
    return found


def words(found: dict[str, Any], name: str) -> list[str]:
    """Our command of that name."""
    (command,) = [c for c in found["commands"] if name in c]
    return command[command.index(name) + 1 :]


def told(found: dict[str, Any]) -> set[str]:
    """The first words of all that was said of their options."""
    said = [r["option"].split()[0] for kind in ("left_out", "needless") for r in found[kind]]
    return set(said)


@pytest.mark.parametrize("command", GUIDES.values(), ids=GUIDES)
def test_no_option_of_the_guides_gets_lost(command: str, capsys: Capture) -> None:
    found = migrated(capsys, command)
    ours = {*words(found, "compile"), *words(found, "serve")}
    said = " ".join(r["option"] for kind in ("left_out", "needless") for r in found[kind])
    for word in shlex.split(command):
        if word.startswith("-") and word not in ("-m", "--model", "--model-path"):
            renamed = {"-tp": "--tp", "-dp": "--dp", "--tensor-parallel-size": "--tp"}
            renamed |= {"--tp-size": "--tp", "--dp-size": "--dp"}
            renamed |= {"--speculative-algorithm": "--drafts", "--speculative-config": "--drafts"}
            renamed |= {"--max-running-requests": "--max-reqs", "--kv-cache-dtype": "--kv-layout"}
            name = word.partition("=")[0]
            named = {name, renamed.get(name, name)}
            if name.startswith("--speculative-"):
                named.add("--drafts")
            assert any(n in ours or n in said for n in named), word


@pytest.mark.parametrize("target", ["cuda-sm90a", "cpu", "cuda-sm100a"])
@pytest.mark.parametrize("command", [*GUIDES.values(), *OTHERS.values()], ids=[*GUIDES, *OTHERS])
def test_what_is_printed_is_read_by_our_own_commands(
    command: str, target: str, capsys: Capture, tmp_path: Path
) -> None:
    found = migrated(capsys, command, "--target", target)
    checkpoint, artifact = tmp_path / "checkpoint", tmp_path / "artifact"
    for folder, file in ((checkpoint, "config.json"), (artifact, "manifest.json")):
        folder.mkdir(exist_ok=True)
        (folder / file).touch()
    _, *options = words(found, "compile")
    at = options.index("-o") + 1
    options[at] = str(tmp_path / "new")
    _parse("compile", [str(checkpoint), *options])
    _, *options = words(found, "serve")
    _parse("serve", [str(artifact), *("9000" if "$" in w and "PORT" in w else w for w in options)])


def _parse(command: str, options: list[str]) -> None:
    plain = ["host" if "$" in word else word for word in options]
    command_app(command).parse_args(plain, print_error=False, exit_on_error=False)


def test_the_plain_command_has_no_option_left(capsys: Capture) -> None:
    status, out, err = lostwax(capsys, "migrate", f"{SGLANG} --max-running-requests 32")
    assert (status, err) == (0, "")
    commands = [line for line in out.splitlines() if not line.startswith("#")]
    assert commands == [
        "hf download org/V3.2 --local-dir V3.2",
        "lostwax compile V3.2 --target cuda-sm90a --indexer-dtype fp8_ue8m0 --max-reqs 32"
        " --max-context 163840 -o V3.2.lostwax",
        "lostwax serve V3.2.lostwax --port 30000 --served-model-name org/V3.2"
        " --mem-fraction-static 0.9",
    ]


@pytest.mark.parametrize(
    ("options", "ours"),
    [
        ("--context-length 4096", "--max-context 4096"),
        ("--chunked-prefill-size 2048", "--max-tokens 2048"),
        ("--cuda-graph-max-bs 16", "--max-reqs 16"),
        ("--max-running-requests 1024", "--max-reqs 1024 --max-tokens 1024"),
        ("--kv-cache-dtype fp8_e4m3", "--kv-layout fp8_656"),
        ("--kv-cache-dtype bfloat16", "--kv-layout bf16"),
        ("--nsa-prefill-backend flashmla_sparse", "--dsa-prefill-backend flashmla_sparse"),
        (
            "--kv-cache-dtype fp8_e4m3 --dsa-decode-backend flashmla_kv",
            "--kv-layout fp8_656 --dsa-decode-backend flashmla_kv",
        ),
        ("--speculative-algorithm EAGLE", "--drafts 3"),
        (
            "--speculative-algorithm NEXTN --speculative-num-steps 1 --speculative-eagle-topk 1"
            " --speculative-num-draft-tokens 2",
            "--drafts 1",
        ),
        ("--dtype float32", "--dtype fp32"),
        ("--device cpu --tp 2 --enable-deterministic-inference", "--tp 2 --batch-invariant"),
    ],
)
def test_what_a_compile_decides_is_given_to_it(options: str, ours: str, capsys: Capture) -> None:
    found = migrated(capsys, f"{SGLANG} {options}")
    assert found["left_out"] == []
    said = words(found, "compile")
    wanted = shlex.split(ours)
    assert [word for word in said if word in wanted] == wanted
    assert not {"--tp", "--context-length", "--kv-cache-dtype"} & set(words(found, "serve"))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("--tp 8", "ranks cannot exchange values yet"),
        ("--dp 8 --enable-dp-attention", "none can run attention for its own requests"),
        ("--dp 8", "start so many, each on devices of its own"),
        ("--ep 8", "none can hold whole experts"),
        ("--kv-cache-dtype fp4_e2m1", "nearest: fp8_e4m3"),
        ("--nsa-decode-backend fa3", "it is FlashAttention 3"),
        ("--nsa-decode-backend flashmla_kv", "reads a cache in fp8_656"),
        ("--speculative-algorithm EAGLE3 --speculative-num-steps 3", "nearest: --speculative-alg"),
        ("--speculative-algorithm EAGLE --speculative-num-steps x", "'x' is no number"),
        ("--speculative-config nonsense", "JSON is malformed"),
        ("--enable-lora", "adapters are not served"),
        ("--schedule-policy lpm", "in the order in which they came"),
        ("--no-such-option 1 2 3", "lostwax has nothing of this name"),
        ("--port 99999999", "must be in 0..65535, not 99999999"),
        ("--port", "its value is missing"),
        ("--enable-metrics=yes", "it takes no value"),
        ("--log-format xml", "must be one of text, json"),
        ("--page-size 1", "pages have 64 tokens"),
        ("--quantization awq", "weights stay as the checkpoint stores them"),
        ("--tool-call-parser qwen25", "answers are read as the checkpoint's encoding writes them"),
        ("--chat-template", "its value is missing"),
        ("--chat-template chatml", "lostwax brings no templates by name"),
        ("--chat-template '{{ messages }}'", "a text is not taken"),
        ("--chat-template '{# deepseekv3 #}{{ messages }}'", "a text is not taken"),
        ("--config server.yaml", "a YAML file of options is not read"),
        ("--otlp-traces-endpoint collector:4317", "is no URL of a server"),
        ("--dtype half", "nearest: bf16"),
        ("--device npu", "say another with --target"),
        ("--attention-backend fa3", "attention is chosen by cost"),
        ("--chunked-prefill-size -1", "must be in 1..2147483647, not -1"),
        ("--enable-deterministic-inference", "is for the CPU so far"),
    ],
)
def test_what_has_no_counterpart_is_left_out_with_the_reason(
    options: str, why: str, capsys: Capture
) -> None:
    found = migrated(capsys, f"{SGLANG} {options}")
    reasons = [reason for reason in found["left_out"] if why in reason["why"]]
    assert reasons, found["left_out"]
    assert reasons[0]["option"].split()[0].partition("=")[0] in options
    assert reasons[0]["option"] not in " ".join(words(found, "compile") + words(found, "serve"))


def test_every_known_option_is_needless_or_lacking(capsys: Capture) -> None:
    valued = {
        "--attention-backend",
        "--load-format",
        "--quantization",
        "--tokenizer-mode",
        "--tokenizer-path",
    }
    names = {*NEEDLESS, *LACKING} - valued - {"--tokenizer"}
    found = migrated(capsys, f"{SGLANG} {' '.join(names)}")
    assert told(found) == names
    assert not {*NEEDLESS} & {*LACKING}
    known = {n for a in command_app("serve").assemble_argument_collection() for n in a.names}
    assert not known & names
    harmless = "--load-format auto --quantization fp8 --tokenizer-mode auto --tokenizer org/V3.2"
    assert migrated(capsys, f"{VLLM} {harmless}")["left_out"] == []
    others = "--load-format gguf --quantization awq --tokenizer-mode slow --tokenizer other"
    assert len(migrated(capsys, f"{VLLM} {others}")["left_out"]) == 4


def test_a_template_passes_to_serve_with_the_parsers_beside_it(capsys: Capture) -> None:
    given = "--chat-template mine.jinja --tool-call-parser deepseekv31"
    found = migrated(capsys, f"{SGLANG} {given} --reasoning-parser deepseek-v3")
    assert found["left_out"] == []
    said = words(found, "serve")
    for option in shlex.split(f"{given} --reasoning-parser deepseek-v3"):
        assert option in said
    for file in ("./chatml", "$TEMPLATE", "${TEMPLATE}"):
        assert file in words(migrated(capsys, f"{SGLANG} --chat-template {file}"), "serve")
    ours = (
        "--chat-template ${DIR}/tool_chat_template_deepseekv31.jinja --tool-call-parser deepseekv31"
    )
    assert "--chat-template" not in words(migrated(capsys, f"{SGLANG} {ours}"), "serve")


def test_a_bound_of_cached_tokens_is_said_in_pages(capsys: Capture) -> None:
    found = migrated(capsys, f"{SGLANG} --max-total-tokens 130 --mem-fraction-static 0.8")
    said = words(found, "serve")
    assert said[said.index("--num-pages") + 1] == "4"  # three, and that of padding
    assert "--mem-fraction-static" not in said
    assert "--mem-fraction-static 0.8" in [reason["option"] for reason in found["needless"]]


def test_options_pass_to_serve_by_its_own_name(capsys: Capture) -> None:
    found = migrated(
        capsys,
        f"{VLLM} --gpu_memory_utilization 0.8 --max-model-len=4096 --kv-offloading-size 4"
        " --no-enable-prefix-caching --api-key abc --host 0.0.0.0 --port 9000"
        " --served-model-name a --enable-log-requests",
    )
    assert found["left_out"] == []
    assert words(found, "serve") == shlex.split(
        "V3.2.lostwax --host 0.0.0.0 --port 9000 --served-model-name a --mem-fraction-static 0.8"
        " --hicache-size 4 --disable-radix-cache --api-key abc --log-requests"
    )
    assert words(found, "compile")[-4:] == ["--max-context", "4096", "-o", "V3.2.lostwax"]


def test_a_host_for_others_without_a_key_is_said_to_be_open(capsys: Capture) -> None:
    found = migrated(capsys, f"{SGLANG} --host 0.0.0.0")
    assert "--insecure" in words(found, "serve")
    assert "--insecure" in [reason["option"] for reason in found["added"]]
    for harmless in ("--host 127.0.0.1", "--host 0.0.0.0 --api-key k"):
        assert "--insecure" not in words(migrated(capsys, f"{SGLANG} {harmless}"), "serve")


def test_what_stands_before_the_command_is_kept_or_told(capsys: Capture) -> None:
    command = f"env HF_TOKEN=secret CUDA_VISIBLE_DEVICES=1 numactl -N 0 {SGLANG}"
    found = migrated(capsys, command)
    assert found["commands"][-1][:3] == ["CUDA_VISIBLE_DEVICES=1", "lostwax", "serve"]
    assert [reason["option"] for reason in found["left_out"]] == ["HF_TOKEN", "numactl -N 0"]
    assert "secret" not in json.dumps(found)


def test_variables_stay_and_nothing_else_is_left_to_the_shell(capsys: Capture) -> None:
    model = "/m/it's $(touch x)"
    command = f"vllm serve {shlex.quote(model)} --host $HOST --port ${{PORT}} --api-key '$a b'"
    status, out, _ = lostwax(capsys, "migrate", command)
    assert status == 0
    serve = out.splitlines()[1]
    assert '--host "$HOST" --port "${PORT}"' in serve
    assert "'$a b'" in serve
    assert shlex.split(serve)[-1] == "$a b"
    assert shlex.split(out.splitlines()[0])[2] == model
    assert "'" in out.splitlines()[0].split("compile ")[1][:4]


@pytest.mark.parametrize(
    "command",
    [
        f"{SGLANG} && rm -rf x",
        f"{SGLANG} | tee log",
        f"{SGLANG} > log",
        f"{SGLANG} &",
        f"{SGLANG} --port $(cat port)",
        f"{SGLANG} --port `cat port`",
    ],
)
def test_what_only_a_shell_can_say_is_refused(command: str, capsys: Capture) -> None:
    status, out, err = lostwax(capsys, "migrate", command)
    assert (status, out) == (1, "")
    assert "which is the shell's; give the server's command alone" in one_sentence(err)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("", "starts no server that is known here"),
        ("python -m http.server", "starts no server that is known here"),
        ("vllm bench serve --model x", "starts no server that is known here"),
        ("echo sglang.launch_server", "starts no server that is known here"),
        ("python -m sglang_router.launch_router --prefill a 1", "spreads requests over several"),
        ("python -m sglang.launch_server --tp 8", "names no model; add --model-path PATH"),
        ("vllm serve --port 8000", "names no model"),
        (f"{SGLANG} 'a", "a shell could not read this"),
        ("x" * 70_000, "has 70000 characters and at most 65536 may be"),
    ],
)
def test_what_is_no_command_of_a_server_is_one_sentence(
    command: str, said: str, capsys: Capture
) -> None:
    status, out, err = lostwax(capsys, "migrate", command)
    assert (status, out) == (1, "")
    assert said in one_sentence(err)


def test_lines_that_go_on_and_comments_are_read(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    text = f"# how we start\r\n{SGLANG} \\\r\n  --port 1 \\\n  # not now\n  --host ::1 \\\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    status, out, err = lostwax(capsys, "migrate", "-", "--json")
    assert (status, err) == (0, "")
    serve = words(json.loads(out), "serve")
    assert serve[1:5] == ["--host", "::1", "--port", "1"]


def test_foreign_words_cannot_leave_their_line(capsys: Capture) -> None:
    _, out, _ = lostwax(capsys, "migrate", f"{SGLANG} --x 'a\nrm -rf /\n\x1b[2J'")
    assert all(line.startswith(("#", "hf ", "lostwax ")) for line in out.splitlines())
    assert out.isascii()
    assert "\x1b" not in out


def test_every_option_that_serve_compares_is_one_of_theirs() -> None:
    names = {f"--{name.replace('_', '-')}" for name in Decided.__dataclass_fields__}
    known = {a.name for a in command_app("serve").assemble_argument_collection()}
    assert names <= known
