"""A new op, from dialect to answers, in four small files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import PROMPT, greedy, options
from small_fixtures import Compiled
from tutorial_files import MOST_LINES, install, lines_of
from xdsl.parser import Parser
from xdsl.pattern_rewriter import (
    PatternRewriter,
    PatternRewriteWalker,
    RewritePattern,
    op_type_rewrite_pattern,
)
from xdsl.utils.exceptions import VerifyException

from lostwax.backends.compile import compile_module
from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.target import CPU
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.cover import find_sites
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.proof.check import certify_lowering
from lostwax.backends.proof.run_alone import run_alone
from lostwax.backends.proof.step_cases import step_case
from lostwax.backends.runtime.driver import no_kernels
from lostwax.backends.runtime.load import load
from lostwax.ir import dialects
from lostwax.ir.contract.program import Bucket, Guard
from lostwax.ir.dialects.core import SiluMulOp
from lostwax.ir.passes.pipeline import run
from lostwax.ir.passes.specialise import SpecialisePass
from lostwax.ir.reference.interpret import meaning

TEXT = """
func.func @f(%a: !IN, %b: !IN) -> !OUT {
  %y = "act.relu2_mul"(%a, %b) : (!IN, !IN) -> !OUT
  func.return %y : !OUT
}
"""


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:  # modules made at run time
    """The op's files in their places, and the dialect's name in `DIALECTS`."""
    monkeypatch.setattr(dialects, "DIALECTS", (*dialects.DIALECTS, "act"))
    install(monkeypatch, "op/dialect.py", "lostwax.ir.dialects.act")
    install(monkeypatch, "op/reference.py", "lostwax.ir.reference.act")
    install(monkeypatch, "op/kernels.py", "lostwax.backends.portable.kernels.act")
    return install(monkeypatch, "op/lowerings.py", "lostwax.backends.portable.lowerings.act")


def test_the_op_takes_less_than_sixty_lines() -> None:
    assert lines_of("op") < MOST_LINES


@pytest.mark.usefixtures("installed")
def test_the_op_parses_prints_verifies_and_means_something() -> None:
    text = TEXT.replace("!IN", "!lostwax.tensor<[T, 8], f32>")
    good = text.replace("!OUT", "!lostwax.tensor<[T, 8], f32>")
    module = Parser(dialects.context(), good).parse_module()
    module.verify()
    assert '"act.relu2_mul"(%a, %b)' in str(module)
    wrong = text.replace("!OUT", "!lostwax.tensor<[T, 9], f32>")
    with pytest.raises(VerifyException, match="shapes differ"):
        Parser(dialects.context(), wrong).parse_module().verify()
    two = np.array([-1.0, 3.0]), np.array([5.0, 2.0])
    assert meaning("act.relu2_mul")(*two).tolist() == [0.0, 18.0]


@pytest.fixture
def module(small_capture: Any, installed: Any):
    """The captured model with the new activation: what a changed frontend/model would give."""
    op = installed.Relu2MulOp

    class UseRelu2(RewritePattern):
        @op_type_rewrite_pattern
        def match_and_rewrite(self, old: SiluMulOp, rewriter: PatternRewriter, /) -> None:
            new = op.create(operands=old.operands, result_types=[old.out.type])
            rewriter.replace(old, new)

    changed = small_capture.module.clone()
    PatternRewriteWalker(UseRelu2()).rewrite_module(changed)
    changed.verify()
    return changed


def test_the_lowering_passes_the_conformance_kit(module: Any, installed: Any) -> None:
    made = run(module.clone(), (SpecialisePass(segment="extend"),))
    bucket = Bucket(tokens=7, reqs=2, pages=2, rows=2)
    context = ProgramContext(made, CPU, "extend", bucket, Guard("always"))
    case = step_case(bucket, "extend", 1, page_tokens=64, vocab_size=64)
    ((_, match),) = find_sites(context.blocks["dense"], [installed.RELU2_MUL])
    candidate = Candidate(context, context.blocks["dense"], match, installed.RELU2_MUL)
    alone = run_alone(candidate, lambda: CpuDriver(CPU, no_kernels, {}), _no_kernel, {})
    certificate = certify_lowering(
        alone, match, [case], lowering=candidate.name, state="executed", tool_versions={}
    )
    assert certificate.max_error is not None
    assert certificate.max_error < 1e-2  # bf16


def _no_kernel(source: object) -> Any:
    raise AssertionError("a host call needs no kernel")


def test_a_model_that_uses_the_op_compiles_and_answers(
    module: Any,
    installed: Any,
    small_capture: Any,
    small_artifact: Compiled,
    tmp_path: Path,
) -> None:
    c = small_capture
    chosen = options(extra_lowerings=(installed.RELU2_MUL,))
    compile_module(module, c.facts, c.weights, "cpu", tmp_path / "a", chosen)
    found = greedy(load(tmp_path / "a", checkpoint=small_artifact.checkpoint), PROMPT, 12)
    plain = greedy(load(small_artifact.artifact, checkpoint=small_artifact.checkpoint), PROMPT, 12)
    assert len(found) == 12
    assert found != plain, "another activation is another model"
