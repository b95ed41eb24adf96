"""What a decode step costs on the CPU as contexts and batches grow, beside the bytes that it reads.

    python benchmarks/cpu_growth.py [--contexts 1024 4096 32768] [--batches 1 8] [--dtype fp32]
        [--threads 2] [--out FILE]

A random checkpoint of examples/bench-100m.json with the published `index_topk` of 2,048. The
requests of a point have the same prompt but for its last token, so that it is run once and their
pages are shared; each reads them for itself. `bytes` is what a step has to read: the weights (those
experts that so many rows choose on average), each request's index keys and the latents that it
selects. `roofline` is the time of that at the rate of plain sums over a large buffer in this run.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from cpu_peer import read_rate

from lostwax.backends.runtime.load import load
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Cancel, Output, Submit
from lostwax.server.engine.options import EngineOptions

CONFIG = Path(__file__).parents[1] / "examples" / "bench-100m.json"
INDEX_TOPK = 2048
VALUE_BYTES = {"fp32": 4, "bf16": 2}
STEPS = 24


def weight_bytes(config: dict[str, Any], batch: int, value: int) -> float:
    """What a step of `batch` rows reads of the weights: head included, one row of the embedding."""
    c = config
    heads, latent, rope = c["num_attention_heads"], c["kv_lora_rank"], c["qk_rope_head_dim"]
    qk, hidden, q_rank = c["qk_nope_head_dim"] + rope, c["hidden_size"], c["q_lora_rank"]
    attention = hidden * (q_rank + latent + rope) + q_rank * heads * qk
    attention += latent * heads * (c["qk_nope_head_dim"] + c["v_head_dim"])
    attention += heads * c["v_head_dim"] * hidden
    index = c["index_n_heads"] * c["index_head_dim"]
    indexer = q_rank * index + hidden * (c["index_head_dim"] + c["index_n_heads"])
    dense = 3 * hidden * c["intermediate_size"]
    experts, each = c["n_routed_experts"], 3 * hidden * c["moe_intermediate_size"]
    chosen = experts * (1 - (1 - c["num_experts_per_tok"] / experts) ** batch)
    moe = hidden * experts + each * (chosen + c["n_shared_experts"])
    layers, first = c["num_hidden_layers"], c["first_k_dense_replace"]
    blocks = layers * (attention + indexer) + first * dense + (layers - first) * moe
    return value * (blocks + hidden * c["vocab_size"])


def cache_bytes(config: dict[str, Any], context: int, value: int) -> float:
    """What one request reads of its caches in a step."""
    latent = config["kv_lora_rank"] + config["qk_rope_head_dim"]
    selected = min(context, config["index_topk"]) * latent
    keys = context * config["index_head_dim"] if context > config["index_topk"] else 0
    return value * config["num_hidden_layers"] * (keys + selected)


def point(core: EngineCore, prompt: list[int], batch: int) -> float:
    """Seconds of the median decode step of `batch` requests behind the prompt."""
    names = [f"{len(prompt)}-{batch}-{i}" for i in range(batch)]
    begun: set[str] = set()
    for i, name in enumerate(names):
        asked = [*prompt[:-1], 4 + i]
        core.handle(Submit(request=name, prompt=asked, max_tokens=2 * STEPS, ignore_eos=True))
        while name not in begun:  # the next finds its pages
            begun |= {e.request for e in core.step() if isinstance(e, Output)}
    seconds = list[float]()
    for _ in range(STEPS):
        begin = time.perf_counter()
        core.step()
        seconds.append(time.perf_counter() - begin)
    for name in names:
        core.handle(Cancel(request=name))
    while core.has_work:
        core.step()
    return statistics.median(seconds[STEPS // 3 :])


def measure(options: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Make and compile the model, then every point."""
    config = {**json.loads(CONFIG.read_text()), "index_topk": INDEX_TOPK}
    (work / "config.json").write_text(json.dumps(config))
    checkpoint, artifact = work / "checkpoint", work / "artifact"
    longest = max(options.contexts) + 4 * STEPS
    made = ["--config", str(work / "config.json"), "--format", options.dtype]
    sizes = ["--max-context", str(longest), "--max-reqs", str(max(options.batches))]
    for command in (
        ["new-checkpoint", *made, "-o", str(checkpoint)],
        ["compile", str(checkpoint), "--dtype", options.dtype, *sizes, "-o", str(artifact)],
    ):
        subprocess.run([sys.executable, "-m", "lostwax", *command], check=True, stdout=sys.stderr)
    runtime = load(artifact, checkpoint=checkpoint, threads=options.threads)
    core = EngineCore(runtime, EngineOptions())
    core.warm_up()
    rng = random.Random(0)
    text = [rng.randrange(4, config["vocab_size"]) for _ in range(max(options.contexts))]
    rate, value = read_rate(), VALUE_BYTES[options.dtype]
    rows: list[dict[str, Any]] = []
    for context in sorted(options.contexts):
        for batch in options.batches:
            seconds = point(core, text[:context], batch)
            size = weight_bytes(config, batch, value) + batch * cache_bytes(config, context, value)
            row = {"batch": batch, "context": context, "ms": round(1e3 * seconds, 3)}
            row |= {"bytes": round(size), "roofline_ms": round(1e3 * size / rate, 3)}
            rows.append(row | {"of_roofline": round(size / rate / seconds, 2)})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    rows.append({"read_gbps": [round(r / 1e9, 1) for r in (rate, read_rate())]})
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--contexts", nargs="+", type=int, default=[1024, 4096, 32768])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--dtype", choices=list(VALUE_BYTES), default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        rows = measure(options, Path(work))
    report = {
        "command": " ".join(["python", "benchmarks/cpu_growth.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {options.threads} threads",
        "rows": rows,
    }
    text = json.dumps(report, indent=1) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
