"""Which ops of V3.2 at full width run on what, for every target: a plan, no kernel is compiled.

    python benchmarks/coverage_table.py [--targets NAME ...] [--formats official] [--out FILE.json]

A row is a region of ops of the largest step of a segment under a guard: the lowering that the plan
chose, whether its kernels are the project's own, a library's or portable ones (torch's operators,
made for no device), the share of the step's predicted time, and the state that a certificate can
have on a machine without the device (`backends/proof/attainable.py`), by the rule of `lostwax
certify --interpret`: what is chosen in large programs alone stays `compiled`. Where small ones
choose the same lowering, with other knobs or blocks, it is printed as `other sizes` and kept as
`otherwise`: its source is interpreted, and not at these sizes. What ran on an H200 is told in
`backends/cuda/README.md`.
Predictions are estimates from datasheets where nothing was measured: `backends/<target>/target.py`
says which. `--most` fails where a step has a larger share on portable lowerings than that. A target
without fp8 holds weights as int8, whatever `--formats` says.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lostwax.backends.compile import CompileOptions, plan_module
from lostwax.backends.formats import Formats, lacks_fp8
from lostwax.backends.plan.coverage import KINDS, StepCoverage, coverage
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.portable.lowerings import lowerings as portable_lowerings
from lostwax.backends.proof.attainable import Attainable, Evidence
from lostwax.backends.registry import find_target
from lostwax.frontend.capture import Captured, capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.record import State

CONFIG = Path(__file__).parent.parent / "examples" / "deepseek-v3.2.json"
TARGETS = (
    "cuda-sm90a", "cuda-sm100a", "rocm-gfx942", "rocm-gfx950", "ascend-910b", "ascend-910_93",
    "cpu",
)  # fmt: skip
FORMATS = {
    "official": Formats(kv="fp8_656", indexer="fp8_ue8m0", activations="fp8_ue8m0"),
    "fp8-activations": Formats(activations="fp8_ue8m0"),
    "bf16": Formats(),
}
SIZES = Sizes(max_context=16384, max_tokens=4096, max_reqs=128)
SAID: dict[State, str] = {
    "executed": "certified", "interpreted": "interpreted", "compiled": "compiled only",
}  # fmt: skip
OTHERWISE = "other sizes"
LEAST_SHARE = 0.002
"""Smaller parts of a step are left out of what is printed, not of the file, unless portable."""


def full_width(num_layers: int | None = None) -> Captured:
    """V3.2's configuration, captured without weights, of so many layers."""
    config = json.loads(CONFIG.read_text())
    return capture(parse_config(config | ({"num_hidden_layers": num_layers} if num_layers else {})))


def steps_of(
    captured: Captured, target: str, formats: Formats
) -> tuple[tuple[StepCoverage, Mapping[str, Evidence]], ...]:
    """The largest step of each segment and guard on one target, and its evidence by lowering."""
    backend, facts = find_target(target)
    options = CompileOptions(formats=Formats() if lacks_fp8(facts) else formats, sizes=SIZES)
    plan = plan_module(captured.module, captured.facts, target, options)
    portable = {low.name for low in portable_lowerings(plan.target)}
    of = {context.name: covers for context, covers in zip(plan.contexts, plan.covers, strict=True)}
    attainable = Attainable.of(plan.contexts, plan.covers, backend)
    return tuple(
        (step, attainable.evidence(of[step.program]))
        for step in coverage(plan.contexts, plan.covers, portable, each_guard=True)
    )


def said(evidence: Evidence) -> str:
    """For people."""
    return OTHERWISE if evidence.otherwise else SAID[evidence.state]


def lines(target: str, step: StepCoverage, evidence: Mapping[str, Evidence]) -> Iterator[str]:
    """A table for people."""
    shares = ", ".join(f"{kind} {step.share(kind):.1%}" for kind in KINDS)
    yield f"{target} {step.program}: predicted {step.us / 1e3:.2f} ms: {shares}"
    for region in step.regions:
        if region.share >= LEAST_SHARE or region in step.gaps:
            state = said(evidence[region.lowering])
            yield f"  {region.share:6.2%} {region.kind:<8} {state:<13} {region.lowering:<36} " + (
                " + ".join(region.ops)
            )
        if region in step.gaps:
            yield from (f"         {name}: {reason}" for name, reason in region.refusals)


def as_data(step: StepCoverage, evidence: Mapping[str, Evidence]) -> dict[str, Any]:
    """What is kept of a step; refusals of gaps alone."""
    regions: list[dict[str, Any]] = []
    for region in step.regions:
        kept = asdict(region) | asdict(evidence[region.lowering])
        kept["share"] = round(region.share, 5)
        if region not in step.gaps:
            del kept["refusals"]
        regions.append(kept)
    return asdict(step) | {"us": round(step.us, 1), "regions": regions}


def main() -> None:
    """The command line; exits with 1 where portable lowerings have more than `--most`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--formats", choices=FORMATS, default="official")
    parser.add_argument("--segments", nargs="+", help="only these: extend, decode, pick, ...")
    parser.add_argument("--most", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    captured, report, worst = full_width(), dict[str, Any](), 0.0
    for target in options.targets:
        steps = steps_of(captured, target, FORMATS[options.formats])
        asked = options.segments
        chosen = [(s, found) for s, found in steps if asked is None or s.segment in asked]
        report[target] = [as_data(step, found) for step, found in chosen]
        for step, found in chosen:
            worst = max(worst, sum(gap.share for gap in step.gaps))
            for line in lines(target, step, found):
                print(line, flush=True)
    if options.out is not None:
        kept = {
            "command": " ".join(["python", "benchmarks/coverage_table.py", *sys.argv[1:]]),
            "steps": report,
        }
        options.out.write_text(json.dumps(kept, indent=1) + "\n")
    if worst > options.most:
        raise SystemExit(f"{worst:.1%} of a step on portable lowerings, at most {options.most:.1%}")


if __name__ == "__main__":
    main()
