"""From a captured module to an artifact for one target. Reads no checkpoint, needs no device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Protocol

from msgspec import structs
from threadpoolctl import threadpool_limits
from xdsl.dialects import builtin, func
from xdsl.printer import Printer

import lostwax
from lostwax.backends.artifact_writer import atomic_folder, require_replaceable, seal, write
from lostwax.backends.asked import Asked, require_possible
from lostwax.backends.formats import Formats, typed
from lostwax.backends.lowering import Lowering
from lostwax.backends.plan.attention_heads import attention_heads
from lostwax.backends.plan.batch_invariance import OnePrice, require_invariant
from lostwax.backends.plan.choose_storage import choose_storage, covers_under
from lostwax.backends.plan.cover import (
    Budget,
    CandidateSet,
    Cover,
    Forced,
    Site,
    find_candidates,
    find_sites,
)
from lostwax.backends.plan.emit import Build, emit_program, zeroed_bytes
from lostwax.backends.plan.forced import require_known
from lostwax.backends.plan.kernel_builder import building
from lostwax.backends.plan.kernel_requests import KernelRequests
from lostwax.backends.plan.link import link_program
from lostwax.backends.plan.needed_programs import needed_programs
from lostwax.backends.plan.prepared_price import with_prepared
from lostwax.backends.plan.price import Measurements, NoMeasurements
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.plan.report_choices import region_choices
from lostwax.backends.plan.sizes import ProgramSpec, Sizes, program_specs
from lostwax.backends.plan.state_rows import StateRows
from lostwax.backends.plan.storage import Storage
from lostwax.backends.plan.variants import Variant, specialise_variants
from lostwax.backends.plan.weight_plan import plan_weights, planes_of, weight_bytes, weight_groups
from lostwax.backends.portable.lowerings import lowerings as portable_lowerings
from lostwax.backends.proof.make_probes import ProbeMaker, link_probes
from lostwax.backends.registry import Backend, find_target
from lostwax.backends.runtime.usable_cores import usable_cores
from lostwax.ir.contract.artifact import (
    CHECKPOINT,
    SCHEMA,
    CheckpointNote,
    Limits,
    Manifest,
    ProgramRef,
)
from lostwax.ir.contract.canonical import canonical, canonical_json
from lostwax.ir.contract.choice import Choices
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.model import ModelFacts, WeightTable
from lostwax.ir.contract.probe import PROBES, Probes
from lostwax.ir.contract.program import Launch, Program
from lostwax.ir.contract.step_layout import LAYOUT, StepLayout
from lostwax.ir.contract.target import Target
from lostwax.ir.passes.pipeline import rank_passes
from lostwax.ir.passes.specialise import FUNCTIONS

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class CompileOptions:
    """What the user may set. `budget_bytes` bounds what one region may take: results, workspace
    and what its calls allocate (None: a share of the target's memory).

    `weights`: `stored` keeps FP8 weights as they are, `dequantised` makes them the model dtype,
    `int8` gives those of products, kv_b and the head int8 with a scale a row; `model` is what
    the dtype says: dequantised in f32, else stored.
    `tp` ranks run the artifact together, each with its slices of the weights.
    `batch_invariant`: one lowering an op in all programs, whose rows are independent.
    Kernels are compiled on up to `jobs` processes (None: as many as cores may be used); what is
    written is the same. `activations_reason` is for `explain`, where their form is a default.
    `extra_lowerings` and `extra_backends` join those that are installed.
    """

    dtype: str = "bf16"
    weights: str = "model"
    formats: Formats = field(default_factory=Formats)
    sizes: Sizes = field(default_factory=Sizes)
    forced: tuple[Forced, ...] = ()
    budget_bytes: int | None = None
    measurements: Measurements = field(default_factory=NoMeasurements)
    tp: int = 1
    batch_invariant: bool = False
    activations_reason: str = ""
    jobs: int | None = None
    extra_lowerings: tuple[Lowering, ...] = ()
    extra_backends: tuple[Backend, ...] = ()
    dump_dir: Path | None = None


BUDGET_SHARE = 32
"""One op takes at most this part of the device's memory, if it can: 2.5 GiB of 80, where 8,192 rows
of index logits over 160k positions would take 5. Weights and caches want the rest."""


def budget_of(options: CompileOptions, target: Target) -> Budget:
    """What one region may take: strictly where the user says it, else where there is a choice."""
    if options.budget_bytes is not None:
        return Budget(options.budget_bytes)
    return Budget(target.memory_bytes // BUDGET_SHARE, strict=False)


def module_text(module: builtin.ModuleOp) -> str:
    """The module as `.mlir` text."""
    stream = StringIO()
    Printer(stream).print_op(module)
    return stream.getvalue() + "\n"


@dataclass(frozen=True)
class _Plan:
    contexts: tuple[ProgramContext, ...]
    candidates: tuple[dict[str, CandidateSet], ...]


def _plan_candidates(
    modules: dict[Variant, builtin.ModuleOp],
    specs: Iterable[ProgramSpec],
    states: StateRows,
    target: Target,
    lowerings: tuple[Lowering, ...],
    options: CompileOptions,
) -> _Plan:
    """Match and price every lowering in every program; sites are found once a variant."""
    sites: dict[tuple[Variant, str], list[Site]] = {}
    contexts: list[ProgramContext] = []
    candidates: list[dict[str, CandidateSet]] = []
    one_price = OnePrice() if options.batch_invariant else None
    for spec in specs:
        variant = Variant.of(spec)
        context = ProgramContext(
            modules[variant], target, spec.segment, spec.bucket, spec.guard, states
        )
        found: dict[str, CandidateSet] = {}
        for name, block in context.blocks.items():
            if (variant, name) not in sites:
                sites[variant, name] = find_sites(block, lowerings)
            found[name] = find_candidates(
                context,
                block,
                sites[variant, name],
                options.measurements,
                options.forced,
                budget_of(options, target),
                one_price,
            )
        contexts.append(context)
        candidates.append(found if one_price else with_prepared(found))
    return _Plan(tuple(contexts), tuple(candidates))


def _emit(
    contexts: Iterable[ProgramContext],
    covers: list[dict[str, Cover]],
    storage: dict[str, Storage],
    build: Build,
) -> list[Program]:
    """Every program; `build` takes the sources of kernels that lowerings ask for."""
    return [
        emit_program(context, {name: covers[i][name] for name in context.blocks}, storage, build)
        for i, context in enumerate(contexts)
    ]


class StepAround(Protocol):
    """Launches that stand around a program's layers where the device keeps the state."""

    def before(self, program: Program) -> tuple[Launch, ...]:
        """What makes the program's inputs."""
        ...

    def behind(self, program: Program) -> tuple[Launch, ...]:
        """What takes over the program's results."""
        ...


def _with_step(program: Program, around: StepAround) -> Program:
    prepare = (*around.before(program), *program.prepare)
    return structs.replace(program, prepare=prepare, finish=around.behind(program))


def _requires(covers: Iterable[dict[str, Cover]]) -> dict[str, tuple[str, ...]]:
    """Packages that the chosen lowerings call, with their lowerings' names in order."""
    chosen = [p.candidate.lowering for c in covers for cover in c.values() for p in cover.chosen]
    pairs = {(package, low.name) for low in chosen if low for package in low.requires}
    return {p: tuple(sorted(n for q, n in pairs if q == p)) for p in sorted(p for p, _ in pairs)}


def _written_for(backend: Backend) -> dict[str, str]:
    """Versions of what the target's host functions call, None of them of this machine."""
    return backend.load(backend.written_for)() if backend.written_for else {}


@dataclass(frozen=True)
class ModulePlan:
    """What runs which ops in every program, before anything is emitted or compiled.

    `covers` has one entry a context; `storage` is by block kind, `losses` by weight group.
    """

    backend: Backend
    target: Target
    limits: Limits
    modules: dict[Variant, builtin.ModuleOp]
    states: StateRows
    contexts: tuple[ProgramContext, ...]
    covers: list[dict[str, Cover]]
    groups: dict[str, tuple[str, ...]]
    storage: dict[str, Storage]
    losses: dict[str, dict[str, float]]


def plan_module(
    module: builtin.ModuleOp,
    facts: ModelFacts,
    target_name: str,
    options: CompileOptions | None = None,
    progress: Progress = lambda phase: None,
) -> ModulePlan:
    """Choose programs, weight forms and lowerings for a captured module; compiles no kernel.

    Raises NoCover, UnknownTarget, UnknownLowering, UnsupportedDtype, UnsupportedFormat,
    UnsupportedRanks, ShardRefused and SizeError.
    """
    options = options or CompileOptions()
    backend, target = find_target(target_name, options.extra_backends)
    steps = {f.sym_name.data for f in module.ops if isinstance(f, func.FuncOp)}
    asked = Asked(options.dtype, options.sizes, options.tp)
    limits = require_possible(asked, facts, target, has_mtp=FUNCTIONS["draft"] in steps)
    lowerings: tuple[Lowering, ...] = backend.load(backend.lowerings)(target)
    lowerings = (*lowerings, *options.extra_lowerings)
    require_known(options.forced, lowerings)

    progress("assign formats, specialise")
    formats = options.formats.assign(options.dtype, options.weights, target)
    formatted = typed(module, (formats, *rank_passes(options.tp)), options.dump_dir)
    heads = attention_heads(formatted)
    specs = program_specs(
        facts,
        limits,
        max(low.contexts_a_row for low in lowerings),
        lambda rows: max(low.selecting_contexts(rows, heads) for low in lowerings),
    )
    variants = map(Variant.of, specs)
    modules = specialise_variants(formatted, variants, options.dump_dir)

    progress("match and price lowerings")
    states = StateRows.of(limits, [spec.bucket for spec in specs])
    plan = _plan_candidates(modules, specs, states, target, lowerings, options)

    progress("choose weight forms and covers")
    groups = weight_groups(plan.contexts)
    storage: dict[str, Storage] = {}
    losses: dict[str, dict[str, float]] = {}
    covers: list[dict[str, Cover]] = [{} for _ in plan.contexts]
    for group, kinds in groups.items():
        members = [(i, f[k]) for i, f in enumerate(plan.candidates) for k in kinds if k in f]
        chosen, losses[group] = choose_storage([f for _, f in members])
        for (i, f), cov in zip(members, covers_under([f for _, f in members], chosen), strict=True):
            covers[i][f.block.name] = cov
        storage.update({kind: chosen for kind in kinds})
    kept = needed_programs(plan.contexts, covers)
    contexts, covers = tuple(plan.contexts[i] for i in kept), [covers[i] for i in kept]
    if options.batch_invariant:
        require_invariant(covers, groups)
    return ModulePlan(
        backend, target, limits, modules, states, contexts, covers, groups, storage, losses
    )


def compile_module(
    module: builtin.ModuleOp,
    facts: ModelFacts,
    weights: WeightTable,
    target_name: str,
    out: Path,
    options: CompileOptions | None = None,
    tokenizer: bytes | None = None,
    progress: Progress = lambda phase: None,
    note: CheckpointNote | None = None,
) -> Manifest:
    """Compile a captured module into the artifact folder `out` and return its manifest.

    `weights` may be empty (a capture without a checkpoint): then the artifact plans but cannot be
    loaded. `tokenizer` is kept as it is, `note` beside the digest. Raises NoCover, UnknownTarget,
    UnknownLowering, UnsupportedDtype, UnsupportedFormat, UnsupportedRanks, ShardRefused, SizeError,
    ArtifactExists, ArtifactUnwritable, CompileRuns and KernelCompileError.
    """
    options = options or CompileOptions()
    require_replaceable(out)
    plan = plan_module(module, facts, target_name, options, progress)
    backend, target, limits, states = plan.backend, plan.target, plan.limits, plan.states
    contexts, covers, groups, storage = plan.contexts, plan.covers, plan.groups, plan.storage
    portable = frozenset(low.name for low in portable_lowerings(target))
    with atomic_folder(out) as folder:
        progress("emit programs")
        requests = KernelRequests(backend, target)
        programs = _emit(contexts, covers, storage, requests.request)
        around: StepAround | None = None
        # Hosts that run a model together agree upon picks before the state takes them over.
        agree = target.host_memory and options.tp > 1
        if backend.step is not None and not agree:
            around = backend.load(backend.step)(
                StepLayout.of(limits), facts.page_tokens, target, requests.request
            )
        if around is not None:
            programs = [_with_step(program, around) for program in programs]
        progress("compile kernels, make golden probes")
        sources, jobs = requests.sources, options.jobs or usable_cores()
        # References are many small products: more threads would only wait for each other, and for
        # the compilers beside them.
        one_thread = threadpool_limits(1, user_api="blas")
        with one_thread, building(backend, target, folder / "kernels", sources, jobs) as builder:
            maker = ProbeMaker(facts, sources)
            for i in range(len(programs)):
                maker.add(i, covers[i], storage)
            names = [program.name for program in programs]
            unlinked = maker.make(names) if target.replay != "none" else ()
            built = builder.finish()
        programs = [link_program(program, built.by_source) for program in programs]
        made = link_probes(unlinked, built.by_source)
        write(folder, PROBES, canonical_json(Probes(probes=made.probes)))
        progress("write artifact")
        write(folder, "graphs/captured.mlir", module_text(module).encode())
        for variant, specialised in plan.modules.items():
            write(folder, f"graphs/{variant.name}.mlir", module_text(specialised).encode())
        refs: list[ProgramRef] = []
        for program in programs:
            file = f"programs/{program.name}.json"
            write(folder, file, canonical_json(program))
            refs.append(
                ProgramRef(
                    file=file,
                    segment=program.segment,
                    bucket=program.bucket,
                    guard=program.guard,
                    arena_bytes=program.arena_bytes,
                )
            )
        weight_plan = plan_weights(contexts, programs, groups, storage, weights)
        write(folder, "weights.json", canonical(weight_plan))
        choices = Choices(
            programs={
                program.name: tuple(
                    c
                    for name in covers[i]
                    for c in region_choices(covers[i][name], storage[name], made.ids, portable)
                )
                for i, program in enumerate(programs)
            },
            storage={group: tuple(s.name for s in weight_plan.stored[group]) for group in groups},
            storage_losses=plan.losses,
            activations=options.activations_reason,
        )
        write(folder, "choices.json", canonical(choices))
        if note is not None:
            write(folder, CHECKPOINT, canonical(note))
        if tokenizer is not None:
            write(folder, "tokenizer.json", tokenizer)
        manifest = Manifest(
            schema=SCHEMA,
            digest="",
            model=facts,
            target=target,
            dtype=options.dtype,
            world_size=options.tp,
            limits=limits,
            planes=planes_of(contexts[0], facts.num_layers + (limits.max_drafts > 0)),
            weight_bytes=weight_bytes(weight_plan),
            arena_bytes=max(p.arena_bytes for p in programs),
            state_bytes=states.hidden * facts.hidden_size * DTYPE_BYTES[options.dtype],
            zeroed_bytes=zeroed_bytes(programs),
            step_layout=LAYOUT if around is not None else "",
            batch_invariant=options.batch_invariant,
            programs=tuple(refs),
            kernels=built.kernels,
            requires=_requires(covers),
            toolchain={"lostwax": lostwax.__version__, **_written_for(backend), **built.toolchain},
            files={},
        )
        return seal(folder, manifest)
