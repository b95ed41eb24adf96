"""What values of other servers' options come to here. Knows no command and no artifact.

Names and meanings are those of SGLang's and vLLM's documentation, 2026-11. What has no counterpart
raises OptionRefused with the rule and the nearest setting that there is.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from lostwax.cli.option_types import OptionRefused
from lostwax.ir.contract.step import MAX_DRAFTS
from lostwax.server.formats.encoders import Format

KV_LAYOUTS = {
    "auto": "model",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp8": "fp8_656",
    "fp8_e4m3": "fp8_656",
    "fp8_ds_mla": "fp8_656",
}
"""`compile --kv-layout` by `--kv-cache-dtype`: with sparse attention both servers' 8-bit cache is
FlashMLA's, whose rows have 656 bytes."""
ALGORITHMS = ("EAGLE", "NEXTN")
"""Of `--speculative-algorithm`, those that draft with the model's own MTP layer."""
METHODS = ("mtp", "deepseek_mtp")
"""The same of vLLM's `--speculative-config`."""
CACHE_OF = {"flashmla_sparse": "bf16", "flashmla_kv": "fp8_656"}
"""The layout that a kernel of FlashMLA reads."""
TOOL_PARSERS = {
    "deepseek-v3.2": "deepseekv32",
    "deepseek-v3.2-exp": "deepseekv31",
    "deepseek-v3.1": "deepseekv31",
    "deepseek-v3.2-speciale": "none",
}
"""SGLang's `--tool-call-parser` for an encoding (`ModelFacts.chat_encoding`)."""
NO_PARSER = "none"
"""Of both options: the answer's text is content as it comes."""
FORMATS: dict[str, Format] = {
    "deepseekv32": "deepseekv32",
    "deepseekv31": "deepseekv31",
    NO_PARSER: "none",
}
"""How calls are read by `--tool-call-parser`."""
REASONING_PARSER = "deepseek-v3"
REASONING_PARSERS = (REASONING_PARSER, NO_PARSER)
TEMPLATES = ("deepseekv32", "deepseekv31", "deepseekv3")
"""In the names of the templates that both servers bring for this model, as `plain` spells them."""
_VARIABLE = re.compile(r"\$\w+|\$\{\w+\}")
MAX_JSON = 4096
"""Characters of `--speculative-config`."""


def kv_layout(kv_cache_dtype: str) -> str:
    """`compile --kv-layout` for `--kv-cache-dtype`."""
    if kv_cache_dtype not in KV_LAYOUTS:
        nearest = "fp8_e4m3" if kv_cache_dtype.startswith("fp") else "auto"
        raise OptionRefused(
            f"--kv-cache-dtype {kv_cache_dtype}: the cache is held in bf16, or in 8 bits as e4m3;"
            f" give one of {', '.join(KV_LAYOUTS)} (nearest: {nearest})"
        )
    return KV_LAYOUTS[kv_cache_dtype]


def require_cache_of(option: str, kernel: str, layout: str) -> None:
    """OptionRefused where a kernel of FlashMLA does not read the layout; `model` is bf16's."""
    wanted, there = CACHE_OF.get(kernel), "bf16" if layout == "model" else layout
    if wanted not in (None, there):
        other = next((name for name, cache in CACHE_OF.items() if cache == there), None)
        nearest = f"{option} {other}, or " if other else ""
        raise OptionRefused(
            f"{option} {kernel} reads a cache in {wanted} and this one is in {there}; nearest:"
            f" {nearest}--kv-layout {wanted}"
        )


def require_one_copy(option: str, value: int) -> None:
    """OptionRefused where copies of the attention (--dp) or whole experts (--ep) are spread."""
    if value != 1:
        what = "run attention for its own requests" if option == "--dp" else "hold whole experts"
        copies = ", or start so many, each on devices of its own" if option == "--dp" else ""
        raise OptionRefused(
            f"{option} {value}: ranks have a slice of every head and expert, and none can {what};"
            f" nearest: --tp {value} without {option}{copies}"
        )


def require_dp_attention(dp: int | None) -> None:
    """OptionRefused for `--enable-dp-attention`, unless there is one copy: then it says nothing."""
    if dp is None:
        raise OptionRefused("--enable-dp-attention goes with --dp N; nearest: leave it out")
    require_one_copy("--dp", dp)


def drafts(
    algorithm: str | None, steps: int | None, topk: int | None, draft_tokens: int | None
) -> int | None:
    """Drafts that SGLang's `--speculative-*` ask for; None for as many as there may be.

    SGLang's rules hold: what `draft_tokens` counts is a tree's nodes, its root included, and with
    one branch (topk 1) those are steps + 1.
    """
    others = {
        "--speculative-num-steps": steps,
        "--speculative-eagle-topk": topk,
        "--speculative-num-draft-tokens": draft_tokens,
    }
    if algorithm is None:
        for option, value in others.items():
            if value is not None:
                raise OptionRefused(
                    f"{option} {value} goes with --speculative-algorithm; add"
                    " --speculative-algorithm EAGLE"
                )
        return None
    if algorithm.upper() not in ALGORITHMS:
        raise OptionRefused(
            f"--speculative-algorithm {algorithm}: drafts come from the model's own MTP layer;"
            " nearest: --speculative-algorithm EAGLE"
        )
    if topk not in (None, 1):
        raise OptionRefused(
            f"--speculative-eagle-topk {topk}: one chain is drafted and no tree; nearest:"
            " --speculative-eagle-topk 1"
        )
    if steps is None and draft_tokens is not None:
        raise OptionRefused(
            f"--speculative-num-draft-tokens {draft_tokens} goes with --speculative-num-steps;"
            f" add --speculative-num-steps {max(draft_tokens - 1, 1)}"
        )
    if steps is None:
        return None
    _require_drafts("--speculative-num-steps", steps)
    if draft_tokens not in (None, steps + 1):
        raise OptionRefused(
            f"--speculative-num-draft-tokens {draft_tokens}: a chain of {steps} steps has"
            f" {steps + 1} tokens; nearest: --speculative-num-draft-tokens {steps + 1}"
        )
    return steps


class _Speculative(msgspec.Struct, forbid_unknown_fields=True):
    method: str
    num_speculative_tokens: Annotated[int, msgspec.Meta(ge=1)]
    model: str | None = None


def drafts_of_json(text: str) -> int:
    """Drafts that vLLM's `--speculative-config` asks for."""
    option = "--speculative-config"
    try:
        if len(text) > MAX_JSON:
            raise OptionRefused(
                f"{option} has {len(text)} characters and at most {MAX_JSON} may be"
            )
        found = msgspec.json.decode(text, type=_Speculative)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise OptionRefused(
            f'{option}: {error}; give {option} \'{{"method": "mtp", "num_speculative_tokens": 1}}\''
        ) from error
    if found.method not in METHODS or found.model is not None:
        raise OptionRefused(
            f"{option}: drafts come from the model's own MTP layer; nearest: method mtp and no"
            " model"
        )
    _require_drafts("num_speculative_tokens", found.num_speculative_tokens)
    return found.num_speculative_tokens


def _require_drafts(option: str, value: int) -> None:
    if not 1 <= value <= MAX_DRAFTS:
        raise OptionRefused(
            f"{option} {value}: 1 to {MAX_DRAFTS} tokens are drafted before the model verifies"
            f" them; nearest: {min(max(value, 1), MAX_DRAFTS)}"
        )


def chat_form(
    encoding: str | None,
    tool_call_parser: str | None,
    reasoning_parser: str | None,
    *,
    has_template: bool = False,
) -> tuple[Format | None, bool]:
    """How calls are read, None for as the encoding writes them, and whether reasoning is parted.

    `encoding` is the checkpoint's (`ModelFacts.chat_encoding`), None where its chats are not known.
    OptionRefused where parsers are named that do not read what it writes; what a template of the
    operator's makes the model write, only they know.
    """
    for option, value, own, known in (
        ("--tool-call-parser", tool_call_parser, TOOL_PARSERS.get(encoding or ""), FORMATS),
        ("--reasoning-parser", reasoning_parser, encoding and REASONING_PARSER, REASONING_PARSERS),
    ):
        if value in (None, NO_PARSER):
            continue
        if has_template:
            if plain(value) not in map(plain, known):
                listed = ", ".join(known)
                raise OptionRefused(f"{option} {value}: it is not known here; give one of {listed}")
            continue
        if own is None:
            raise OptionRefused(
                f"{option} {value}: this checkpoint's chats are not known here; give its template"
                " (--chat-template FILE), or leave it out and ask /v1/completions"
            )
        if plain(value) != plain(own):
            nearest = NO_PARSER if own == NO_PARSER else f"{own}, or {NO_PARSER}"
            raise OptionRefused(
                f"{option} {value}: answers are read as the checkpoint's encoding writes them;"
                f" nearest: {option} {nearest}"
            )
    calls = None if tool_call_parser is None else FORMATS[plain(tool_call_parser)]
    return calls, reasoning_parser != NO_PARSER


def template_file(template: str) -> str | None:
    """The file that `serve` is to get, None where a template is of this model, whose encoding needs
    none. `$NAME` may be any.

    OptionRefused for what names no file: a template that SGLang brings by its name, or one that
    vLLM takes as a text.
    """
    said = _VARIABLE.sub("", template)
    if "{" in said:
        raise OptionRefused("a text is not taken; put it into a file and give that")
    if any(name in plain(said) for name in TEMPLATES):
        return None
    if said == template and not {"/", "."} & set(template):
        raise OptionRefused(
            "lostwax brings no templates by name; give the Jinja file of its text"
            f" (./{template} where it is one)"
        )
    return template


def plain(parser: str) -> str:
    """A parser's name without what SGLang and vLLM spell differently."""
    return "".join(filter(str.isalnum, parser.lower()))
