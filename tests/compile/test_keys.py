"""What differs in one place of a key has another key: each place of each key, one after another.

`altered` names the places, so that a new field is among them. The records' keys, which are made of
regions and code, are in `test_record_keys.py`.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from altered import altered
from small_fixtures import Compiled

from lostwax.backends.artifact_writer import seal
from lostwax.backends.plan.layout import step_key
from lostwax.backends.plan.storage import Storage
from lostwax.backends.plan.variants import Variant
from lostwax.backends.plan.want import Want
from lostwax.backends.plan.weight_type import WeightType
from lostwax.backends.proof.make_probes import identified, stored_as
from lostwax.backends.runtime import boot_check
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.boot_check import check_boot
from lostwax.frontend.checkpoint import checkpoint_digest, open_checkpoint
from lostwax.frontend.config import ConfigError, read_config
from lostwax.frontend.safetensors_header import TensorHeader
from lostwax.ir.contract import step_layout
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.parameter import Scalar
from lostwax.ir.contract.probe import Certificates, Evidence, Probe
from lostwax.ir.contract.program import Bucket, Guard, Linear, Program
from lostwax.ir.contract.record import RecordKey
from lostwax.ir.contract.scale_layout import BlockScale, StoredFormat
from lostwax.ir.contract.step import StepOp
from lostwax.ir.contract.step_kernel import StepKernel
from lostwax.ir.contract.weights import Quantised

SOURCE = KernelSource(
    language="triton", path="a.b", symbol="f", signature={"x": "*f32"}, constants={"N": 4}
)
OUTPUTS = (("plan", "i32", (4, 2)), ("counts", "i32", (4,)))
RECORD = RecordKey(
    region="r", lowering="l", source="s", sku="k", libraries={"torch": "2"},
    values={"x": "bf16 [4, 2]", "w": "f8E4M3FN [2, 2]"}, cache="8 pages, all",
)  # fmt: skip
STEP_OP = StepOp(
    function="m:f", inputs=("positions", "q_starts"), outputs=OUTPUTS, consts={"n": 1}, allocates=8
)
STEP_KERNEL = StepKernel(
    source=SOURCE,
    arguments=("positions", Scalar("i32", 3), "plan"),
    outputs=OUTPUTS,
    grid=(4, 1, 1),
)
KEYS: dict[str, tuple[Any, Callable[[Any], object]]] = {
    "a record's": (RECORD, RecordKey.digest),
    "a kernel's source": (SOURCE, KernelSource.digest),
    "a step value by a host function": (STEP_OP, step_key),
    "a step value by a kernel": (STEP_KERNEL, step_key),
}


@pytest.mark.parametrize("name", KEYS)
def test_each_place_of_a_key_counts(name: str) -> None:
    whole, key = KEYS[name]
    places = dict(altered(whole))
    assert len(places) > len(whole.__struct_fields__)
    found = {key(whole): "as it is"}
    for place, other in places.items():
        assert key(other) not in found, f"{place} does not count beside {found[key(other)]}"
        found[key(other)] = place


def _smallest(probes: tuple[Probe, ...]) -> Probe:
    return min((p for p in probes if p.weights), key=lambda p: len(msgspec.json.encode(p)))


def test_each_place_of_a_probe_and_its_choice_counts(small_artifact: Compiled) -> None:
    probe = _smallest(ArtifactReader(small_artifact.artifact).probes().probes)
    choice = ("lowering", "region", {"x": "!lostwax.tensor<[4], f32>"}, {"tile": 2})
    found = {identified(probe, choice).id}
    others = [identified(probe, other).id for _, other in altered(choice)]
    for name in set(Probe.__struct_fields__) - {"id"}:
        for _, other in altered(getattr(probe, name)):
            others.append(identified(msgspec.structs.replace(probe, **{name: other}), choice).id)
    assert len(others) > 100
    assert len(found.union(others)) == 1 + len(others), "two probes have one id"


def test_each_place_of_a_manifest_counts_and_each_file(
    small_artifact: Compiled, tmp_path: Path
) -> None:
    (tmp_path / "graph").write_text("a")
    manifest = small_artifact.manifest
    few = msgspec.structs.replace(
        manifest, programs=manifest.programs[:2], requires={"torch": ("l",)}
    )
    digests = [seal(tmp_path, few).digest]
    for name in set(few.__struct_fields__) - {"digest", "files"}:
        for _, other in altered(getattr(few, name)):
            digests.append(seal(tmp_path, msgspec.structs.replace(few, **{name: other})).digest)
    (tmp_path / "graph").write_text("b")
    digests.append(seal(tmp_path, few).digest)
    (tmp_path / "graph").rename(tmp_path / "graphs")
    digests.append(seal(tmp_path, few).digest)
    assert len(digests) > 100
    assert len(set(digests)) == len(digests)


def test_evidence_of_another_artifact_device_code_or_schema_is_measured_again(
    torch_artifact: Compiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = ArtifactReader(torch_artifact.artifact)

    def ran(probe: Probe, driver: object) -> Evidence:
        return Evidence(state="executed")

    monkeypatch.setattr(boot_check, "run_probe", ran)

    class Device:
        fingerprint = "a device"

    device: Any = Device()
    assert check_boot(reader, device, (), tmp_path).ran > 0
    assert check_boot(reader, device, (), tmp_path).ran == 0, "it is kept"
    (path,) = tmp_path.iterdir()
    whole = msgspec.json.decode(path.read_bytes(), type=Certificates)
    for name in set(Certificates.__struct_fields__) - {"evidence"}:
        for place, other in altered(getattr(whole, name), name):
            changed = msgspec.structs.replace(whole, **{name: other})
            path.write_bytes(msgspec.json.encode(changed))
            assert check_boot(reader, device, (), tmp_path).ran > 0, place


def test_each_place_of_a_checkpoints_tensors_and_end_tokens_counts(small_checkpoint: Path) -> None:
    config = open_checkpoint(small_checkpoint).config
    tensors = {"a": TensorHeader("f", "f32", (4, 2)), "b": TensorHeader("g", "bf16", (3,))}
    digests = [checkpoint_digest(config, config, tensors)]
    digests += [checkpoint_digest(config, config, other) for _, other in _tensors(tensors)]
    for field in ("bos_token_id", "eos_token_ids"):
        changed: Any = {field: 3 if field == "bos_token_id" else (3, 4)}
        digests.append(checkpoint_digest(config, _replaced(config, changed), tensors))
    digests.append(checkpoint_digest(_replaced(config, {"digest": "other"}), config, tensors))
    assert len(set(digests)) == len(digests)


def _tensors(tensors: dict[str, TensorHeader]) -> list[tuple[str, dict[str, TensorHeader]]]:
    """Each place of a header, and a tensor more, fewer or of another name."""
    changed = [
        (place, tensors | {name: other})
        for name, header in tensors.items()
        for place, other in altered(header)
    ]
    renamed = {"a": tensors["a"], "c": tensors["b"]}
    return [*changed, ("fewer", {"a": tensors["a"]}), ("renamed", renamed)]


def _replaced(value: Any, changes: dict[str, Any]) -> Any:
    return replace(value, **changes)


def test_each_field_of_a_configuration_counts(small_checkpoint: Path, tmp_path: Path) -> None:
    path = small_checkpoint / "config.json"
    raw: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    other_path = tmp_path / "config.json"
    digests = [read_config(path).digest]
    for _, other in altered(raw):
        other_path.write_bytes(msgspec.json.encode(other))
        try:
            digests.append(read_config(other_path).digest)
        except ConfigError:  # no model: it has no key
            continue
    assert len(digests) > 10
    assert len(set(digests)) == len(digests)


NO_LAYOUT = {"PLAN", "SEQUENCES", "SENT_BOX", "RESULT_BOX", "STEP_OP", "BOXES"}
"""Names of states and launches: programs say them, and where they lead is checked."""
LAUNCHES = {"BODY_STEP", "DRAFT_STEP", "HEAD_STEP"}
"""What stands around a program, which programs say, too."""


def _constants() -> list[str]:
    tree = ast.parse(Path(step_layout.__file__).read_text())
    named = [node.targets[0] for node in tree.body if isinstance(node, ast.Assign)]
    names = [node.id for node in named if isinstance(node, ast.Name)]
    return [name for name in names if name not in NO_LAYOUT | LAUNCHES | {"LAYOUT", "_ORDER"}]


def _layout_with(name: str, value: object) -> str:
    """`LAYOUT` as the module makes it where one constant has another value."""
    tree = ast.parse(Path(step_layout.__file__).read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            node.value = ast.parse(repr(value), mode="eval").body
    made: dict[str, Any] = {"__name__": step_layout.__name__}
    exec(compile(tree, step_layout.__file__, "exec"), made)
    return made["LAYOUT"]


@pytest.mark.parametrize("name", _constants())
def test_each_constant_of_the_steps_memory_counts(name: str) -> None:
    value = getattr(step_layout, name)
    assert _layout_with(name, value) == step_layout.LAYOUT
    for place, other in altered(value, name):
        assert _layout_with(name, other) != step_layout.LAYOUT, place


def test_a_border_between_the_plans_arrays_counts() -> None:
    """One array that moves from those by sequence to those by logit row leaves their order."""
    tree = Path(step_layout.__file__).read_text()
    moved = tree.replace('"picks", "behind")', '"picks")').replace(
        "BY_LOGIT = (", 'BY_LOGIT = ("behind", '
    )
    assert moved != tree
    made: dict[str, Any] = {"__name__": step_layout.__name__}
    exec(compile(moved, step_layout.__file__, "exec"), made)
    assert made["SENT"] == step_layout.SENT
    assert made["LAYOUT"] != step_layout.LAYOUT


def test_each_place_of_a_weights_form_counts_for_its_probe() -> None:
    kinds = {n: WeightType((4, 4), "f32", None, StoredFormat(dtype="f32")) for n in ("a", "b")}
    form = Want(
        ("a", "b"),
        (1, 0),
        0,
        (2,),
        (2, 2),
        Quantised(dtype="f8", scale=BlockScale(rows=2, cols=2, dtype="f32")),
    )
    keys = {_digest(stored_as(Storage(kinds, (form,)), "a"))}
    others = [
        _replaced(form, {name: other})
        for name in ("perm", "axis", "pad", "tile", "quantised")
        for _, other in altered(getattr(form, name))
    ]
    assert {f.name for f in fields(form)} == {"parts", "perm", "axis", "pad", "tile", "quantised"}
    keys |= {_digest(stored_as(Storage(kinds, (other,)), "a")) for other in others}
    keys.add(_digest(stored_as(Storage(kinds, (form,)), "b")))
    wide = kinds | {"b": WeightType((4, 8), "f32", None, StoredFormat(dtype="f32"))}
    keys.add(_digest(stored_as(Storage(wide, (form,)), "a")))
    keys.add(_digest(stored_as(Storage(kinds, ()), "a")))
    assert len(keys) == len(others) + 4


def _digest(key: object) -> str:
    return hashlib.sha256(msgspec.json.encode(key, order="sorted")).hexdigest()


def test_each_place_of_a_program_that_the_host_picks_by_names_another_program() -> None:
    whole = Program(
        segment="decode", bucket=Bucket(8, 4, 2), guard=Guard("all", (Linear({"max_kv": 1}, 3),)),
        arena_bytes=0, prepare=(), blocks={}, calls=(), outputs={},
    )  # fmt: skip
    changes: list[dict[str, Any]] = [
        {"segment": "extend"},
        {"guard": Guard("chosen")},
        *({"bucket": other} for place, other in altered(whole.bucket) if place != ".rows"),
    ]
    names = [whole.name, *(msgspec.structs.replace(whole, **c).name for c in changes)]
    heads = [msgspec.structs.replace(whole, segment="pick", bucket=Bucket(rows=r)) for r in (1, 2)]
    names += [head.name for head in (*heads, msgspec.structs.replace(heads[0], segment="score"))]
    assert len(set(names)) == len(names) == 9


def test_each_place_of_a_variant_names_another_graph() -> None:
    variants = [Variant("decode", every, rows) for every in (False, True) for rows in (1, 2, 3)]
    variants += [Variant("extend", False), Variant("extend", True), Variant("draft", True)]
    assert len({variant.name for variant in variants}) == len(variants)
