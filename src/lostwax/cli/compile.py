"""`lostwax compile`: checkpoint in, artifact out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from lostwax.backends.activation_choice import ActivationChoice
from lostwax.backends.registry import Backend
from lostwax.backends.runtime.phases import Phases
from lostwax.backends.runtime.say import result, result_json, say
from lostwax.cli.default_target import DEFAULT_TARGET
from lostwax.cli.named_paths import Checkpoint, OutArtifact, OutFolder, Records
from lostwax.cli.option_types import (
    MORE,
    Bytes,
    Count,
    Drafts,
    Flag,
    Json,
    OptionRefused,
    Ranks,
    TargetName,
)
from lostwax.ir.contract.artifact import CheckpointNote, Manifest
from lostwax.ir.contract.model import WeightTable
from lostwax.ir.contract.program import SEGMENTS
from lostwax.ir.contract.target import Target

_IR_NAMES = {"fp32": "f32"}
"""The user's word for a dtype, by the IR's."""


class ForcedError(Exception):
    """A --lowering option is malformed."""


Rule = tuple[str, str, str | None, bool]
"""Op, lowering, segment, and whether only steps that select positions are meant."""


def forced_rule(text: str) -> Rule:
    """`[SEGMENT:]OP=NAME` as a rule."""
    place, equals, name = text.partition("=")
    segment, colon, op = place.rpartition(":")
    if not equals or not name or not op or "." not in op:
        raise ForcedError(
            f"--lowering {text!r} is not [SEGMENT:]OP=NAME, such as"
            " decode:mla.attend=portable_attend_expanded"
        )
    if colon and segment not in SEGMENTS:
        raise ForcedError(
            f"--lowering {text!r}: the segment must be one of {', '.join(SEGMENTS)}, not"
            f" {segment!r}"
        )
    return op, name, segment if colon else None, False


def _rules(_: object, rules: list[str] | None) -> None:
    for rule in rules or []:
        forced_rule(rule)


def _named(phase: str) -> Parameter:
    """SGLang's option for a phase, under the name it has now and the one it had."""
    names = [f"--{indexer}-{phase}-backend" for indexer in ("dsa", "nsa")]
    return Parameter(name=names, group=MORE.group)


_SEGMENTS = {"prefill": ("extend",), "decode": ("decode", "draft")}
"""What a phase of SGLang's options is here."""


def selecting(phase: str, name: str | None) -> list[Rule]:
    """The rules that such an option stands for: it speaks of steps whose positions are selected."""
    if name is None:
        return []
    return [("mla.attend", name, segment, True) for segment in _SEGMENTS[phase]]


def compile(
    checkpoint: Checkpoint,
    /,
    *,
    out: Annotated[OutArtifact, Parameter(name=["-o", "--out"])],
    target: TargetName = DEFAULT_TARGET,
    dtype: Literal["fp32", "bf16"] = "bf16",
    max_context: Count | None = None,
    max_reqs: Count = 8,
    weights: Literal["model", "stored", "dequantised", "int8"] = "model",
    drafts: Drafts = 0,
    tp: Ranks = 1,
    kv_layout: Literal["model", "bf16", "fp32", "fp8_656", "fp8_576"] = "model",
    kv_scale: Annotated[Literal["fp32", "ue8m0"], MORE] = "fp32",
    indexer_dtype: Annotated[
        Literal["model", "bf16", "fp32", "fp8_fp32", "fp8_ue8m0"], MORE
    ] = "model",
    index_pages: Annotated[Literal["index_paged", "index_row"], MORE] = "index_paged",
    activations: Annotated[Literal["auto", "model", "fp8"], MORE] = "auto",
    max_tokens: Annotated[Count, MORE] = 512,
    batch_invariant: Annotated[Flag, MORE] = False,
    lowering: Annotated[list[str] | None, MORE, Parameter(negative=(), validator=_rules)] = None,
    dsa_prefill_backend: Annotated[str | None, _named("prefill")] = None,
    dsa_decode_backend: Annotated[str | None, _named("decode")] = None,
    budget: Annotated[Bytes | None, MORE] = None,
    records: Annotated[Records | None, MORE] = None,
    sku: Annotated[str | None, MORE] = None,
    dump_dir: Annotated[OutFolder | None, MORE] = None,
    json_: Annotated[Json, MORE] = False,
) -> None:
    """Compile a checkpoint into an artifact for one target; needs no device.

    Parameters
    ----------
    checkpoint
        A checkpoint's folder: config.json and safetensors in the official DeepSeek-V3.2 format.
    out
        The artifact folder; an artifact already there is replaced.
    target
        What to compile for, such as cpu or cuda-sm90a.
    dtype
        What to compute and to cache in. fp32: fp32 throughout, nothing quantised. bf16: bf16
        activations and cache, weights as stored.
    weights
        How the weights of products are held. model: as the dtype says. stored: FP8 as in the
        checkpoint, with fp32 too. dequantised: in the dtype. int8: with a scale a row, whatever
        the checkpoint stores; on the CPU bf16 rows meet them as 16-bit numbers, fp32 rows as they
        are.
    kv_layout
        How the latent cache is stored. model: in the dtype. fp8_656: 8-bit latents with a scale
        for 128, bf16 rope keys. fp8_576: everything 8-bit without scales.
    kv_scale
        How the scales of fp8_656 are rounded; ue8m0: up to powers of two.
    indexer_dtype
        How index queries and keys are held. fp8_fp32 and fp8_ue8m0 rotate and round both to 8
        bits; the name says how their scales are rounded. The official code has fp8_ue8m0.
    index_pages
        How 8-bit index keys lie. index_paged: a page's keys, then its scales. index_row: each
        token's scale behind its key.
    activations
        fp8: what meets an FP8 weight is rounded to 8 bits first, as the official code does. auto:
        the most exact whose decode step was measured within 6 % of the fastest; `explain` says it.
    tp
        Ranks: processes that run the artifact together, one a device, each with its slices of the
        weights. `serve` starts them.
    max_context
        Longest request in tokens (default: the model's bound, at most 8192).
    max_tokens
        Most rows of one extend step.
    max_reqs
        Most requests of one step.
    drafts
        Tokens that the MTP layer drafts at most (0 to 3) before the model verifies them.
    batch_invariant
        One lowering an op in all programs, with independent rows: an answer does then not depend
        on its neighbours, on chunking nor on drafting. Slower, and on the CPU only so far.
    lowering
        Force a choice: [SEGMENT:]OP=NAME, such as decode:mla.attend=portable_attend_expanded.
    dsa_prefill_backend
        As --lowering extend:mla.attend=NAME, such as flashmla_sparse, for steps that select
        positions: SGLang's option.
    dsa_decode_backend
        The same for decode and draft, such as flashmla_kv (with --kv-layout fp8_656).
    budget
        Most bytes of results, workspace and temporaries that one lowering may take (default: a
        32nd of the memory of the target's smallest device, or more for an op that takes no less).
    records
        A folder of tuning records that decide before the estimates do.
    sku
        The model of device whose records count, such as H200 (default: the one here).
    dump_dir
        Write the module's text after each pass here.
    json_
        Print the result as JSON on standard output.
    """
    if kv_scale != "fp32" and kv_layout != "fp8_656":
        raise OptionRefused(f"--kv-scale {kv_scale} goes with --kv-layout fp8_656")
    if index_pages != "index_paged" and not indexer_dtype.startswith("fp8"):
        raise OptionRefused(
            f"--index-pages {index_pages} goes with --indexer-dtype fp8_fp32 or fp8_ue8m0"
        )
    if sku is not None and records is None:
        raise OptionRefused("--sku goes with --records: it says whose records count")
    phases = Phases()
    manifest = compile_checkpoint(
        checkpoint,
        out,
        target=target,
        dtype=dtype,
        weights=weights,
        formats={
            "kv": _IR_NAMES.get(kv_layout, kv_layout),
            "kv_scale": kv_scale,
            "indexer": _IR_NAMES.get(indexer_dtype, indexer_dtype),
            "index_pages": index_pages,
            "activations": activations,
        },
        tp=tp,
        max_context=max_context,
        max_tokens=max_tokens,
        max_reqs=max_reqs,
        drafts=drafts,
        batch_invariant=batch_invariant,
        rules=(
            *map(forced_rule, lowering or []),
            *selecting("prefill", dsa_prefill_backend),
            *selecting("decode", dsa_decode_backend),
        ),
        budget=budget,
        records=records,
        sku=sku,
        dump_dir=dump_dir,
        phases=phases,
    )
    report = {
        "artifact": str(out),
        "digest": manifest.digest,
        "target": manifest.target.name,
        "dtype": dtype,
        "ranks": manifest.world_size,
        "drafts": manifest.limits.max_drafts,
        "batch_invariant": manifest.batch_invariant,
        "programs": len(manifest.programs),
        "kernels": len({k.binary for k in manifest.kernels}),
        "weight_bytes": manifest.weight_bytes,
        "arena_bytes": manifest.arena_bytes,
        "seconds": round(phases.total_s, 3),
    }
    if json_:
        from lostwax.backends.plan.fallbacks import predicted_steps
        from lostwax.backends.runtime.artifact_reader import ArtifactReader

        steps = predicted_steps(ArtifactReader(out))
        shares = {step.program: round(step.share, 4) for step in steps}
        result_json(report | {"portable_share": shares})
    else:
        result(
            f"{out}: {report['programs']} programs for {report['target']},"
            f" weights {manifest.weight_bytes / 2**20:.1f} MiB,"
            f" arena {manifest.arena_bytes / 2**20:.1f} MiB, digest {manifest.digest[:16]}"
        )


def note_of(checkpoint: Path, weights: WeightTable) -> CheckpointNote:
    """Where the checkpoint lies and what its files hold, for `serve` and `verify` to compare."""
    from lostwax.backends.runtime.checkpoint_content import content_digests

    sources = [s for each in weights.values() for s in each]
    files = {s.file for s in sources} | {s.scale.file for s in sources if s.scale}
    return CheckpointNote(path=str(checkpoint.resolve()), files=content_digests(checkpoint, files))


def compile_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    target: str,
    dtype: str,
    weights: str = "model",
    formats: dict[str, str] | None = None,
    tp: int = 1,
    max_context: int | None = None,
    max_tokens: int = 512,
    max_reqs: int = 8,
    drafts: int = 0,
    batch_invariant: bool = False,
    rules: Sequence[Rule] = (),
    budget: int | None = None,
    records: Path | None = None,
    sku: str | None = None,
    dump_dir: Path | None = None,
    phases: Phases | None = None,
) -> Manifest:
    """Open, capture, compile: the whole way, with phases on standard error."""
    phases = phases or Phases()
    # What can be refused is refused before torch is imported, which takes seconds.
    from lostwax.backends.artifact_writer import require_place
    from lostwax.backends.asked import Asked, require_possible
    from lostwax.backends.plan.sizes import Sizes
    from lostwax.backends.registry import find_target
    from lostwax.backends.runtime.torch_extensions import require_torch_loads
    from lostwax.frontend.checkpoint import PAGE_TOKENS, open_checkpoint
    from lostwax.server.gateway.tokenizer_file import read_tokenizer

    phases("read checkpoint headers")
    opened = open_checkpoint(checkpoint)
    backend, described = find_target(target)
    sizes = Sizes(
        max_context=max_context, max_tokens=max_tokens, max_reqs=max_reqs, max_drafts=drafts
    )
    asked = Asked(_IR_NAMES.get(dtype, dtype), sizes, tp)
    require_possible(asked, opened.facts(PAGE_TOKENS), described, has_mtp=opened.has_mtp)
    require_place(out)
    tokenizer = read_tokenizer(checkpoint)
    phases("import compiler")
    require_torch_loads()
    from lostwax.backends.plan.cover import Forced
    from lostwax.backends.plan.forced import require_known
    from lostwax.backends.records.measurements import open_measurements
    from lostwax.backends.runtime.sku import sku_here

    forced = tuple(Forced(*rule) for rule in rules)
    if forced:
        require_known(forced, backend.load(backend.lowerings)(described))
    measurements = open_measurements(records, lambda: sku or sku_here(backend, described))
    from lostwax.backends.compile import CompileOptions, compile_module
    from lostwax.backends.formats import Formats
    from lostwax.backends.plan.fallbacks import predicted_steps
    from lostwax.backends.plan.memory_plan import plan_memory
    from lostwax.backends.plan.memory_warnings import memory_warnings
    from lostwax.backends.runtime.artifact_reader import ArtifactReader
    from lostwax.frontend.capture import capture

    phases("capture")
    if opened.notice is not None:
        phases.note(opened.notice)
    captured = capture(opened)
    chosen, reason = {"activations": "auto"} | (formats or {}), ""
    if chosen["activations"] == "auto":
        choice = default_activations(backend, described, captured.weights, asked.dtype, weights)
        chosen["activations"] = choice.form
        if choice.reason:
            reason = f"{choice.form}: {choice.reason}"
            phases.note(f"activations {reason}")
    note_converted(described, captured.weights, asked.dtype, weights, phases)
    if chosen["activations"] == "fp8":  # scales are rounded as the checkpoint's were
        chosen = chosen | {"activations": f"fp8_{opened.scale_fmt or 'fp32'}"}
    options = CompileOptions(
        dtype=asked.dtype,
        weights=weights,
        formats=Formats(**chosen),
        sizes=sizes,
        batch_invariant=batch_invariant,
        activations_reason=reason,
        tp=tp,
        forced=forced,
        budget_bytes=budget,
        measurements=measurements,
        dump_dir=dump_dir,
    )
    manifest = compile_module(
        captured.module,
        captured.facts,
        captured.weights,
        target,
        out,
        options,
        tokenizer,
        phases,
        note_of(checkpoint, captured.weights),
    )
    phases.end()
    say(captured.report)
    if not described.host_memory:  # a host's own lowerings run on torch, too: nothing is lacking
        for step in predicted_steps(ArtifactReader(out)):
            for line in step.lines():
                say(line)
    for line in memory_warnings(plan_memory(out)):
        say(line)
    return manifest


def stores_fp8(weights: WeightTable) -> bool:
    """Whether a checkpoint has weights in fp8."""
    return any(s.dtype.startswith("f8") for sources in weights.values() for s in sources)


def note_converted(
    target: Target, weights: WeightTable, dtype: str, held: str, phases: Phases
) -> None:
    """Say what becomes of fp8 weights where the target has no fp8."""
    from lostwax.backends.formats import lacks_fp8

    is_asked = dtype == "bf16" and held != "dequantised"
    if lacks_fp8(target) and stores_fp8(weights) and is_asked:
        phases.note(
            f"weights stored as fp8 become int8 with a scale a row: {target.name} has no fp8; what"
            " they multiply is rounded to int8 with a scale a token"
        )


def default_activations(
    backend: Backend, target: Target, weights: WeightTable, dtype: str, held: str = "model"
) -> ActivationChoice:
    """The target's where weights are FP8 and held so, and the rest is bf16; else what the model
    has."""
    stays = dtype == "bf16" and held in ("model", "stored")
    if backend.activations is None or not stores_fp8(weights) or not stays:
        return ActivationChoice("model", "")
    choice: ActivationChoice = backend.load(backend.activations)(target)
    return choice
