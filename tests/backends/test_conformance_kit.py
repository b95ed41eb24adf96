"""The conformance kit: consistent cases, correct runners pass, wrong ones are named."""

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps

import numpy as np
import pytest
import torch
from tiny import ODD
from xdsl.dialects import builtin, func
from xdsl.parser import Parser

from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.target import CPU
from lostwax.backends.lowering import Lowering
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.program_context import BlockFunction, ProgramContext
from lostwax.backends.plan.state_rows import StateRows
from lostwax.backends.portable.kernels import linear as portable_linear
from lostwax.backends.portable.lowerings import lowerings
from lostwax.backends.proof.check import OPEN, NotConformant, certify_lowering
from lostwax.backends.proof.inputs import named_inputs, region_values
from lostwax.backends.proof.kit import Environment, Variant, certify_all
from lostwax.backends.proof.poison import poisoned
from lostwax.backends.proof.run_alone import run_alone
from lostwax.backends.proof.step_cases import StepCase, edge_buckets, step_case
from lostwax.backends.proof.tolerance import tolerance_of
from lostwax.backends.runtime.compare_outputs import tied_rows_agree
from lostwax.backends.runtime.driver import no_kernels
from lostwax.backends.runtime.fenced_buffers import Overrun
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.program import HEADS, Bucket, Guard, Segment
from lostwax.ir.dialects import context
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.pipeline import run
from lostwax.ir.reference.cache_bytes import CacheBytes
from lostwax.ir.reference.dtype import Array, widen
from lostwax.ir.reference.interpret import evaluate_ops
from lostwax.ir.region import Region, RegionMatch, find_matches

PAGE = 4
BUCKET = Bucket(tokens=9, reqs=3, pages=4)

TEXT = """
func.func @extend(%x: !lostwax.tensor<[T, 6], bf16>) { func.return }
func.func @block(%x: !lostwax.tensor<[T, 6], bf16>, %positions: !lostwax.tensor<[T], i32>,
    %slots: !lostwax.tensor<[T], i32>, %cache: !lostwax.cache<"index_key", N, 4, [6], "f32">,
    %logits: !lostwax.tensor<[T, 4*P], f32>, %f: !lostwax.tensor<[T, 6], f32>,
    %w: !lostwax.tensor<[8, 6], bf16> {lostwax.weight = "up.weight"},
    %rows: !lostwax.tensor<[R, 6], f32>, %heat: !lostwax.tensor<[R], f32>,
    %top_k: !lostwax.tensor<[R], i32>, %top_p: !lostwax.tensor<[R], f32>,
    %min_p: !lostwax.tensor<[R], f32>) {
  %r = "core.rope"(%f, %positions) <{offset = 0 : i64, dim = 4 : i64, interleaved = false,
    theta = 1.0e+04 : f64, factor = 1.0 : f64, original_len = 4096 : i64, beta_fast = 32.0 : f64,
    beta_slow = 1.0 : f64, magnitude = 1.0 : f64}>
    : (!lostwax.tensor<[T, 6], f32>, !lostwax.tensor<[T], i32>) -> !lostwax.tensor<[T, 6], f32>
  %k = "kv.append"(%cache, %r, %slots)
    : (!lostwax.cache<"index_key", N, 4, [6], "f32">, !lostwax.tensor<[T, 6], f32>,
       !lostwax.tensor<[T], i32>) -> !lostwax.cache<"index_key", N, 4, [6], "f32">
  %s = "dsa.topk"(%logits) <{k = 5 : i64}>
    : (!lostwax.tensor<[T, 4*P], f32>) -> !lostwax.tensor<[T, 5], i32>
  %y = "quant.linear"(%x, %w) : (!lostwax.tensor<[T, 6], bf16>, !lostwax.tensor<[8, 6], bf16>)
    -> !lostwax.tensor<[T, 8], bf16>
  %n = "sample.nucleus"(%rows, %heat, %top_k, %top_p, %min_p) : (!lostwax.tensor<[R, 6], f32>,
    !lostwax.tensor<[R], f32>, !lostwax.tensor<[R], i32>, !lostwax.tensor<[R], f32>,
    !lostwax.tensor<[R], f32>) -> !lostwax.tensor<[R, 6], f32>
  func.return
}
"""


@pytest.fixture(scope="module")
def module() -> builtin.ModuleOp:
    return Parser(context(), TEXT).parse_module()


def block_of(module: builtin.ModuleOp) -> func.FuncOp:
    return [op for op in module.ops if isinstance(op, func.FuncOp)][1]


def match_of(module: builtin.ModuleOp, op_name: str) -> RegionMatch:
    block = block_of(module).body.block
    (op,) = [o for o in block.ops if o.name == op_name]
    (match,) = find_matches(Region.single(type(op)), block)  # pyright: ignore[reportArgumentType]
    return match


def step_cases(segment: Segment = "extend") -> list[StepCase]:
    bucket = Bucket(rows=BUCKET.reqs) if segment in HEADS else BUCKET
    return [step_case(bucket, segment, s, page_tokens=PAGE, vocab_size=50) for s in range(3)]


def cases_of(match: RegionMatch) -> list[StepCase]:
    """Steps of the segment that has such ops."""
    samples = any(op.name.startswith("sample.") for op in match.ops.values())
    return step_cases("score" if samples else "extend")


Spoil = Callable[[Array], Array]


def reference_runner(match: RegionMatch, case: StepCase, spoil: Spoil):
    """Answers with the reference itself, spoilt."""

    def run(given: Mapping[str, Array]) -> dict[str, Array]:
        values = poisoned(match, case, region_values(match, case))
        evaluate_ops(list(match.ops.values()), values, case.env)
        (name,) = match.region.outputs
        result = values[match.output_values()[0]]
        assert isinstance(result, np.ndarray)
        return {name: spoil(result.copy())}

    return run


def certify(match: RegionMatch, spoil: Spoil, waiver: str = ""):
    for case in cases_of(match):
        run = reference_runner(match, case, spoil)
        certify_lowering(run, match, [case], lowering="x", state="executed", waiver=waiver)


def set_first(value: float) -> Spoil:
    def spoil(a: Array) -> Array:
        a.reshape(-1)[0] = value
        return a

    return spoil


def reverse(a: Array) -> Array:
    return a[..., ::-1].copy()


def as_f64(a: Array) -> Array:
    return a.astype(np.float64)


def tenth_more(a: Array) -> Array:
    return a * a.dtype.type(1.1)


def shift_ids(a: Array) -> Array:
    return np.where(a > 0, a - 1, a).astype(a.dtype)


def spoil_untouched(cache: Array) -> Array:
    cache[-1] += 1  # the last page holds cached prefixes, or tokens of this step
    return cache


@pytest.mark.parametrize(
    "op", ["core.rope", "kv.append", "dsa.topk", "quant.linear", "sample.nucleus"]
)
def test_the_reference_itself_is_certified(module: builtin.ModuleOp, op: str):
    certify(match_of(module, op), lambda a: a)


@pytest.mark.parametrize(
    ("op", "spoil", "message"),
    [
        ("core.rope", set_first(np.nan), "NaN or infinity"),
        ("core.rope", reverse, "error .* allowed"),
        ("core.rope", as_f64, "got float64"),
        ("quant.linear", tenth_more, "error .* allowed"),
        ("dsa.topk", shift_ids, "of rows agree, wants 100%"),
        ("dsa.topk", reverse, "of rows agree, wants 100%"),
        ("kv.append", spoil_untouched, "outside the step's slots|error .* allowed"),
    ],
)
def test_a_wrong_result_is_named(module: builtin.ModuleOp, op: str, spoil: Spoil, message: str):
    with pytest.raises(NotConformant, match=message):
        certify(match_of(module, op), spoil)


def test_a_waiver_lets_ties_fall_either_way_but_not_wrong_choices(module: builtin.ModuleOp):
    match = match_of(module, "dsa.topk")
    case = step_case(Bucket(8, 1, 8, 1), "extend", 0, page_tokens=PAGE, vocab_size=50)
    drawn = region_values(match, case)[match.ops["op"].operands[0]]
    assert isinstance(drawn, np.ndarray)
    logits = widen(drawn)

    def highest_index_wins(given: Mapping[str, Array]) -> dict[str, Array]:
        out = np.full((logits.shape[0], 5), -1, np.int32)
        for row, values in enumerate(logits):
            valid = np.flatnonzero(values > -np.inf)
            best = valid[::-1][np.argsort(-values[valid[::-1]], kind="stable")][:5]
            out[row, : best.size] = np.sort(best)
        return {"op.out": out}

    def certified(waiver: str):
        return certify_lowering(
            highest_index_wins, match, [case], lowering="x", state="executed", waiver=waiver
        )

    assert certified("tie_order").set_agreement == 1.0
    with pytest.raises(NotConformant):
        certified("")


def test_ids_at_the_border_of_a_nucleus_may_fall_either_way_and_no_others(
    monkeypatch: pytest.MonkeyPatch, module: builtin.ModuleOp
):
    def border(logits: Array, *asked: Array) -> Array:
        return np.arange(logits.shape[1]) == np.full((logits.shape[0], 1), 3)

    monkeypatch.setitem(OPEN, "sample.nucleus", border)

    def put(column: int, value: float) -> Spoil:
        def spoil(a: Array) -> Array:
            a[:, column] = value
            return a

        return spoil

    match = match_of(module, "sample.nucleus")
    certify(match, put(3, -np.inf))
    for spoil in (put(2, -np.inf), put(3, 0.5)):
        with pytest.raises(NotConformant):
            certify(match, spoil)


def test_step_cases_are_consistent():
    for entry in ("extend", "decode"):
        for bucket in edge_buckets(entry):
            for seed in range(4):
                check_consistent(step_case(bucket, entry, seed, page_tokens=PAGE, vocab_size=50))


@pytest.mark.parametrize("together", [13, 20, 39, 1000])
def test_the_contexts_of_a_step_case_are_bounded_where_a_guard_bounds_them(together: int):
    """The first request keeps as much of its prefix as there is room for."""
    for seed in range(4):
        case, free = (
            step_case(
                Bucket(13, 3, 3), "extend", seed, page_tokens=PAGE, vocab_size=50, max_total_kv=most
            )
            for most in (together, None)
        )
        check_consistent(case)
        lengths = case.inputs["kv_lens"]
        assert lengths.sum() <= together
        new = int(case.inputs["q_starts"][1])
        rest = together - int(case.inputs["q_starts"][-1])
        assert lengths[0] == min(int(free.inputs["kv_lens"][0]), new + rest)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rows", range(2, 7))
def test_rows_go_with_and_without_each_way_to_sample_them(rows: int, seed: int):
    """Without first: a kernel that gives the rows that have one others' values is then seen."""
    bucket = Bucket(rows=rows)
    states = replace(StateRows.least(bucket), masks=8)
    case = step_case(
        bucket, "score", seed, page_tokens=PAGE, vocab_size=50, states=states, least_reqs=2
    )
    real = {n: a[: int(case.inputs["num_rows"][0])] for n, a in case.inputs.items()}
    nothing = {"mask_rows": -1, "targets": -1, "temperature": 0, "top_k": 0, "top_p": 1, "min_p": 0}
    for name, neutral in nothing.items():
        assert real[name][0] == neutral != real[name][1]
    assert real["mask_rows"][:3].tolist() == [-1, 0, 7][: len(real["mask_rows"])]
    assert real["mask_rows"][-1] >= 0


def check_consistent(case: StepCase) -> None:
    i, used = case.inputs, set[int]()
    for b in range(case.env["B"]):
        rows = range(int(i["q_starts"][b]), int(i["q_starts"][b + 1]))
        length = int(i["kv_lens"][b])
        assert len(rows) <= length <= case.env["P"] * PAGE
        for offset, row in enumerate(rows):
            position = length - len(rows) + offset
            page = int(i["page_table"][b, position // PAGE])
            assert i["positions"][row] == position
            assert i["slots"][row] == page * PAGE + position % PAGE
        pages = set(i["page_table"][b, : -(-length // PAGE)].tolist())
        assert not pages & (used | {0})
        used |= pages
    padded = slice(int(i["q_starts"][-1]), None)
    assert (i["positions"][padded] == -1).all()
    assert (i["tokens"][padded] == -1).all()
    assert (i["slots"][padded] == 0).all()


def test_cases_are_seeded(module: builtin.ModuleOp):
    match = match_of(module, "quant.linear")
    runs = [region_values(match, case) for case in step_cases()[:1] * 2]
    for value in named_inputs(match).values():
        a, b = (r[value] for r in runs)
        assert not isinstance(a, CacheBytes)
        assert not isinstance(b, CacheBytes)
        np.testing.assert_array_equal(widen(a), widen(b))


def test_the_coarsest_dtype_decides_the_tolerance():
    assert tolerance_of({"f32", "i32"}) == tolerance_of({"f32"})
    assert tolerance_of({"f32", "bf16"}) == tolerance_of({"bf16"})
    assert tolerance_of({"f32"}).max_error < tolerance_of({"bf16"}).max_error


def driver() -> CpuDriver:
    return CpuDriver(CPU, no_kernels, {})


def compile_kernel(source: KernelSource) -> CompiledKernel:
    raise AssertionError(f"no kernel is needed for {source}")


def linear_alone(module: builtin.ModuleOp, lowering: Lowering):
    where = ProgramContext(module, CPU, "extend", BUCKET, Guard("always"))
    match = match_of(module, "quant.linear")
    candidate = Candidate(where, BlockFunction(block_of(module)), match, lowering)

    alone = run_alone(candidate, driver, compile_kernel)
    return certify_lowering(alone, match, cases_of(match), lowering=lowering.name, state="executed")


@pytest.mark.parametrize("name", ["portable_linear", "portable_linear_transposed"])
def test_a_portable_lowering_runs_alone_in_its_weight_form(module: builtin.ModuleOp, name: str):
    (lowering,) = [low for low in lowerings(CPU) if low.name == name]
    certificate = linear_alone(module, lowering)
    assert certificate.state == "executed"
    assert certificate.max_error is not None
    assert certificate.max_error < 1e-2


def write_nothing(*tensors: torch.Tensor | None, **consts: object) -> None:
    pass


def write_behind(*tensors: torch.Tensor | None, **consts: object) -> None:
    out = tensors[-1]
    assert out is not None
    ctypes.memset(out.data_ptr() + out.nbytes, 0, out.itemsize)  # as a kernel would


@pytest.mark.parametrize(
    ("kernel", "error", "message"),
    [
        (write_nothing, NotConformant, "NaN"),
        (write_behind, Overrun, "beyond its end"),
    ],
)
def test_unwritten_outputs_and_overruns_are_caught(
    module: builtin.ModuleOp,
    monkeypatch: pytest.MonkeyPatch,
    kernel: Callable[..., None],
    error: type[Exception],
    message: str,
):
    named = wraps(portable_linear.linear)(kernel)  # only functions of kernels packages are called
    monkeypatch.setattr(portable_linear, "linear", named)
    (lowering,) = [low for low in lowerings(CPU) if low.name == "portable_linear"]
    with pytest.raises(error, match=message):
        linear_alone(module, lowering)


def test_a_captured_model_is_certified_at_edge_sizes():
    captured = capture(parse_config(ODD), page_tokens=8)
    typed = run(captured.module, (AssignFormatsPass(dtype="f32"),))
    variant = Variant("decode", every=False)
    environment = Environment(CPU, driver, compile_kernel, "executed", {})
    outcomes = list(
        certify_all(
            typed, captured.facts, lowerings(CPU), environment, variants=[variant], seeds=[1]
        )
    )
    covered = {op.name for o in outcomes for op in o.candidate.region.ops.values()}
    assert {"mla.attend", "dsa.index_logits", "dsa.topk", "moe.route", "moe.experts"} <= covered
    for outcome in outcomes:
        assert (outcome.certificate is None) == (outcome.refusal is not None)


def test_a_tied_choice_may_be_another_index_and_never_one_twice():
    scores: Array = np.array([[1.0, 1.0, 1.0, 0.5]])
    wanted: Array = np.array([[0, 1]])
    for chosen, agrees in (([0, 1], True), ([2, 1], True), ([0, 0], False), ([0, 3], False)):
        assert tied_rows_agree(np.array([chosen]), wanted, scores).tolist() == [agrees], chosen
