"""The rules of native kernels are the sources', say all that a kernel touches, and are kept: a
launch that breaks one is refused by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from guarded_launch import described, harmed, run_guarded
from msgspec import structs
from native_kernels import build_native, native_driver
from native_samples import SOME, sample
from small_fixtures import Compiled

from lostwax.backends.cpu import pool
from lostwax.backends.cpu.contract.check_native import Unfit, appended, check_native
from lostwax.backends.cpu.contract.rule import MOST, Memory, Numbers, Rule
from lostwax.backends.cpu.contract.rule import Parameter as Wanted
from lostwax.backends.cpu.contract.rules import RULES
from lostwax.backends.cpu.library import KERNELS, libraries, library_bytes
from lostwax.backends.cpu.pool import NativePool
from lostwax.backends.cpu.target import CPU
from lostwax.backends.runtime.artifact_reader import ArtifactError, ArtifactReader
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.parameter import Null, Parameter, Pointer, Scalar
from lostwax.ir.contract.program import KernelLaunch

_SYMBOL = re.compile(r'^(?:KERNEL_OF\(|(?:extern "C" )?void KERNEL\()(\w+)', re.MULTILINE)
SAMPLES = 12
"""Of each kernel."""
MANY = 60
"""Enough that one of them touches the last element of whatever it may."""
LONGEST = 1 << 20
"""The largest integer of a launch that is run."""
EACH = 2
"""Launches of each kernel of an artifact."""


def test_every_kernel_of_the_sources_has_a_rule_and_no_other() -> None:
    texts = (path.read_text() for path in KERNELS.glob("*.cpp"))
    assert {name for text in texts for name in _SYMBOL.findall(text)} == set(RULES)


@pytest.fixture(params=["least", "most"])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> NativePool:
    """The library's kernels for what it asks for at least, or for all that is here."""
    if request.param == "least":
        least = set(libraries()[CPU.arch].features)
        monkeypatch.setattr(pool, "_processor_features", lambda: least)
    return NativePool(CPU.arch, library_bytes(CPU.arch))


def _harm(native: NativePool, launches: Sequence[KernelLaunch]) -> str | None:
    rng = np.random.default_rng(len(launches))
    return harmed(launches, lambda each: run_guarded(each, native.kernel(each.symbol), rng))


def test_a_kernel_touches_no_more_than_its_rule_says(native: NativePool) -> None:
    """Whatever lies in tables, slots, positions, ids and the count of real rows."""
    rng = np.random.default_rng(0)
    assert _harm(native, [sample(name, rng) for name in RULES for _ in range(SAMPLES)]) is None


def _shorter(rule: Rule, name: str) -> Rule:
    """The rule without one element of a pointer, or without half of a thread's scratch."""

    def half(n: Numbers) -> int:
        return rule.scratch_bytes(n) // 128 * 64

    def short(each: Wanted) -> Wanted:
        if not isinstance(each, Memory) or each.name != name:
            return each

        def reach(n: Numbers) -> int:
            return max(each.reach(n) - 1, 0)

        return replace(each, reach=reach)

    if name == "scratch":
        return replace(rule, scratch_bytes=half)
    return replace(rule, parameters=tuple(map(short, rule.parameters)))


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("linear_f32", "x"),
        ("linear_bf16_f8_f32", "weight_scales"),
        ("linear_f32_s8_f32", "weight_scales"),
        ("linear_q8_f8_f32", "x_scales"),
        ("experts_gate_up_bf16", "up"),
        ("quantise_f32_f8", "scales"),
        ("append_scaled_bf16", "values"),
        ("index_logits_fp8", "q_scales"),
        ("index_logits_fp8", "scratch"),
        ("attend_f32", "selection"),
        ("attend_bf16", "scratch"),
        ("rotate_f32", "table"),
        ("index_logits_f32", "logits"),
        ("route_f32", "scratch"),
    ],
)
def test_a_rule_that_says_too_little_is_noticed(
    monkeypatch: pytest.MonkeyPatch, symbol: str, name: str
) -> None:
    monkeypatch.setitem(RULES, symbol, _shorter(RULES[symbol], name))
    rng = np.random.default_rng(0)
    launches = [sample(symbol, rng) for _ in range(MANY)]
    assert (_harm(NativePool(CPU.arch, library_bytes(CPU.arch)), launches) or "")[:7] == "SIGSEGV"


def _launches(artifact: Path) -> list[KernelLaunch]:
    """Native launches of its programs: the first few of each kernel that differ in integers."""
    reader = ArtifactReader(artifact)
    found: dict[str, KernelLaunch] = {}
    for ref in reader.manifest.programs:
        program = reader.program(ref.file)
        for launches in (program.prepare, *program.blocks.values(), program.finish):
            for launch in launches:
                if isinstance(launch, KernelLaunch):
                    found.setdefault(described(launch), launch)
    of_kernel: dict[str, list[KernelLaunch]] = {}
    for launch in found.values():
        of_kernel.setdefault(launch.symbol, []).append(launch)
    return [launch for launches in of_kernel.values() for launch in launches[:EACH]]


def _changed(launch: KernelLaunch) -> Iterator[tuple[str, KernelLaunch]]:
    """The launch with one integer changed, one pointer null, or two that change places, and the
    name of what is wrong."""
    names = [each.name for each in RULES[launch.symbol].parameters]
    for i, param in enumerate(launch.params):
        others: list[Parameter] = []
        if isinstance(param, Scalar) and isinstance(param.value, int):
            n = param.value
            others = [Scalar("i32", v) for v in (0, -1, n - 1, n + 1, 2 * n, MOST) if v != n]
        elif isinstance(param, Pointer):
            others = [Null(), Scalar("i32", 0)]
        for other in others:
            yield names[i], _with(launch, {i: other})
        for j in range(i):
            if isinstance(param, Pointer) and isinstance(launch.params[j], Pointer):
                yield "", _with(launch, {i: launch.params[j], j: param})


def _with(launch: KernelLaunch, changes: dict[int, Parameter]) -> KernelLaunch:
    params = (changes.get(i, each) for i, each in enumerate(launch.params))
    return structs.replace(launch, params=tuple(params))


def _refusal(launch: KernelLaunch) -> str | None:
    try:
        check_native(launch)
    except Unfit as error:
        return str(error)
    return None


def _is_short(launch: KernelLaunch) -> bool:
    """Whether it is over soon: so many rows of no width touch nothing, for minutes."""
    values = (each.value for each in launch.params if isinstance(each, Scalar))
    return all(value <= LONGEST for value in values if isinstance(value, int))


def _tried(native: NativePool, launches: Sequence[KernelLaunch]) -> None:
    """Each launch with each of its changes is refused by name, or stays inside."""
    refused, inside = 0, list[KernelLaunch]()
    for launch in launches:
        assert _refusal(launch) is None
        inside.append(launch)
        for name, changed in _changed(launch):
            if (why := _refusal(changed)) is None:
                inside += [changed] if _is_short(changed) else []
                continue
            refused += 1
            assert f"native kernel {launch.symbol}: " in why
            assert name in why
    assert _harm(native, inside) is None
    assert refused > len(inside) > 5 * len(launches)


def test_a_changed_launch_is_refused_or_stays_inside(native: NativePool) -> None:
    rng = np.random.default_rng(2)
    _tried(native, [sample(name, rng, SOME) for name in RULES])


def test_a_changed_launch_of_an_artifact_is_refused_or_stays_inside(
    native: NativePool, small_artifact: Compiled
) -> None:
    _tried(native, _launches(small_artifact.artifact))


def test_a_view_that_lacks_one_element_is_refused() -> None:
    rng = np.random.default_rng(3)
    for symbol in RULES:
        launch = sample(symbol, rng, SOME)
        for i, param in enumerate(launch.params):
            if isinstance(param, Pointer) and param.view.space == "arena":
                view = structs.replace(param.view, shape=(param.view.shape[0] - 1,))
                why = _refusal(_with(launch, {i: Pointer(view)}))
                assert why is not None
                assert f"bytes of {param.view.name}, which has {view.span_bytes}, by" in why


def test_less_scratch_than_a_thread_takes_is_refused() -> None:
    rng = np.random.default_rng(1)
    for symbol in RULES:
        launch = sample(symbol, rng)
        if launch.shared_bytes:
            less = structs.replace(launch, shared_bytes=launch.shared_bytes - 1)
            with pytest.raises(Unfit, match=rf"{symbol}.*{launch.shared_bytes} bytes of scratch"):
                check_native(less)


def test_a_cache_without_pages_is_refused() -> None:
    with pytest.raises(Unfit, match="attend_f32: cache has no pages"):
        appended(sample("attend_f32", np.random.default_rng(1)), lambda view: 0)


def test_the_driver_names_lowering_kernel_number_and_remedy() -> None:
    driver, launch = native_driver(), sample("add_f32", np.random.default_rng(1))
    source = KernelSource(language="cpp", path="native.cpp", symbol="add_f32")
    launch = structs.replace(launch, binary=build_native(source).binary)
    wider = _with(launch, dict.fromkeys((4, 8), Scalar("i32", 1000)))
    wanted = (
        r"cpu_native_sample: native kernel add_f32: touches \d+ bytes of a, which has \d+, by"
        r" T 1000, .*; recompile"
    )
    with pytest.raises(ArtifactError, match=wanted):
        driver.bind(wider, lambda view: torch.zeros(1))
    unknown = structs.replace(launch, symbol="pool_destroy")
    with pytest.raises(ArtifactError, match="no native kernel 'pool_destroy'"):
        driver.bind(unknown, lambda view: torch.zeros(1))


def test_a_kernel_without_a_rule_is_not_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = sample("add_f32", np.random.default_rng(1))
    monkeypatch.delitem(RULES, "add_f32")
    with pytest.raises(Unfit, match="no native kernel 'add_f32'"):
        check_native(launch)
