"""Says a command line of SGLang's or vLLM's server in ours. Runs nothing.

Every option of the command is taken, needless here, or left out with the reason; where defaults
differ so that clients would notice, ours are said.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from lostwax.backends.asked import UnsupportedRanks, require_ranks
from lostwax.backends.plan.foreign_kernels import ELSEWHERE
from lostwax.backends.plan.sizes import DEFAULT_CONTEXT, Sizes
from lostwax.backends.registry import find_target
from lostwax.cli.foreign_command import ForeignCommand, Given
from lostwax.cli.foreign_options import NEEDLESS, lacking
from lostwax.cli.foreign_values import (
    NO_PARSER,
    REASONING_PARSERS,
    TOOL_PARSERS,
    drafts,
    drafts_of_json,
    kv_layout,
    plain,
    require_cache_of,
    require_dp_attention,
    require_one_copy,
    template_file,
)
from lostwax.cli.named_paths import is_hub_id
from lostwax.cli.option_types import OptionRefused
from lostwax.cli.translation import Migration, Translation, number, value_of
from lostwax.ir.contract.step import MAX_DRAFTS

KEPT_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "OMP_NUM_THREADS")
"""Of the environment: what drivers and OpenMP read, whoever starts them."""
PORTS = {"SGLang": "30000", "vLLM": "8000"}
"""The servers' own; vLLM's is ours, too."""
OWN_PORT = "8000"
LOOPBACK = ("", "127.0.0.1", "::1", "localhost")
CONTEXT = "163840"
"""max_position_embeddings of every checkpoint of DeepSeek-V3.2's."""
MEMORY = "0.9"
"""Of the device: vLLM's own, and about what SGLang comes to."""
PAGE_TOKENS = "64"  # frontend/checkpoint.py
VALUES = {
    "--attention-backend": 1,
    "--device": 1,
    "--quantization": 1,
    "--tokenizer": 1,
    "--tokenizer-mode": 1,
    "--enable-auto-tool-choice": 0,
    "--enable-expert-parallel": 0,
    "--enforce-eager": 0,
    "--trust-remote-code": 0,
}
"""How many values options have that `serve` lacks: where vLLM's model stands behind them, they are
told apart so."""
_SPECULATIVE = (
    "--speculative-num-steps",
    "--speculative-eagle-topk",
    "--speculative-num-draft-tokens",
)
_HARMLESS = {
    "--attention-backend": ("nsa", "dsa", "auto"),
    "--load-format": ("auto", "safetensors"),
    "--quantization": ("fp8",),
    "--tokenizer": (),
    "--tokenizer-mode": ("auto", "deepseek_v32"),
    "--tokenizer-path": (),
}
"""Values for which a needless option is so, where others would change an answer; the model's own
name always is."""
_ENCODING = "the artifact knows its checkpoint's encoding"


class NoModel(ValueError):
    """The command names no model."""


def migrate(command: ForeignCommand, target: str, arguments: Sequence[Any]) -> Migration:
    """What the command is here, on `target`. `arguments` are those of `serve`, as cyclopts knows
    them.

    Raises NoModel.
    """
    t = Translation(command, target, arguments, VALUES)
    _target(t)
    model = _model(t)
    _layout(t)
    _formats(t, _cache(t))
    _drafts(t)
    _sizes(t)
    _address(t)
    _name_and_memory(t, model)
    _rest(t, model)
    kept = _environment(t, command)
    folder, out = _places(model)
    if is_hub_id(model):
        t.result.commands.append(["hf", "download", model, "--local-dir", folder])
    t.result.commands.append(["lostwax", "compile", folder, *t.compile, "-o", out])
    t.result.commands.append([*kept, "lostwax", "serve", out, *t.serve])
    return t.result


def _target(t: Translation) -> None:
    def device(given: Given) -> None:
        if given.value == "cpu":
            t.result.target = "cpu"
        elif given.value not in ("cuda", "auto"):
            raise OptionRefused(f"this is for {t.result.target}; say another with --target")
        else:
            t.needless(given, f"compiled for {t.result.target}")

    t.taken("--device", device)
    t.say(t.compile, "--target", t.result.target)


def _model(t: Translation) -> str:
    named = t.given.pop("--model-path", None)
    if named is None and t.words and t.result.server == "vLLM":
        model = t.words.pop(0)
    else:
        model = named.value if named else ""
    for word in t.words:
        t.left(word, "it belongs to no option")
    if not model:
        raise NoModel("the command names no model; add --model-path PATH (vLLM: vllm serve PATH)")
    return f"./{model}" if model.startswith("-") else model  # it would be an option of ours


def _layout(t: Translation) -> None:
    """How the model is spread over ranks."""
    dp = t.given.get("--dp")

    def tp(given: Given) -> None:
        if given.value == "1":
            t.needless(given, "an artifact has one rank unless --tp says more")
            return
        try:
            if given.value.isdecimal():
                require_ranks(int(given.value), find_target(t.result.target)[1])
        except UnsupportedRanks as error:
            raise OptionRefused(str(error)) from error
        t.say(t.compile, "--tp", given.value)

    def copies(given: Given) -> None:
        require_one_copy("--dp", number(given))
        t.needless(given, "there is one copy")

    def experts(given: Given) -> None:
        require_one_copy("--ep", number(given))
        t.needless(given, "it says nothing")

    def attention(given: Given) -> None:
        require_dp_attention(number(dp) if dp else None)
        t.needless(given, "it says nothing beside --dp 1")

    for name, say in (
        ("--tp", tp),
        ("--dp", copies),
        ("--ep", experts),
        ("--enable-dp-attention", attention),
    ):
        t.taken(name, say)


def _cache(t: Translation) -> str:
    """How the latent cache is held: as asked for, else as the server would."""
    server, target = t.result.server, t.result.target
    given = t.given.get("--kv-cache-dtype")
    if given is not None and given.value != "auto":
        asked: list[str] = []

        def cache(given: Given) -> None:
            asked.append(kv_layout(given.value))
            t.say(t.compile, "--kv-layout", *asked)

        t.taken("--kv-cache-dtype", cache)
        return asked[0] if asked else "model"
    if t.given.pop("--kv-cache-dtype", None):
        t.needless(given, "the default")
    if target == "cuda-sm100a" or (server == "vLLM" and target.startswith("cuda")):
        t.say(t.compile, "--kv-layout", "fp8_656", because=f"{server}'s cache for this model")
        return "fp8_656"
    return "model"


def _formats(t: Translation, cache: str) -> None:
    """Dtypes, and the kernels that go with them."""
    server, target = t.result.server, t.result.target
    t.taken("--dtype", lambda given: _dtype(t, given))
    if target.startswith("cuda"):
        why = f"{server} keeps the indexer's keys in 8 bits"
        t.say(t.compile, "--indexer-dtype", "fp8_ue8m0", because=why)

    def invariant(given: Given) -> None:
        if target != "cpu":
            raise OptionRefused("compile --batch-invariant is for the CPU so far")
        t.say(t.compile, "--batch-invariant")

    t.taken("--enable-deterministic-inference", invariant)
    for name in ("--dsa-prefill-backend", "--dsa-decode-backend"):

        def kernel(given: Given, name: str = name) -> None:
            if given.value in ELSEWHERE:
                raise OptionRefused(f"it {ELSEWHERE[given.value]}")
            if target != "cuda-sm90a":
                raise OptionRefused("FlashMLA is called on cuda-sm90a; leave the choice to lostwax")
            require_cache_of(name, given.value, cache)
            t.say(t.compile, name, given.value)

        t.taken(name, kernel)


def _dtype(t: Translation, given: Given) -> None:
    if given.value in ("float", "float32"):
        t.say(t.compile, "--dtype", "fp32")
    elif given.value in ("auto", "bfloat16"):
        t.needless(given, "compile's default is bf16")
    else:
        raise OptionRefused("there are fp32 and bf16; nearest: bf16, the default")


def _drafts(t: Translation) -> None:
    algorithm = t.given.pop("--speculative-algorithm", None)
    parts = [t.given.pop(name, None) for name in _SPECULATIVE]
    told = " ".join(str(each) for each in (algorithm, *parts) if each)
    if told:
        try:
            numbers = [number(each) if each else None for each in parts]
            found = drafts(algorithm.value if algorithm else None, *numbers)
        except (OptionRefused, ValueError) as error:
            t.left(told, str(error))
        else:
            why = "" if found else f"{t.result.server}'s own for this model"
            t.say(t.compile, "--drafts", str(found or MAX_DRAFTS), because=why)

    def config(given: Given) -> None:
        t.say(t.compile, "--drafts", str(drafts_of_json(given.value)))

    t.taken("--speculative-config", config)


def _sizes(t: Translation) -> None:
    """Bounds of steps, which an artifact has."""
    server, usual = t.result.server, Sizes()
    reqs, graphs = "--max-running-requests", t.given.pop("--cuda-graph-max-bs", None)
    if graphs and reqs in t.given:
        t.needless(graphs, "all steps of up to --max-reqs requests are captured")
    elif graphs:
        t.given[reqs] = graphs
    if not t.taken(reqs, lambda given: t.say(t.compile, "--max-reqs", given.value)):
        t.result.notes.append(
            f"{server} runs as many requests at once as memory allows; an artifact"
            f" {usual.max_reqs} unless compile --max-reqs N says more"
        )
    rows, most = "--chunked-prefill-size", value_of(t.compile, "--max-reqs")
    told = t.taken(rows, lambda given: t.say(t.compile, "--max-tokens", given.value))
    if not told and most.isdecimal() and int(most) > usual.max_tokens:
        why = "a step of so many requests has their rows"
        t.say(t.compile, "--max-tokens", most, because=why)
    context = "--context-length"
    if not t.taken(context, lambda given: t.say(t.compile, "--max-context", given.value)):
        why = f"{server} takes the model's length, compile {DEFAULT_CONTEXT} unless told"
        t.say(t.compile, "--max-context", CONTEXT, because=why)

    def page(given: Given) -> None:
        if given.value != PAGE_TOKENS:
            raise OptionRefused(f"pages have {PAGE_TOKENS} tokens")
        t.needless(given, f"pages have {PAGE_TOKENS} tokens")

    t.taken("--page-size", page)


def _address(t: Translation) -> None:
    server = t.result.server
    t.passed("--host")
    if not t.passed("--port") and PORTS[server] != OWN_PORT:
        why = f"{server}'s own; lostwax has {OWN_PORT}"
        t.say(t.serve, "--port", PORTS[server], because=why)
    host = value_of(t.serve, "--host")
    if host not in LOOPBACK and not {"--api-key", "--api-key-file"} & t.given.keys():
        why = "no key is asked for; --api-key-file FILE in its place keeps others out"
        t.say(t.serve, "--insecure", because=why)
    if not host and server == "vLLM":
        t.result.notes.append(
            "vLLM listens on every interface, lostwax on this host alone; for others add --host"
            " 0.0.0.0 --api-key-file FILE"
        )


def _name_and_memory(t: Translation, model: str) -> None:
    server = t.result.server

    def name(given: Given) -> None:
        t.say(t.serve, "--served-model-name", given.values[0])
        for other in given.values[1:]:
            t.left(f"--served-model-name {other}", "a model has one name")

    if not t.taken("--served-model-name", name):
        t.say(t.serve, "--served-model-name", model, because=f"what {server} calls it")
    if t.taken("--max-total-tokens", lambda given: t.say(t.serve, "--num-pages", _pages(given))):
        if memory := t.given.pop("--mem-fraction-static", None):
            t.needless(memory, "--num-pages says how much there is of the cache")
    elif not t.passed("--mem-fraction-static"):
        why = f"{server} fills the device, lostwax takes 1 GiB of cache unless told"
        t.say(t.serve, "--mem-fraction-static", MEMORY, because=why)


def _rest(t: Translation, model: str) -> None:
    """What `serve` has by this name, what is needless, and what is lacking."""
    has_template = _template(t)
    for name, known in (
        ("--tool-call-parser", TOOL_PARSERS.values()),
        ("--reasoning-parser", REASONING_PARSERS),
    ):

        def parser(given: Given, name: str = name, known: Collection[str] = tuple(known)) -> None:
            if plain(given.value) not in map(plain, known):
                raise OptionRefused("answers are read as the checkpoint's encoding writes them")
            if has_template or given.value == NO_PARSER:
                t.say(t.serve, name, given.value)
            else:
                t.needless(given, _ENCODING)

        t.taken(name, parser)
    for name, given in list(t.given.items()):
        if name == "--config":
            t.left(given, "a YAML file of options is not read; give them here, too")
        elif name in t.known:
            t.passed(name)
        elif name in NEEDLESS and (
            given.value in _HARMLESS.get(name, (given.value,)) or given.value == model
        ):
            t.needless(given, NEEDLESS[name])
        else:
            why = lacking(name) or NEEDLESS.get(name, "lostwax has nothing of this name")
            t.left(given, why.removesuffix(": leave it out"))


def _template(t: Translation) -> bool:
    """Whether `serve` gets one."""

    def template(given: Given) -> None:
        if file := template_file(given.value):
            t.say(t.serve, "--chat-template", file)
        else:
            t.needless(given, _ENCODING)

    return t.taken("--chat-template", template) and "--chat-template" in t.serve


def _pages(tokens: Given) -> str:
    """Pages that hold so many tokens, and the one that padding writes to."""
    return str(-(-number(tokens) // int(PAGE_TOKENS)) + 1)


def _environment(t: Translation, command: ForeignCommand) -> list[str]:
    for name in sorted(command.environment.keys() - set(KEPT_VARIABLES)):
        t.left(name, "lostwax goes by no such variable of the environment")
    if command.before:
        t.left(" ".join(command.before), "what starts the server is yours to keep")
    return [f"{k}={v}" for k, v in command.environment.items() if k in KEPT_VARIABLES]


def _places(model: str) -> tuple[str, str]:
    """The checkpoint's folder, and a name for its artifact."""
    name = model.rstrip("/").rpartition("/")[2]
    if "$" in name or name in ("", ".", ".."):
        name = "model"
    return (name if is_hub_id(model) else model), f"{name}.lostwax"
