"""The captured module: valid, stable text, and a cost that does not grow with the layers."""

import io
import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import DEEP, MTP, ODD, PLAIN, Config, write_config
from xdsl.dialects import builtin, func
from xdsl.parser import Parser
from xdsl.printer import Printer

from lostwax.frontend.capture import Captured, capture
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.frontend.config import parse_config
from lostwax.frontend.config_fields import ConfigError
from lostwax.frontend.formats import format_of_kind
from lostwax.frontend.importer import Argument, ImportRefused, import_block
from lostwax.frontend.new_checkpoint import new_checkpoint
from lostwax.ir.contract.program import HEADS, Segment
from lostwax.ir.contract.scale_layout import StoredFormat
from lostwax.ir.contract.step import operands_of
from lostwax.ir.dialects import context
from lostwax.ir.dialects.core import CallOp
from lostwax.ir.scale_layouts import STORED

ROOT = Path(__file__).parents[2]
FULL = json.loads((ROOT / "examples" / "deepseek-v3.2.json").read_text())


def text(module: builtin.ModuleOp) -> str:
    stream = io.StringIO()
    Printer(stream).print_op(module)
    return stream.getvalue() + "\n"


@pytest.fixture(scope="module")
def odd():
    return capture(parse_config(ODD))


def functions(module: builtin.ModuleOp):
    return {f.sym_name.data: f for f in module.ops if isinstance(f, func.FuncOp)}


def stored_in(function: func.FuncOp) -> list[StoredFormat]:
    attributes: Any = function.arg_attrs
    return [attrs.data[STORED].format for attrs in attributes.data if STORED in attrs.data]


def attrs_of(function: func.FuncOp, name: str) -> list[str]:
    attributes: Any = function.arg_attrs  # an array of dictionaries
    found = [attrs.data.get(name) for attrs in attributes.data]
    return [a.data for a in found if a is not None]


def calls_of(function: func.FuncOp) -> list[tuple[str, str]]:
    """Callee and prefix of each call, in order."""
    calls = [op for op in function.walk() if isinstance(op, CallOp)]
    return [(c.callee.root_reference.data, c.prefix.data) for c in calls]


def test_the_module_verifies_and_its_text_parses_back_to_the_same_module(odd: Captured):
    odd.module.verify()
    parsed = Parser(context(), text(odd.module)).parse_module()
    parsed.verify()
    assert text(parsed) == text(odd.module)
    assert parsed.is_structurally_equivalent(odd.module)


def test_two_captures_give_the_same_text(odd: Captured):
    assert text(capture(parse_config(ODD)).module) == text(odd.module)


def test_each_block_kind_is_one_function_however_many_layers(odd: Captured):
    two, six = odd, capture(parse_config(DEEP))
    ends = ["norm", "pick_head", "sample_head", "score_head"]
    kinds = ["embed", "dense", "moe", *ends, "body", *HEADS]
    assert list(functions(two.module)) == list(functions(six.module)) == kinds
    calls = calls_of(functions(six.module)["body"])
    assert [callee for callee, _ in calls] == ["embed"] + 2 * ["dense"] + 4 * ["moe"] + ["norm"]
    assert [prefix for _, prefix in calls[1:3]] == ["model.layers.0.", "model.layers.1."]


def test_a_model_without_dense_layers_has_no_dense_function():
    module = capture(parse_config(ODD | {"first_k_dense_replace": 0})).module
    assert "dense" not in functions(module)


def test_arguments_are_carries_step_inputs_caches_then_weights(odd: Captured):
    moe = functions(odd.module)["moe"]
    hints = [a.name_hint for a in moe.body.block.args]
    head = ["delta", "residual", "positions", "slots", "q_starts", "page_table"]
    assert hints[:8] == [*head, "latent", "index_key"]
    assert attrs_of(moe, "lostwax.carry") == head[:2]
    assert attrs_of(moe, "lostwax.input") == head[2:]
    assert len(attrs_of(moe, "lostwax.weight")) == len(hints) - 8
    assert "mlp.experts.gate_proj.weight" in attrs_of(moe, "lostwax.weight")
    functions_of: dict[Segment, str] = {"extend": "body", **{head: head for head in HEADS}}
    for segment, function in functions_of.items():
        inputs = attrs_of(functions(odd.module)[function], "lostwax.input")
        assert inputs == list(operands_of(segment))


def test_written_caches_are_results_that_alias_their_argument(odd: Captured):
    moe = functions(odd.module)["moe"]
    attributes: Any = moe.res_attrs
    aliases = [a.data.get("lostwax.alias") for a in attributes.data]
    assert [a and a.value.data for a in aliases] == [None, None, 6, 7]
    assert moe.function_type.outputs.data[2:] == moe.function_type.inputs.data[6:8]


def test_every_weight_of_a_checkpoint_is_an_argument_and_has_its_stored_format(tmp_path: Path):
    source = write_config(tmp_path / "source", MTP)
    new_checkpoint(source, tmp_path / "checkpoint", seed=0, format="fp8")
    checkpoint = open_checkpoint(tmp_path / "checkpoint")
    captured = capture(checkpoint)
    blocks = functions(captured.module)
    used: set[str] = set()
    segments = ("body", "draft", *HEADS)
    for callee, prefix in chain.from_iterable(calls_of(blocks[name]) for name in segments):
        weights = attrs_of(blocks[callee], "lostwax.weight")
        stored = stored_in(blocks[callee])
        for name, how in zip(weights, stored, strict=True):
            assert checkpoint.formats[prefix + name] == how
            used.add(prefix + name)
    assert used == set(captured.weights)
    assert captured.facts.digest == checkpoint.digest
    assert captured.facts.num_layers == 3


def test_a_draft_runs_the_mtp_layer_between_the_main_models_ends():
    module = capture(parse_config(MTP)).module
    draft = functions(module)["draft"]
    assert calls_of(draft) == [("embed", ""), ("mtp", "model.layers.3.")]
    assert attrs_of(draft, "lostwax.state") == ["hidden"]
    for name in ("body", "draft"):
        attributes: Any = functions(module)[name].res_attrs
        assert ["lostwax.state" in attrs.data for attrs in attributes.data] == [True]
    for head in HEADS:
        states = ["hidden"] if head == "pick" else ["hidden", "counts", "biases", "masks"]
        assert attrs_of(functions(module)[head], "lostwax.state") == states


@pytest.mark.parametrize("layers", [0, 2])
def test_without_exactly_one_mtp_layer_nothing_drafts(layers: int):
    module = capture(parse_config(MTP | {"num_nextn_predict_layers": layers})).module
    assert "draft" not in functions(module)


def test_layers_of_one_kind_that_are_stored_differently_are_refused():
    formats = {
        f"{name}.w": StoredFormat(dtype=dtype) for name, dtype in (("a", "bf16"), ("b", "f32"))
    }
    with pytest.raises(ConfigError, match=r"b\.w is stored as f32, a\.w as bf16"):
        format_of_kind(formats, "moe", ["a.", "b."], "w")


def test_the_page_size_is_a_choice_of_the_capture():
    module = capture(parse_config(PLAIN), page_tokens=16).module
    assert '!lostwax.cache<"latent", N, 16, [128, 16], "bf16">' in text(module)
    assert "!lostwax.tensor<[T, 16*P], f32>" in text(module)


class Baked(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.constant = torch.ones(4)

    def forward(self, x: torch.Tensor):
        return (x + self.constant,)


class Aten(torch.nn.Module):
    def forward(self, x: torch.Tensor):
        return (torch.relu(x),)


class CacheView(torch.nn.Module):
    def forward(self, cache: torch.Tensor):
        return (cache.view(-1, 4),)


def test_the_importer_refuses_what_the_ir_cannot_say_by_name():
    def refused(module: torch.nn.Module, argument: Argument):
        program = torch.export.export(module, (torch.zeros(6, 4),))
        (name,) = [
            s.arg.name for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"
        ]
        with pytest.raises(ImportRefused) as caught:
            import_block(context(), "block", program, {name: argument}, {"constant": {}})
        return str(caught.value)

    from lostwax.ir.types import CacheType

    assert "aten.relu.default" in refused(Aten(), Argument({}, {}))
    assert "aten.add.Tensor" in refused(Baked(), Argument({}, {}))
    cache = CacheType.of("latent", "N", 6, [4], "f32")
    assert "views a cache" in refused(CacheView(), Argument({}, {}, cache))


CHILD = """
import json, resource, sys, time
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
report = capture(parse_config(json.load(sys.stdin))).report
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([report.seconds, time.process_time(), peak]))
"""


def captured_in_a_process(config: Config):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps(config), capture_output=True, text=True, check=True, env=env,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_the_full_model_captures_in_under_30_s_and_4_gib_whatever_its_depth():
    seconds, cpu_seconds, peak = captured_in_a_process(FULL)
    _, few_cpu_seconds, few_peak = captured_in_a_process(FULL | {"num_hidden_layers": 4})
    assert seconds < 30
    assert peak < 4 << 30
    assert cpu_seconds < few_cpu_seconds + 5
    assert peak < few_peak + (64 << 20)
