"""Options of `serve` that a compile has decided, under the names that SGLang and vLLM give them.

What is asked of an artifact is compared with what was compiled: equal is taken, anything else is
refused with the command that would compile it. Starts and changes nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from lostwax.backends.plan.foreign_kernels import ELSEWHERE
from lostwax.backends.plan.sizes import Sizes
from lostwax.cli.compile import selecting
from lostwax.cli.foreign_values import (
    CACHE_OF,
    drafts,
    drafts_of_json,
    kv_layout,
    require_cache_of,
    require_dp_attention,
    require_one_copy,
)
from lostwax.cli.help_page import FOREIGN
from lostwax.cli.named_paths import File, Model
from lostwax.cli.option_types import Count, Flag, OptionRefused, Ranks
from lostwax.ir.contract.choice import Choices

if TYPE_CHECKING:
    from lostwax.backends.runtime.artifact_reader import ArtifactReader

_GROUP = Group(FOREIGN, sort_key=10)
Asked = Mapping[str, str | int | bool]
"""Options of `compile` without their dashes, by name."""


def _named(*names: str) -> Parameter:
    return Parameter(name=names, group=_GROUP)


@dataclass(frozen=True)
class Decided:
    """What a command line of another server says of the model and how it is laid out.

    Parameters
    ----------
    model_path
        PATH, as SGLang calls it.
    tp
        Ranks that the artifact was compiled for.
    dp
        Copies of the attention: 1.
    ep
        Ranks that share the experts out whole: 1, as --tp slices every one of them.
    enable_dp_attention
        Says nothing beside --dp 1.
    kv_cache_dtype
        How the latent cache is stored: auto, bf16, or fp8_e4m3 (fp8_656).
    dsa_prefill_backend
        The lowering of attention in prefill steps that select positions.
    dsa_decode_backend
        The same in decode steps.
    cuda_graph_max_bs
        Requests of the largest captured step: all steps of up to --max-reqs requests are.
    enable_deterministic_inference
        The artifact was compiled with --batch-invariant.
    speculative_algorithm
        EAGLE or NEXTN: the model's own MTP layer drafts.
    speculative_num_steps
        As --drafts, with --speculative-algorithm.
    speculative_eagle_topk
        Branches of a draft: 1.
    speculative_num_draft_tokens
        One more than --speculative-num-steps.
    speculative_config
        As --drafts, in vLLM's JSON: method mtp and num_speculative_tokens.
    tool_call_parser
        The checkpoint's own, such as deepseekv32, or none: calls are not read.
    reasoning_parser
        The checkpoint's own, deepseek-v3, or none: reasoning is not parted from the content.
    chat_template
        A Jinja file that renders chats in place of the checkpoint's encoding, in a sandbox. Answers
        are read as that writes them, unless --tool-call-parser or --reasoning-parser says another.
    """

    model_path: Annotated[Model | None, _named("--model-path", "--model")] = None
    tp: Annotated[Ranks | None, _named("--tp", "--tp-size", "--tensor-parallel-size", "-tp")] = None
    dp: Annotated[Ranks | None, _named("--dp", "--dp-size", "--data-parallel-size", "-dp")] = None
    ep: Annotated[Ranks | None, _named("--ep", "--ep-size", "--expert-parallel-size")] = None
    enable_dp_attention: Annotated[Flag, _named("--enable-dp-attention")] = False
    kv_cache_dtype: Annotated[str | None, _named("--kv-cache-dtype")] = None
    dsa_prefill_backend: Annotated[
        str | None, _named("--dsa-prefill-backend", "--nsa-prefill-backend")
    ] = None
    dsa_decode_backend: Annotated[
        str | None, _named("--dsa-decode-backend", "--nsa-decode-backend")
    ] = None
    cuda_graph_max_bs: Annotated[
        Count | None, _named("--cuda-graph-max-bs", "--max-cudagraph-capture-size")
    ] = None
    enable_deterministic_inference: Annotated[Flag, _named("--enable-deterministic-inference")] = (
        False
    )
    speculative_algorithm: Annotated[str | None, _named("--speculative-algorithm")] = None
    speculative_num_steps: Annotated[Count | None, _named("--speculative-num-steps")] = None
    speculative_eagle_topk: Annotated[Count | None, _named("--speculative-eagle-topk")] = None
    speculative_num_draft_tokens: Annotated[
        Count | None, _named("--speculative-num-draft-tokens")
    ] = None
    speculative_config: Annotated[str | None, _named("--speculative-config")] = None
    tool_call_parser: Annotated[str | None, _named("--tool-call-parser")] = None
    reasoning_parser: Annotated[str | None, _named("--reasoning-parser")] = None
    chat_template: Annotated[File | None, _named("--chat-template")] = None

    @property
    def drafts(self) -> int | None:
        """Drafts that are asked for; None where nobody says how many. Raises OptionRefused."""
        asked = drafts(
            self.speculative_algorithm,
            self.speculative_num_steps,
            self.speculative_eagle_topk,
            self.speculative_num_draft_tokens,
        )
        if self.speculative_config is None:
            return asked
        if self.speculative_algorithm is not None:
            raise OptionRefused(
                "--speculative-config and --speculative-algorithm say the same; give one of them"
            )
        return drafts_of_json(self.speculative_config)

    @property
    def asked(self) -> Asked:
        """What `compile` must have been told. Raises OptionRefused for what it cannot be told."""
        if self.enable_dp_attention:
            require_dp_attention(self.dp)
        require_one_copy("--dp", self.dp or 1)
        require_one_copy("--ep", self.ep or 1)
        found: dict[str, str | int | bool] = {}
        if self.tp is not None:
            found["tp"] = self.tp
        layout = kv_layout(self.kv_cache_dtype) if self.kv_cache_dtype else "model"
        if layout != "model":
            found["kv-layout"] = layout
        for name, kernel in (
            ("dsa-prefill-backend", self.dsa_prefill_backend),
            ("dsa-decode-backend", self.dsa_decode_backend),
        ):
            if kernel is None:
                continue
            if kernel in ELSEWHERE:
                raise OptionRefused(f"--{name} {kernel} {ELSEWHERE[kernel]}")
            if self.kv_cache_dtype is not None:
                require_cache_of(f"--{name}", kernel, layout)
            found[name] = kernel
        if self.cuda_graph_max_bs is not None:
            found["max-reqs"] = self.cuda_graph_max_bs
        if self.enable_deterministic_inference:
            found["batch-invariant"] = True
        return found


def named_model(path: Path | None, decided: Decided) -> Path | None:
    """What PATH or --model-path names. OptionRefused where both do."""
    if path is not None and decided.model_path is not None:
        raise OptionRefused(
            f"PATH ({path}) and --model-path ({decided.model_path}) name the model; give one of"
            " them"
        )
    return path or decided.model_path


def given_drafts(given: int | None, decided: Decided) -> int | None:
    """What --drafts or the options of other servers say. OptionRefused where they differ."""
    asked = decided.drafts
    if None not in (given, asked) and given != asked:
        raise OptionRefused(
            f"--drafts {given} and the --speculative options ({asked}) say different things; give"
            " one of them"
        )
    return asked if given is None else given


def require_default(checkpoint: Path | None, dtype: str, decided: Decided) -> None:
    """OptionRefused where a checkpoint, which `serve` compiles in this dtype and with the defaults,
    must be compiled otherwise; None is the default model."""
    asked = decided.asked
    sizes = Sizes()
    there: Asked = {
        "tp": 1,
        "kv-layout": dtype,
        "max-reqs": min(sizes.max_reqs, int(asked.get("max-reqs", sizes.max_reqs))),
    }
    wanted = {name: value for name, value in asked.items() if there.get(name) != value}
    if wanted:
        shown = " ".join(_words(wanted))
        where = shlex.quote(str(checkpoint)) if checkpoint else "CHECKPOINT"
        raise OptionRefused(
            f"{shown} is decided when a checkpoint is compiled, which serve does with the"
            f" defaults; compile it first: lostwax compile {where} {shown} -o DIR, then serve DIR"
        )


def require_decided(reader: ArtifactReader, decided: Decided) -> None:
    """OptionRefused where the artifact is another than the one that is asked for."""
    manifest = reader.manifest
    drafting = decided.speculative_algorithm is not None
    asked = decided.asked
    there = _there(reader, asked)
    wanted = {name: value for name, value in asked.items() if there[name] != value}
    if drafting and not manifest.limits.max_drafts:
        there, wanted = there | {"drafts": 0}, wanted | {"drafts": decided.drafts or 3}
    if wanted:
        was = " ".join(_words({name: there[name] for name in wanted}, whole=True))
        raise OptionRefused(
            f"{' '.join(_words(wanted))} is asked for and {reader.folder} was compiled with {was};"
            f" compile it anew: {_command(reader, wanted)}"
        )


def _there(reader: ArtifactReader, asked: Asked) -> dict[str, str | int | bool]:
    """The same options as the artifact was compiled with them."""
    manifest = reader.manifest
    latent = next(plane.layout for plane in manifest.planes if plane.name == "latent")
    most = manifest.limits.max_reqs
    found: dict[str, str | int | bool] = {
        "tp": manifest.world_size,
        "kv-layout": {"f32": "fp32"}.get(latent, latent),
        "max-reqs": min(most, int(asked.get("max-reqs", most))),  # all smaller steps are captured
        "batch-invariant": manifest.batch_invariant,
    }
    for phase in ("prefill", "decode"):
        name = f"dsa-{phase}-backend"
        if name in asked:
            found[name] = _kernels(reader, phase, str(asked[name]))
    return found


def _kernels(reader: ArtifactReader, phase: str, asked: str) -> str:
    """The lowerings of attention where positions are selected; what was asked if none are."""
    choices = reader.structure("choices.json", Choices)
    rules = selecting(phase, asked)
    segments, op = {segment for _, _, segment, _ in rules}, rules[0][0]
    programs = [
        Path(ref.file).stem
        for ref in reader.manifest.programs
        if ref.segment in segments and not ref.guard.selects_all
    ]
    chosen = {c.lowering for p in programs for c in choices.programs[p] if op in c.ops}
    return ", ".join(sorted(chosen)) or (asked if asked in CACHE_OF else "none")


def _words(options: Asked, *, whole: bool = False) -> Iterator[str]:
    for name, value in options.items():
        if isinstance(value, bool):
            if value or whole:
                yield f"--{name}" if value else f"no --{name}"
        else:
            yield f"--{name} {shlex.quote(str(value)) if not whole else value}"


def _command(reader: ArtifactReader, wanted: Asked) -> str:
    """The compile that gives this artifact with other options, as far as its manifest says."""
    manifest, note = reader.manifest, reader.note()
    limits = manifest.limits
    kept: dict[str, str | int | bool] = {
        "target": manifest.target.name,
        "dtype": {"f32": "fp32"}.get(manifest.dtype, manifest.dtype),
        "max-context": limits.max_context,
        "max-tokens": max(limits.max_tokens, int(wanted.get("max-reqs", 0))),
        "max-reqs": limits.max_reqs,
        "drafts": limits.max_drafts,
        "tp": manifest.world_size,
    }
    checkpoint = shlex.quote(note.path) if note else "CHECKPOINT"
    return f"lostwax compile {checkpoint} {' '.join(_words(kept | dict(wanted)))} -o DIR"
