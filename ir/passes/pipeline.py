"""The pipeline: a printable list of passes with a reason each, and its run. Knows no target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xdsl.dialects import builtin, func
from xdsl.passes import ModulePass
from xdsl.utils.arg_spec import parse_pipeline
from xdsl.utils.exceptions import ArgSpecParseError, VerifyException

from lostwax.ir.dialects import context
from lostwax.ir.passes import find_pass

REASONS: dict[str, str] = {
    "assign-formats": "capture is format-neutral; what follows needs dtypes, scales, cache layouts",
    "shard": "what a rank holds follows from the ops and, in their formats, the scale blocks",
    "localise": "what follows plans one rank's memory, and must see what ranks exchange",
    "specialise": "a program serves one segment under one guard",
    "clean-up": "what the segment and guard made dead must cost nothing",
}
"""Why each pass is there, by name."""

Pipeline = Sequence[ModulePass]


class PipelineError(ValueError):
    """A pipeline's text is wrong; the message shows where."""


def parse(text: str) -> tuple[ModulePass, ...]:
    """Passes of `assign-formats{dtype=bf16},specialise{segment=decode all=true},clean-up`."""
    try:
        specs = tuple(parse_pipeline(text))
    except ArgSpecParseError as error:  # a BaseException in xdsl
        raise PipelineError(str(error)) from None
    return tuple(find_pass(s.name).from_spec(s) for s in specs)


def rank_passes(tp: int) -> tuple[ModulePass, ...]:
    """The passes to one rank's module of `tp`; none for one rank."""
    from lostwax.ir.passes.localise import LocalisePass
    from lostwax.ir.passes.shard import ShardPass

    return () if tp == 1 else (ShardPass(tp=tp), LocalisePass())


def program_pipeline(
    *, dtype: str, segment: str, all: bool = False, weights: str = "model"
) -> tuple[ModulePass, ...]:
    """The passes from a captured module to the module of one program's segment and guard."""
    from lostwax.ir.passes.assign_formats import AssignFormatsPass
    from lostwax.ir.passes.clean_up import CleanUpPass
    from lostwax.ir.passes.specialise import SpecialisePass

    return (
        AssignFormatsPass(dtype=dtype, weights=weights),
        SpecialisePass(segment=segment, all=all),
        CleanUpPass(),
    )


def spec_text(step: ModulePass) -> str:
    """A pass as `parse` reads it, options at their defaults left out."""
    return str(step.spec()).replace('"', "")


def describe(pipeline: Pipeline) -> str:
    """One line a pass: what runs and why."""
    texts = [spec_text(p) for p in pipeline]
    width = max((len(t) for t in texts), default=0)
    lines = (f"{t:{width}}  {REASONS[p.name]}" for t, p in zip(texts, pipeline, strict=True))
    return "\n".join(lines)


def _verify(module: builtin.ModuleOp, moment: str) -> None:
    try:
        module.verify()
    except VerifyException as error:
        raise VerifyException(f"{moment}: {_culprit(module)}{error}") from error


def _culprit(module: builtin.ModuleOp) -> str:
    """Where the first wrong op is: `@function: op.name: `; xdsl's messages leave it out."""
    for function in module.ops:
        for op in function.walk():
            try:
                op.verify(verify_nested_ops=False)
            except VerifyException as error:
                where = f"@{function.sym_name.data}: " if isinstance(function, func.FuncOp) else ""
                return where if str(error).startswith(op.name) else f"{where}{op.name}: "
    return ""


def run(
    module: builtin.ModuleOp, pipeline: Pipeline, dump_dir: Path | None = None
) -> builtin.ModuleOp:
    """Apply the passes to the module in place, verified on both sides of each, and return it.

    `dump_dir` receives `00-input.mlir` and one `NN-name.mlir` after each pass.
    """
    ctx = context()

    def dump(number: int, name: str) -> None:
        if dump_dir is not None:
            dump_dir.mkdir(parents=True, exist_ok=True)
            (dump_dir / f"{number:02d}-{name}.mlir").write_text(str(module) + "\n")

    _verify(module, f"before {pipeline[0].name}" if pipeline else "input")
    dump(0, "input")
    for number, step in enumerate(pipeline, start=1):
        step.apply(ctx, module)
        _verify(module, f"after {step.name}")
        dump(number, step.name)
    return module
