"""Some ops of V3.2 by themselves, planned as `lostwax compile` plans them. Needs no GPU.

An op, or the few that one launch may join, is cut out of the captured model's block function: what
it reads becomes an argument, what others read of it a result. The planner then matches, prices and
chooses its lowerings, with the forms of its weights and the settings that its rules give.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
from full_width import CONFIG, FIVE, write_headers
from op_grid import Format, OpCase, PlannedOp
from xdsl.dialects import builtin, func
from xdsl.ir import Block, BlockArgument, Operation, Region, SSAValue

from lostwax.backends.compile import CompileOptions, budget_of
from lostwax.backends.formats import Formats, typed
from lostwax.backends.lowering import Lowering
from lostwax.backends.plan.candidate import Candidate, python_of
from lostwax.backends.plan.choose_storage import choose_storage, covers_under
from lostwax.backends.plan.cover import Forced, Priced, find_candidates, find_sites
from lostwax.backends.plan.emit import Build
from lostwax.backends.plan.price import NoMeasurements
from lostwax.backends.plan.program_context import BlockFunction, ProgramContext
from lostwax.backends.plan.storage import Storage
from lostwax.backends.plan.variants import Variant, specialise_variants
from lostwax.backends.plan.views import (
    aliased_operand,
    cache_view,
    dense,
    reshape_view,
    scale_shape,
)
from lostwax.backends.proof.run_alone import Alone
from lostwax.backends.registry import find_target
from lostwax.frontend.capture import capture
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.ir.contract.program import Const, Launch, View, views_of
from lostwax.ir.dialects.core import ReshapeOp
from lostwax.ir.op import LostwaxOp
from lostwax.ir.passes.pipeline import rank_passes
from lostwax.ir.types import CacheType, TensorType

TARGET = "cuda-sm90a"
FORMATS: dict[Format, Formats] = {
    "bf16": Formats(kv="bf16"),
    "fp8": Formats(kv="fp8_656", indexer="fp8_ue8m0", activations="fp8_ue8m0"),
}
Chooses = Callable[[Operation, BlockFunction], bool]


def of_weights(*names: str) -> Chooses:
    """Products with these weights."""
    wanted = {f"{name}.weight" for name in names}

    def chooses(op: Operation, block: BlockFunction) -> bool:
        found = op.name in ("quant.linear", "core.rms_norm", "core.layer_norm")
        return found and any(block.weight_name(v) in wanted for v in op.operands)

    return chooses


def named(*names: str) -> Chooses:
    """Ops of these kinds."""
    return lambda op, block: op.name in names


@dataclass(frozen=True)
class Part:
    """Which ops of which block are cut out; those of `behind` only where they read the others."""

    block: str
    chooses: Chooses
    behind: tuple[str, ...] = ()


_CHOSEN = ("dsa.index_logits",)
"""Ops whose lowering a case may name."""

_A = "self_attn."
PARTS: dict[str, Part] = {
    "projections": Part("moe", of_weights(
        f"{_A}q_a_proj", f"{_A}q_a_layernorm", f"{_A}kv_a_proj_with_mqa",
        f"{_A}indexer.wk", f"{_A}indexer.k_norm",
    )),
    "queries": Part(
        "moe", of_weights(f"{_A}q_b_proj", f"{_A}indexer.wq_b"),
        ("core.reshape", "core.rope", "dsa.hadamard", "quant.quantise"),
    ),
    "o": Part("moe", of_weights(f"{_A}o_proj")),
    "dense gate_up": Part(
        "dense", of_weights("mlp.gate_proj", "mlp.up_proj"), ("core.silu_mul",)
    ),
    "dense down": Part("dense", of_weights("mlp.down_proj")),
    "shared gate_up": Part(
        "moe", of_weights("mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj"),
        ("core.silu_mul",),
    ),
    "shared down": Part("moe", of_weights("mlp.shared_experts.down_proj")),
    "experts": Part("moe", named("moe.experts")),
    "index": Part("moe", named("dsa.index_logits")),
    "index_topk": Part("moe", named("dsa.index_logits", "dsa.topk")),
    "topk": Part("moe", named("dsa.topk")),
    "attend": Part("moe", named("mla.attend")),
    "mha": Part("moe", named("dsa.all", "mla.attend")),
}  # fmt: skip


def _kept(block: BlockFunction, value: SSAValue) -> builtin.DictionaryAttr:
    """What the block says of a weight that is its argument; nothing of other values."""
    given = block.function.arg_attrs
    if block.weight_name(value) is None or given is None or not isinstance(value, BlockArgument):
        return builtin.DictionaryAttr({})
    return given.data[value.index]


def cut_out(block: BlockFunction, part: Part) -> tuple[func.FuncOp, dict[SSAValue, str]]:
    """A function of the chosen ops alone, and its values by name: arguments by what reads them,
    results `out.0`, `out.1`, …. ValueError where nothing is chosen."""
    ops = list(block.function.body.block.ops)
    chosen = [op for op in ops if part.chooses(op, block)]
    made = {result for op in chosen for result in op.results}
    for op in ops:
        if op.name in part.behind and any(v in made for v in op.operands) and op not in chosen:
            chosen.append(op)
            made.update(op.results)
    chosen.sort(key=ops.index)
    if not chosen:
        raise ValueError(f"{block.name} has none of the ops")
    body, values = Block(), dict[SSAValue, SSAValue]()
    names: dict[SSAValue, str] = {}
    attrs: list[builtin.DictionaryAttr] = []
    for op in chosen:
        assert isinstance(op, LostwaxOp)
        fields = [name for name, _ in op.get_irdl_definition().operands]
        for name, operand in zip(fields, op.operands, strict=True):
            if operand in made or operand in values:
                continue
            argument = body.insert_arg(operand.type, len(body.args))
            values[operand] = argument
            names[argument] = block.weight_name(operand) or name
            attrs.append(_kept(block, operand))
    leaving: list[SSAValue] = []
    for op in chosen:
        copy = op.clone(value_mapper=values)
        body.add_op(copy)
        for old, new in zip(op.results, copy.results, strict=True):
            values[old] = new
            if any(use.operation not in chosen for use in old.uses):
                names[new] = f"out.{len(leaving)}"
                leaving.append(new)
    body.add_op(func.ReturnOp(*leaving))
    kind = builtin.FunctionType.from_lists([a.type for a in body.args], [v.type for v in leaving])
    found = func.FuncOp(block.name, kind, Region([body]), arg_attrs=builtin.ArrayAttr(attrs))
    return found, names


@dataclass
class _Named(Alone):
    """A candidate's values by the slice's names, which all candidates of a cover share."""

    views: Mapping[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])

    def value(self, value: SSAValue, candidate: Candidate, operand: str, scale: bool) -> View:
        if value not in self.views:
            return super().value(value, candidate, operand, scale)
        base = self.value(self.views[value], candidate, operand, scale)
        assert isinstance(value.type, TensorType)
        return reshape_view(base, value.type.at(candidate.context.env))


class Planner:
    """Plans ops of the captured model with so many heads."""

    def __init__(self, folder: Path, heads: int, build: Build) -> None:
        config = json.loads(CONFIG.read_text()) | FIVE | {"num_hidden_layers": 2}
        config |= {"num_attention_heads": heads, "num_key_value_heads": heads}
        self._headers = folder / f"{heads}.headers"
        if not self._headers.exists():
            write_headers(self._headers, config)
        self._captured = capture(open_checkpoint(self._headers))
        self._modules: dict[tuple[Format, Variant], builtin.ModuleOp] = {}
        backend, self._target = find_target(TARGET)
        self._lowerings: tuple[Lowering, ...] = backend.load(backend.lowerings)(self._target)
        self._build = build

    def _module(self, form: Format, variant: Variant) -> builtin.ModuleOp:
        if (form, variant) not in self._modules:
            formats = FORMATS[form].assign("bf16", "stored", self._target)
            module = typed(self._captured.module, (formats, *rank_passes(1)), None)
            self._modules |= {
                (form, v): m for v, m in specialise_variants(module, [variant], None).items()
            }
        return self._modules[form, variant]

    def plan(self, case: OpCase) -> PlannedOp:
        """The launches of the cheapest cover of a case's ops."""
        each = case.bucket.rows_a_req if case.segment == "decode" else 1
        variant = Variant(case.segment, case.guard.selects_all, each)
        module = self._module(case.form, variant)
        context = ProgramContext(module, self._target, case.segment, case.bucket, case.guard)
        part = PARTS[case.op]
        function, names = cut_out(BlockFunction(context.functions[part.block]), part)
        block = BlockFunction(function)
        budget = budget_of(CompileOptions(), self._target)
        sites = find_sites(block, self._lowerings)
        forced = [Forced(name, case.lowering) for name in _CHOSEN if case.lowering]
        found = find_candidates(context, block, sites, NoMeasurements(), forced, budget)
        storage, _ = choose_storage([found])
        (cover,) = covers_under([found], storage)
        launches, lowerings, of_step = self._emit(cover.chosen, storage, names, case.knobs)
        used = frozenset(v.name for x in launches for v in views_of(x) if v.space == "weight")
        outputs: dict[str, View] = {}
        for value, name in names.items():
            kind = value.type
            if not name.startswith("out.") or not isinstance(kind, TensorType):
                continue
            shape = kind.at(context.env)
            outputs[name] = dense("arena", name, kind.dtype_name, shape)
            if kind.block_scale is not None:
                scale = f"{name}:scale"
                outputs[scale] = dense("arena", scale, "f32", scale_shape(kind, shape))
        inputs: dict[str, View] = {}
        for value in block.function.body.block.args:
            kind, name = value.type, names[value]
            if isinstance(kind, CacheType):
                inputs[name] = cache_view(kind, name)
            elif isinstance(kind, TensorType):
                inputs[name] = dense("arena", name, kind.dtype_name, kind.at(context.env))
                if kind.block_scale is not None:
                    shape = scale_shape(kind, kind.at(context.env))
                    inputs[f"{name}:scale"] = dense("arena", f"{name}:scale", "f32", shape)
        logical = tuple(n for n in names.values() if n in storage.types)
        return PlannedOp(
            case=case, lowerings=lowerings, launches=launches, inputs=inputs, outputs=outputs,
            attributes=_attributes(function), weights=logical, stored=storage.held_weights(used),
            us=sum(p.price.micros for p in cover.chosen), of_step=of_step,
        )  # fmt: skip

    def _emit(
        self,
        chosen: Iterable[Priced],
        storage: Storage,
        names: dict[SSAValue, str],
        settings: Mapping[str, int],
    ) -> tuple[tuple[Launch, ...], tuple[str, ...], tuple[int, ...]]:
        """All launches in order, lowerings, and which launches make a step's values; a reshaped
        value lies where the other does."""
        launches: list[Launch] = []
        lowerings: list[str] = []
        of_step: list[int] = []
        views: dict[SSAValue, SSAValue] = {}
        ordered = list(chosen)
        for priced in ordered:
            for op in priced.candidate.region.ops.values():
                for result in op.results:
                    names.setdefault(result, f"inner.{len(names)}")
                base = aliased_operand(op)
                if priced.candidate.lowering is None and base is not None:
                    if not isinstance(op, ReshapeOp):
                        raise ValueError(f"the slice cuts through {op.name}")
                    views[op.results[0]] = base
        for priced in ordered:
            candidate, lowering = priced.candidate, priced.candidate.lowering
            if lowering is None:
                continue
            knobs = {**priced.price.knobs, **settings}
            lowering.require_knobs(knobs)
            alone = _Named(candidate, knobs, self._build, storage, names, views)
            placed = replace(candidate, placement=alone)
            shared = alone.prepare()
            of_step += range(len(launches), len(launches) + len(shared))
            made = (*shared, *lowering.emit(placed, knobs))
            launches += (_apart(launch, str(len(lowerings))) for launch in made)
            lowerings.append(lowering.name)
        return tuple(launches), tuple(lowerings), tuple(of_step)


def _attributes(function: func.FuncOp) -> dict[str, Const]:
    return {
        f"{op.name}.{name}": python_of(value)
        for op in function.body.block.ops
        for name, value in op.properties.items()
    }


def _apart(launch: Launch, number: str) -> Launch:
    """The launch with step values of its candidate's own: names of one may be another's."""

    def renamed(given: object) -> object:
        if isinstance(given, View) and given.name.startswith("prepare."):
            return msgspec.structs.replace(given, name=f"{number}.{given.name}")
        if isinstance(given, tuple):
            return tuple(renamed(each) for each in given)  # pyright: ignore
        if isinstance(given, msgspec.Struct):
            each = {n: renamed(getattr(given, n)) for n in given.__struct_fields__}
            return msgspec.structs.replace(given, **each)
        return given

    made = renamed(launch)
    assert isinstance(made, msgspec.Struct)
    return made  # pyright: ignore
