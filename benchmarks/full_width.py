"""Layers of V3.2 at its real widths on a GPU: what boots, and the memory beside the plan.

On any machine: `python benchmarks/full_width.py compile --out DIR` compiles for a checkpoint of
which only the headers exist, of five layers or `--layers 61 --dense 3`. On the GPU machine `python
benchmarks/full_width.py run DIR --checkpoint NEW_DIR --out FILE` writes random weights (7 GB for
five), boots as `lostwax serve` does, runs the largest steps, and prints each part of the memory
plan beside what the device has allocated.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import time
from math import prod
from pathlib import Path
from typing import Any, cast

import torch
from generate import decode, prefill, start
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]
from step_roofline import layers_of

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.boot_check import Admission
from lostwax.backends.runtime.load import Runtime, load
from lostwax.ir.contract.scale_layout import FP8_BLOCKS, scale_shape
from lostwax.ir.contract.step_plan import StepPlan
from lostwax.ir.contract.step_state import Enter
from lostwax.ir.contract.weights import Source

CONFIG = Path(__file__).parent.parent / "examples" / "deepseek-v3.2.json"
TINY = Path(__file__).parent.parent / "models" / "tiny" / "weights"
"""Whose tokenizer is taken: its ids are among the vocabulary's."""
FIVE = {
    "num_hidden_layers": 5, "first_k_dense_replace": 1, "n_routed_experts": 32,
    "num_experts_per_tok": 8, "vocab_size": 16160, "num_nextn_predict_layers": 0,
}  # fmt: skip
"""One dense layer and four of experts: every width is V3.2's own but the number of experts and
the vocabulary, which are those of one rank of eight."""
NAMES = {"f8E4M3FN": "F8_E4M3", "bf16": "BF16", "f32": "F32"}
KINDS = {"f8E4M3FN": torch.float8_e4m3fn, "bf16": torch.bfloat16, "f32": torch.float32}
BYTES = {"f8E4M3FN": 1, "bf16": 2, "f32": 4}


def config_of(layers: int, dense: int, *, has_mtp: bool = False) -> dict[str, Any]:
    """V3.2's, of so many layers, the first `dense` of them without experts, and its MTP layer."""
    config = json.loads(CONFIG.read_text()) | FIVE
    made = {"num_hidden_layers": layers, "first_k_dense_replace": dense}
    return config | made | {"num_nextn_predict_layers": int(has_mtp)}


def write_headers(folder: Path, config: dict[str, Any]) -> None:
    """A checkpoint of headers: its files are as long as real ones and hold nothing."""
    from lostwax.frontend.config import parse_config
    from lostwax.frontend.tensors import SCALE_SUFFIX, layer_weights, model_weights, mtp_weights

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    made: list[tuple[str, str, tuple[int, ...]]] = []  # name, dtype, shape
    parsed = parse_config(config)
    mtp = (
        w for i in parsed.mtp_layers for w in (*layer_weights(parsed, i), *mtp_weights(parsed, i))
    )
    for weight in (*model_weights(parsed), *mtp):
        for name in weight.tensors:
            stored = "f32" if name.endswith("e_score_correction_bias") else "bf16"
            made.append((name, "f8E4M3FN" if weight.quantisable else stored, weight.shape))
            if weight.quantisable:
                made.append((name + SCALE_SUFFIX, "f32", scale_shape(FP8_BLOCKS, weight.shape)))
    header: dict[str, Any] = {}
    offset = 0
    for name, dtype, shape in made:
        end = offset + BYTES[dtype] * prod(shape)
        header[name] = {"dtype": NAMES[dtype], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)


def compile_layers(options: argparse.Namespace) -> None:
    """Compile for the headers; nothing is noted of their content, which does not exist."""
    from lostwax.backends.compile import CompileOptions, compile_module
    from lostwax.backends.formats import Formats
    from lostwax.backends.plan.cover import Forced
    from lostwax.backends.plan.sizes import Sizes
    from lostwax.cli.compile import forced_rule, selecting
    from lostwax.frontend.capture import capture
    from lostwax.frontend.checkpoint import open_checkpoint
    from lostwax.server.gateway.tokenizer_file import read_tokenizer

    config = config_of(options.layers, options.dense, has_mtp=options.drafts > 0)
    folder = options.out.with_name(options.out.name + ".headers")
    write_headers(folder, config)
    captured = capture(open_checkpoint(folder))
    sizes = Sizes(
        options.max_context, options.max_tokens, options.max_reqs, max_drafts=options.drafts
    )
    formats = Formats(
        kv=options.kv_layout, indexer=options.indexer_dtype, activations=options.activations
    )
    rules = (
        *map(forced_rule, options.lowering),
        *selecting("prefill", options.dsa_prefill_backend),
        *selecting("decode", options.dsa_decode_backend),
    )
    forced = tuple(Forced(*rule) for rule in rules)
    compiled = compile_module(
        captured.module, captured.facts, captured.weights, options.target, options.out,
        CompileOptions(sizes=sizes, formats=formats, forced=forced),
        tokenizer=read_tokenizer(TINY),
    )  # fmt: skip
    print(f"{options.out}: {len(compiled.programs)} programs, digest {compiled.digest[:16]}")


def _random(source: Source, name: str, is_scale: bool) -> torch.Tensor:
    """Finite numbers of a weight's usual size."""
    if is_scale:
        shape = tuple(-(-n // 128) for n in source.shape)
        return torch.full(shape, 2.0**-13)
    if source.dtype == "f8E4M3FN":
        bits = torch.randint(0, 0x7E, source.shape, dtype=torch.uint8, device="cuda")
        sign = torch.randint(0, 2, source.shape, dtype=torch.uint8, device="cuda") << 7
        return (bits | sign).view(torch.float8_e4m3fn).cpu()
    if len(source.shape) == 1:
        return torch.ones(source.shape, dtype=KINDS[source.dtype])
    return (0.02 * torch.randn(source.shape, device="cuda")).to(KINDS[source.dtype]).cpu()


def write_weights(artifact: Path, folder: Path) -> None:
    """Random tensors under the names that the artifact's plan reads."""
    plan = ArtifactReader(artifact).weight_plan()
    files: dict[str, dict[str, torch.Tensor]] = {}
    for sources in plan.sources.values():
        for source in sources:
            held = files.setdefault(source.file, {})
            held[source.tensor] = _random(source, source.tensor, is_scale=False)
            if source.scale:
                scales = files.setdefault(source.scale.file, {})
                scales[source.scale.tensor] = _random(source, source.scale.tensor, is_scale=True)
    folder.mkdir(parents=True)
    manifest = ArtifactReader(artifact).manifest
    dense, experts = layers_of(manifest)
    config = config_of(dense + experts, dense, has_mtp=manifest.limits.max_drafts > 0)
    (folder / "config.json").write_text(json.dumps(config))
    for file, found in files.items():
        save_file(found, folder / file)


def _at_most(runtime: Runtime, seed: int) -> dict[str, int]:
    """Bytes that the largest extend and decode steps hold beyond what the load allocated."""
    limits, held = runtime.limits, torch.cuda.memory_allocated()
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, int] = {}
    context = min(limits.max_context - 8, (limits.num_pages - 1) // limits.max_reqs * 64 - 8)
    drawn = torch.randint(2, limits.vocab_size, (context,), generator=generator)
    prompt = cast("list[int]", drawn.tolist())
    sequences = start(runtime, [prompt] * limits.max_reqs, 4)
    for entry, step in (
        ("extend", lambda: [prefill(runtime, each) for each in sequences]),
        ("every_extend_program", lambda: _every_extend(runtime)),
        ("decode", lambda: decode(runtime, sequences)),
    ):
        torch.cuda.reset_peak_memory_stats()
        step()
        found[entry] = torch.cuda.max_memory_allocated() - held
    return found


def _every_extend(runtime: Runtime) -> None:
    """One full step of each extend program: a request whose rows end where its pages do."""
    page_tokens, limits = runtime.limits.page_tokens, runtime.limits
    for ref in runtime.manifest.programs:
        if ref.segment != "extend":
            continue
        end = min(ref.bucket.pages * page_tokens, limits.max_context)
        end = ref.guard.longest(end)
        count = min(ref.bucket.tokens, end)
        pages = tuple(range(1, 1 + -(-end // page_tokens)))
        plan = StepPlan(
            entry="extend",
            seqs=(1,),
            counts=(count,),
            ends=(end,),
            tokens=(2,) * count,
            entering=(Enter(1, pages, end - count, end, end),),
            logits=((count - 1, 1),),
        )
        if runtime.programs.pick(plan)[0][0] == ref:
            runtime.run(plan)


def run_layers(options: argparse.Namespace) -> None:
    """Write weights, boot, run the largest steps, print the plan beside what was allocated."""
    from lostwax.backends.plan.memory_plan import plan_memory

    artifact, lines = options.artifact, list[str]()
    begin = time.perf_counter()
    if not options.checkpoint.exists():
        write_weights(artifact, options.checkpoint)
    written_s = time.perf_counter() - begin
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    begin = time.perf_counter()
    admission = Admission(options.certificates, False, lines.append)
    runtime = load(
        artifact, checkpoint=options.checkpoint, num_pages=options.pages, admission=admission
    )
    loaded_s = time.perf_counter() - begin
    held = torch.cuda.memory_allocated() - before
    beyond = _at_most(runtime, 0)
    plan = plan_memory(artifact, options.pages)
    free, total = torch.cuda.mem_get_info()
    planned = plan.total - plan.host_calls - plan.graph_bytes
    report = {
        "command": " ".join(["python", "benchmarks/full_width.py", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "artifact": runtime.manifest.digest,
        "programs": len(runtime.manifest.programs),
        "weights_written_s": round(written_s, 1),
        "booted_s": round(loaded_s, 1),
        "boot": lines,
        "planned_mib": {
            "held": planned >> 20,
            "host_calls": plan.host_calls >> 20,
            "graphs": plan.graph_bytes >> 20,
            "arena": plan.arena >> 20,
        },
        "seen_mib": {
            "held": held >> 20,
            **{f"beyond_in_{name}": count >> 20 for name, count in beyond.items()},
            "whole_device_in_use": (total - free) >> 20,
        },
        "held_of_planned": round(held / planned, 4),
        "peak_of_planned": round((held + max(beyond.values())) / (planned + plan.host_calls), 4),
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser()
    modes = parser.add_subparsers(required=True)
    compiling = modes.add_parser("compile")
    compiling.add_argument("--out", type=Path, required=True)
    compiling.add_argument("--target", default="cuda-sm90a")
    compiling.add_argument("--layers", type=int, default=FIVE["num_hidden_layers"])
    compiling.add_argument("--dense", type=int, default=FIVE["first_k_dense_replace"])
    compiling.add_argument("--max-context", type=int, default=16384)
    compiling.add_argument("--max-tokens", type=int, default=2048)
    compiling.add_argument("--max-reqs", type=int, default=16)
    compiling.add_argument("--drafts", type=int, default=0)
    compiling.add_argument("--kv-layout", default="model")
    compiling.add_argument("--indexer-dtype", default="model")
    compiling.add_argument("--activations", default="model")
    compiling.add_argument("--lowering", action="append", default=[], help="[SEGMENT:]OP=NAME")
    compiling.add_argument("--dsa-prefill-backend", help="a lowering, as `lostwax compile` has it")
    compiling.add_argument("--dsa-decode-backend", help="a lowering, as `lostwax compile` has it")
    compiling.set_defaults(work=compile_layers)
    running = modes.add_parser("run")
    running.add_argument("artifact", type=Path)
    running.add_argument("--checkpoint", type=Path, required=True)
    running.add_argument("--certificates", type=Path)
    running.add_argument("--pages", type=int, default=2049)
    running.add_argument("--out", type=Path, required=True)
    running.set_defaults(work=run_layers)
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
