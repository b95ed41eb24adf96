"""Each field of a record's key tells two situations apart, and nothing else does.

Every case changes one thing; the fields that then differ are listed, so that a key that loses one
fails here. Compiles and runs nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain, product
from pathlib import Path
from textwrap import dedent

import msgspec
import pytest
from xdsl.dialects import builtin
from xdsl.ir import Attribute, SSAValue

from lostwax.backends.cpu.target import CPU
from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.portable.lowerings import lowerings
from lostwax.backends.records import record_key as keys
from lostwax.backends.records.record_key import record_key
from lostwax.frontend.capture import Captured
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.parameter import Pointer, Scalar
from lostwax.ir.contract.program import Bucket, Const, Guard, HostCall, KernelLaunch, Launch, Linear
from lostwax.ir.contract.record import RecordKey
from lostwax.ir.contract.step import StepOp
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.clean_up import CleanUpPass
from lostwax.ir.passes.pipeline import run
from lostwax.ir.passes.specialise import SpecialisePass
from lostwax.ir.region import find_matches
from lostwax.ir.scale_layouts import ELEMENTS, BlockScaleAttr
from lostwax.ir.types import CacheType, TensorType

SKU = "H200"
BUCKET = Bucket(4, 4, 2)
KERNELS = "lostwax.backends.portable.kernels"


def context_of(captured: Captured, **formats: str) -> ProgramContext:
    assigned = AssignFormatsPass(**{"dtype": "f32", **formats})
    passes = (assigned, SpecialisePass(segment="decode"), CleanUpPass())
    module = run(captured.module.clone(), passes)
    return ProgramContext(module, CPU, "decode", BUCKET, Guard("chosen"))


@pytest.fixture(scope="module")
def context(small_capture: Captured) -> ProgramContext:
    return context_of(small_capture)


def sites(context: ProgramContext, name: str) -> Iterator[Candidate]:
    (lowering,) = [low for low in lowerings(context.target) if low.name == name]
    for block in context.blocks.values():
        for match in find_matches(lowering.pattern, block.function.body.block):
            yield Candidate(context, block, match, lowering)


def site(context: ProgramContext, name: str) -> Candidate:
    return next(sites(context, name))


def differing(a: Candidate, b: Candidate, skus: tuple[str, str] = (SKU, SKU)) -> set[str]:
    """Fields of the keys that differ; the digests differ if any does."""
    first, second = record_key(a, skus[0]), record_key(b, skus[1])
    found = {f for f in RecordKey.__struct_fields__ if getattr(first, f) != getattr(second, f)}
    assert bool(found) is (first.digest() != second.digest())
    return found


def at(candidate: Candidate, **changes: object) -> Candidate:
    """The same site in a program of other sizes."""
    return replace(candidate, context=replace(candidate.context, **changes))  # pyright: ignore[reportArgumentType]


def lowered(candidate: Candidate, **changes: object) -> Candidate:
    assert candidate.lowering is not None
    return replace(candidate, lowering=replace(candidate.lowering, **changes))  # pyright: ignore[reportArgumentType]


PAGES = {"bucket": msgspec.structs.replace(BUCKET, pages=32)}
GUARDS = (Guard("a"), Guard("b", (Linear({"max_kv": 1}, 32),)))


def test_the_digest_covers_every_field() -> None:
    key = RecordKey(
        region="r", lowering="l", source="s", sku="k", libraries={}, values={}, cache=""
    )
    for name in RecordKey.__struct_fields__:
        other = {"a": "b"} if isinstance(getattr(key, name), dict) else "other"
        assert msgspec.structs.replace(key, **{name: other}).digest() != key.digest(), name


def test_the_model_of_device_counts(context: ProgramContext) -> None:
    candidate = site(context, "portable_linear")
    for pair in (("H100", "H200"), ("H200", "H20"), ("H100", "H20")):
        assert differing(candidate, candidate, pair) == {"sku"}


def test_the_regions_attributes_count(context: ProgramContext) -> None:
    candidate = site(context, "portable_rms_norm")
    before = record_key(candidate, SKU)
    (op,) = candidate.region.members
    eps = op.properties["eps"]
    op.properties["eps"] = builtin.FloatAttr(0.5, 64)
    try:
        after = record_key(candidate, SKU)
    finally:
        op.properties["eps"] = eps
    assert before.region != after.region


def test_the_lowering_counts(context: ProgramContext) -> None:
    candidate = site(context, "portable_linear")
    assert differing(candidate, lowered(candidate, name="other")) == {"lowering"}


def _nine(package: str) -> str:
    return f"{package} 9"


def test_versions_of_libraries_count(
    context: ProgramContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = site(context, "portable_linear")
    more = lowered(candidate, requires=("xdsl", "not-installed-here"), installed=dict.fromkeys)
    assert differing(candidate, more) == {"libraries"}
    found = record_key(more, SKU).libraries  # by host functions, too, what is no package
    assert found.keys() == {"torch", "xdsl", "not-installed-here", f"{KERNELS}.linear:linear"}
    assert found["not-installed-here"] == ""
    before = record_key(candidate, SKU)
    monkeypatch.setattr(keys, "installed_version", _nine)
    after = record_key(candidate, SKU)
    assert after == msgspec.structs.replace(before, libraries={"torch": "torch 9"})


def test_rows_dtypes_and_layouts_count(context: ProgramContext, small_capture: Captured) -> None:
    candidate = site(context, "portable_linear")
    rows = at(candidate, bucket=Bucket(8, 8, 2, 8))
    assert differing(candidate, rows) == {"values", "source"}
    half = context_of(small_capture, dtype="bf16")
    f32, bf16 = (site(each, "portable_rms_norm") for each in (context, half))
    assert differing(f32, bf16) == {"values", "source"}
    name = "portable_attend_absorbed"
    cached = context_of(small_capture, kv="bf16")
    assert "values" in differing(site(context, name), site(cached, name))
    for each, text in ((context, "f32 rows"), (cached, "bf16 rows")):
        values = record_key(site(each, name), SKU).values
        assert any(value.startswith(text) for value in values.values())


def scaled(rows: int, cols: int, dtype: str) -> BlockScaleAttr:
    return BlockScaleAttr(builtin.IntAttr(rows), builtin.IntAttr(cols), ELEMENTS[dtype])


SCALE = scaled(2, 4, "f32")
TENSOR = TensorType.of((4, "T"), "f8E4M3FN", SCALE)
CACHE = CacheType.of("latent", "N", 64, [32, 8], "bf16")
TENSORS: dict[str, list[Attribute]] = {
    "shape": [TensorType.of(s, "f8E4M3FN", SCALE) for s in ((4, 9), (8, "T"), (1, 4, "T"))],
    "dtype": [TensorType.of((4, "T"), d, SCALE) for d in ("f8E4M3FNUZ", "bf16")],
    "scale": [
        TensorType.of((4, "T"), "f8E4M3FN", scale)
        for scale in (
            None,
            scaled(1, 4, "f32"),
            scaled(2, 2, "f32"),
            scaled(4, 2, "f32"),
            scaled(2, 4, "f8E8M0FNU"),
        )
    ],
}
CACHES: dict[str, list[Attribute]] = {
    "page_tokens": [CacheType.of("latent", "N", 32, [32, 8], "bf16")],
    "parts": [CacheType.of("latent", "N", 64, row, "bf16") for row in ([8, 32], [32, 16], [40])],
    "layout": [CacheType.of("latent", "N", 64, [32, 8], "f32")],
}
NO_PART = {"plane": "another kind's", "pages": "32"}
"""Of a cache: which plane it is, and how many pages a server has, changes no time."""


@pytest.mark.parametrize(("whole", "others"), [(TENSOR, TENSORS), (CACHE, CACHES)])
def test_each_parameter_of_a_boundary_values_type_counts(
    whole: TensorType | CacheType, others: dict[str, list[Attribute]]
) -> None:
    parameters = {name for name, _ in whole.get_irdl_definition().parameters}
    assert parameters == {*others, *(NO_PART if isinstance(whole, CacheType) else {})}
    env = {"T": 8, "N": 16}
    found = [keys.concrete(kind, env) for kind in (whole, *chain(*others.values()))]
    assert len(set(found)) == len(found), found
    assert keys.concrete(whole, {"T": 8, "N": 32}) == found[0], "pages are counted beside it"


def test_scales_of_a_boundary_value_count(context: ProgramContext) -> None:
    """The same product over weights whose scales lie otherwise."""
    candidate = site(context, "portable_linear")
    weight = candidate.region.values["weight"]
    assert isinstance(weight, SSAValue)
    plain = weight.type
    assert isinstance(plain, TensorType)
    found: list[RecordKey] = []
    try:
        for scale in (SCALE, scaled(4, 2, "f32"), scaled(2, 4, "f8E8M0FNU")):
            weight._type = TensorType.of(plain.sizes, "f8E4M3FN", scale)  # pyright: ignore[reportPrivateUsage]
            found.append(record_key(candidate, SKU))
    finally:
        weight._type = plain  # pyright: ignore[reportPrivateUsage]
    assert len({key.values["weight"] for key in found}) == 3
    assert len({key.digest() for key in found}) == 3


def test_each_boundary_value_is_named(context: ProgramContext) -> None:
    """What leaves a region counts as what enters it."""
    for name in ("portable_linear", "portable_attend_absorbed", "portable_rms_norm"):
        candidate = site(context, name)
        region = candidate.region.region
        assert record_key(candidate, SKU).values.keys() == {*region.inputs, *region.outputs}


def test_pages_and_guard_count_where_a_cache_is_read(context: ProgramContext) -> None:
    candidate = site(context, "portable_attend_absorbed")
    assert "cache" in differing(candidate, at(candidate, **PAGES))
    first, second = (at(candidate, guard=guard) for guard in GUARDS)
    assert differing(first, second) == {"cache"}
    append = site(context, "portable_append")
    assert "cache" in differing(append, at(append, **PAGES))


def test_a_product_has_one_key_for_all_pages_guards_and_weights(context: ProgramContext) -> None:
    for name in ("portable_linear", "portable_gate_up", "portable_rms_norm"):
        candidate = site(context, name)
        assert record_key(candidate, SKU).cache == ""
        for pages, guard in product((1, 8, 32), GUARDS):
            bucket = msgspec.structs.replace(BUCKET, pages=pages)
            assert not differing(candidate, at(candidate, bucket=bucket, guard=guard)), name
    by_shape: dict[str, set[str]] = {}
    for each in sites(context, "portable_linear"):
        key = record_key(each, SKU)
        by_shape.setdefault(str(key.values), set()).add(key.digest())
    assert {len(found) for found in by_shape.values()} == {1}
    assert len(list(sites(context, "portable_linear"))) > len(by_shape), "some are of equal shape"


Emit = Callable[[Match, Knobs], Iterable[Launch]]


def emitting(candidate: Candidate, emit: Emit) -> Candidate:
    def emitted(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        return tuple(emit(match, knobs))

    lowering: Lowering | None = candidate.lowering
    assert lowering is not None
    return lowered(candidate, emit=emitted, knobs=(Knob("tile", (1, 2)),))


def call(match: Match, *operands: str, function: str = f"{KERNELS}.linear:linear", **consts: Const):
    return HostCall(function=function, args=tuple(map(match.view, operands)), consts=consts)


def kernel(match: Match, **changes: object) -> KernelLaunch:
    source = KernelSource(
        language="triton",
        path="lostwax.backends.gpu_kernels.norms",
        symbol="add_rms_norm",
        constants={"BLOCK": 64},
    )
    built = match.build(msgspec.structs.replace(source, **changes))
    return KernelLaunch(
        binary=built.binary,
        symbol=built.symbol,
        grid=(1, 1, 1),
        block=(32, 1, 1),
        params=(Pointer(match.view("x")), Scalar("i32", 1)),
    )


LAUNCHED: dict[str, Emit] = {
    "one more": lambda m, k: [call(m, "x", "weight"), call(m, "x")],
    "arguments": lambda m, k: [call(m, "weight", "x")],
    "constant": lambda m, k: [call(m, "x", "weight", size=1)],
    "a later setting": lambda m, k: [call(m, "x", "weight")] * k["tile"],
    "function": lambda m, k: [call(m, "x", "weight", function=f"{KERNELS}.norms:rms_norm")],
}


@pytest.mark.parametrize("emit", LAUNCHED.values(), ids=LAUNCHED)
def test_what_is_launched_counts(context: ProgramContext, emit: Emit) -> None:
    candidate = site(context, "portable_linear")
    base = emitting(candidate, lambda m, k: [call(m, "x", "weight")])
    again = emitting(candidate, lambda m, k: [call(m, "x", "weight")])
    assert not differing(base, again)
    assert differing(base, emitting(candidate, emit)) == {"source"}


def preparing(candidate: Candidate, *ops: StepOp) -> Candidate:
    """The same launches behind other work that all layers share."""

    def prepare(match: Match, knobs: Knobs) -> tuple[StepOp, ...]:
        return ops

    base = emitting(candidate, lambda m, k: [call(m, "x", "weight")])
    return lowered(base, prepare=prepare)


def prepared(function: str = "rope:rope_table", size: int = 4, **consts: Const) -> StepOp:
    return StepOp(
        function=function if "." in function else f"{KERNELS}.{function}",
        inputs=("positions",),
        outputs=(("table", "f32", (size,)),),
        consts=consts,
    )


def test_what_is_prepared_once_a_step_counts(context: ProgramContext) -> None:
    candidate = site(context, "portable_linear")
    base = preparing(candidate, prepared())
    assert not differing(base, preparing(candidate, prepared()))
    for ops in ((), (prepared(size=8),), (prepared(dim=2),), (prepared("rope:rotate"),)):
        assert differing(base, preparing(candidate, *ops)) == {"source"}, ops


def test_the_requests_to_compilers_count(context: ProgramContext) -> None:
    candidate = site(context, "portable_linear")
    base = emitting(candidate, lambda m, k: [kernel(m)])
    assert not differing(base, emitting(candidate, lambda m, k: [kernel(m)]))
    assert record_key(base, SKU).libraries == {}, "a kernel of our own calls none"
    requests: tuple[dict[str, object], ...] = (
        {"constants": {"BLOCK": 128}},
        {"num_warps": 8},
        {"num_stages": 3},
        {"signature": {"x": "*bf16"}},
        {"path": "lostwax.backends.gpu_kernels.rope"},
    )
    for changes in requests:

        def emit(m: Match, k: Knobs, c: dict[str, object] = changes) -> list[Launch]:
            return [kernel(m, **c)]

        other = emitting(candidate, emit)
        assert differing(base, other) == {"source"}, changes
    assert differing(base, at(base, target=CUDA_SM90A)) == {"source"}


CODE = {
    "direct.py": "from keyed.kernels import behind\nfrom .sideways import g\ndef f(*x): ...\n",
    "behind.py": "import keyed.constants\nA = 1\n",
    "sideways.py": "from keyed.kernels import direct\ndef g(): ...\n",
    "unread.py": "B = 1\n",
}


@pytest.mark.parametrize("is_prepared", [False, True])
@pytest.mark.parametrize(
    ("changed", "counts"),
    [
        ("kernels/direct.py", True),
        ("kernels/behind.py", True),
        ("kernels/sideways.py", True),
        ("constants.py", True),
        ("kernels/unread.py", False),
    ],
)
def test_the_code_that_runs_and_all_that_it_imports_counts(
    context: ProgramContext,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: str,
    counts: bool,
    is_prepared: bool,
) -> None:
    package = tmp_path / "keyed"
    (package / "kernels").mkdir(parents=True)
    for name in ("__init__.py", "constants.py", "kernels/__init__.py"):
        (package / name).write_text("")
    for name, text in CODE.items():
        (package / "kernels" / name).write_text(dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [n for n in sys.modules if n.partition(".")[0] == "keyed"]:
        monkeypatch.delitem(sys.modules, name)
    candidate = site(context, "portable_linear")
    if is_prepared:
        candidate = preparing(candidate, prepared("keyed.kernels.direct:f"))
    else:
        candidate = emitting(
            candidate, lambda m, k: [call(m, "x", function="keyed.kernels.direct:f")]
        )
    before = record_key(candidate, SKU)
    path = package / changed
    path.write_text(path.read_text() + "C = 2\n")
    after = record_key(candidate, SKU)
    assert (before.source != after.source) is counts
    assert str(tmp_path) not in str(before)
