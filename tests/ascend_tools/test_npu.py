"""What torch_npu says of the calls that are emitted, over stand-ins of CANN and fake tensors.

Shows that the schemas take each call and that results have the shapes that the twins give them; not
that CANN has the kernels, nor what they compute.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from ascend_tools.environments import ROOT, python_of

from lostwax.backends.ascend.contract.entry_points import ENTRY_POINTS
from lostwax.backends.ascend.contract.rules import RULES
from lostwax.backends.ascend.contract.snapshot import SNAPSHOT
from lostwax.backends.compile import CompileOptions, compile_module
from lostwax.backends.plan.sizes import Sizes
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config

pytestmark = pytest.mark.ascend
TOOLS = Path(__file__).parent
PYTHON = python_of("npu")
NAMES = sorted({name for names in ENTRY_POINTS.values() for name in names})
FULL = json.loads((ROOT / "examples" / "deepseek-v3.2.json").read_text()) | {
    "num_hidden_layers": 4, "num_nextn_predict_layers": 0,
}  # fmt: skip


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Libraries in place of CANN's."""
    if not PYTHON.exists():
        pytest.fail("no environment of torch_npu: run tests/ascend_tools/environments.py npu")
    folder = tmp_path_factory.mktemp("cann")
    built = subprocess.run(
        [PYTHON, TOOLS / "cann_stub.py", folder, *NAMES], capture_output=True, text=True, check=True
    )
    assert int(built.stdout) > 50
    return folder


def ask(stub: Path, *arguments: object) -> bytes:
    """What npu_calls.py writes."""
    out = stub / "answer"
    environment = os.environ | {"LD_LIBRARY_PATH": str(stub), "PYTHONPATH": str(ROOT / "src")}
    command = [PYTHON, TOOLS / "npu_calls.py", out, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    return out.read_bytes()


def test_the_kept_schemas_are_those_of_torch_npu(stub: Path) -> None:
    assert ask(stub, "schemas") == SNAPSHOT.read_bytes()


def test_twins_give_what_torch_npu_says_of_shapes_and_types(stub: Path) -> None:
    """But for results that nobody reads."""
    assert json.loads(ask(stub, "twins")) == {}


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """V3.2's widths in W8A8: three dense layers and one of experts, without weights."""
    captured = capture(parse_config(FULL))
    options = CompileOptions(sizes=Sizes(max_context=8192, max_tokens=512, max_reqs=64))
    out = tmp_path_factory.mktemp("full") / "artifact"
    compile_module(captured.module, captured.facts, {}, "ascend-910b", out, options)
    return out


def test_every_call_of_full_width_is_taken_by_torch_npu(stub: Path, full: Path) -> None:
    found = json.loads(ask(stub, "calls", full))
    assert found["calls"] > len(RULES)
    assert found["operators"].keys() == RULES.keys()
    assert found["replaced"] == {}


def test_a_whole_decode_layer_is_exported(stub: Path, full: Path) -> None:
    """As one graph of torch.export, in which no operator is lost."""
    names = json.loads(ask(stub, "export", full))
    counts = Counter(names)
    assert counts.keys() == RULES.keys()
    assert counts["npu_scatter_nd_update_"] == 1, "index keys"
    assert counts["npu_kv_rmsnorm_rope_cache"] == 1, "latents and rope keys"
    assert counts["npu_grouped_matmul"] == 2
    order = ("npu_lightning_indexer", "npu_sparse_flash_attention", "npu_moe_gating_top_k")
    places = [names.index(name) for name in order]
    assert places == sorted(places)


def test_every_call_of_a_small_model_is_taken_by_torch_npu(stub: Path, tmp_path: Path) -> None:
    from model_formats import LITTLE

    captured = capture(parse_config(LITTLE))
    out = tmp_path / "little"
    options = CompileOptions(sizes=Sizes(max_context=512, max_tokens=64, max_reqs=4))
    compile_module(captured.module, captured.facts, {}, "ascend-910_93", out, options)
    found = json.loads(ask(stub, "calls", out))
    assert set(found["operators"]) == set(RULES) - {"npu_moe_gating_top_k"}, "two experts a group"
