"""What `lostwax container` writes: the right packages with their hashes, nothing that compiles."""

from __future__ import annotations

import json
import re
import shlex
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from command_line import Run, command_app, lostwax, one_sentence
from small_fixtures import Compiled, CompileSmall

from lostwax.backends.registry import UnknownTarget, find_target
from lostwax.backends.runtime.sku import sku_of
from lostwax.containers.describe import (
    TARGETS,
    Container,
    container_named,
    containers,
)
from lostwax.containers.render import Asked, compilers, default_image, rendered
from lostwax.containers.requirements import BadLock, locked, requirements
from lostwax.containers.write import WHEEL

NAMES = ("ascend-a2", "ascend-a3", "cpu", "cuda-h200", "cuda-b200", "rocm-mi300", "rocm-mi355")
PINNED = f"python@sha256:{'a' * 64}"
KNOWN = containers()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return partial(lostwax, capsys)


def files(name: str, **asked: object) -> dict[str, str]:
    container = container_named(name)
    fields = {"image": default_image(container), **asked}
    found = rendered(container, Asked(**fields))  # pyright: ignore[reportArgumentType]
    return {path: content.decode() for path, content in found.items()}


def instructions(dockerfile: str) -> list[str]:
    """A Dockerfile's instructions, one string each; comments and line ends are gone."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    return [" ".join(line.split()) for line in whole.splitlines() if line.strip()]


def test_there_is_a_container_for_every_target_that_is_named() -> None:
    assert set(KNOWN) == set(NAMES)
    for container in KNOWN.values():
        try:
            backend, _ = find_target(container.target)
        except UnknownTarget:  # Ascend's need its backend, which may not be installed
            assert container.target in ("ascend-910b", "ascend-910_93")
        else:
            assert container.name.startswith(backend.name)


def test_a_container_s_sku_is_one_that_records_have() -> None:
    """That of a device of its target, as its driver is asked: of Ascend's the arch is that name."""
    skus = {name: container.sku for name, container in KNOWN.items() if container.sku}
    assert skus == {
        "ascend-a2": "Ascend910B3", "ascend-a3": "Ascend910_9391", "cuda-b200": "B200",
        "cuda-h200": "H200", "rocm-mi300": "MI300X", "rocm-mi355": "MI355X",
    }  # fmt: skip
    for name, sku in skus.items():
        if name.startswith("ascend"):
            assert sku == sku_of(find_target(KNOWN[name].target)[1].arch)
        assert f"--sku {sku}`" in files(name)["README.md"]


@pytest.mark.parametrize("name", NAMES)
def test_equal_inputs_give_equal_bytes_and_no_template_is_left(name: str) -> None:
    found = files(name)
    assert found == files(name)
    for path, text in found.items():
        assert not re.search(r"{{|{%|%}", text), path
        assert text.endswith("\n"), path
        assert text == "\n".join(line.rstrip() for line in text.split("\n")), path


@pytest.mark.parametrize("name", NAMES)
def test_the_image_runs_as_nobody_and_says_how_it_is(name: str) -> None:
    lines = instructions(files(name)["Dockerfile"])
    assert lines[0] == "ARG BASE_IMAGE", "the base is the build's to name"
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:10001"]
    assert sum(line.startswith("HEALTHCHECK ") for line in lines) == 1
    assert not [line for line in lines if line.startswith("ADD ")]
    froms = [line for line in lines if line.startswith("FROM ")]
    assert froms[0] == "FROM ${BASE_IMAGE} AS base"
    assert froms[-2:] == ["FROM base AS serve", "FROM serve AS baked"]


@pytest.mark.parametrize("name", NAMES)
def test_every_package_has_the_hashes_of_the_lock(name: str) -> None:
    container = KNOWN[name]
    known = {
        (pin.name, pin.version): set(pin.hashes)
        for lock in ("core", "torch-cpu", *container.locks)
        for pin in locked(lock).values()
    }
    known["torch", "2.13.0"] = set(locked("core")["torch"].hashes)
    found = requirements(container)
    assert len(found) > 50
    for pin in found:
        assert pin.hashes
        assert set(pin.hashes) <= known[pin.name, pin.version]
    written = files(name)["requirements.txt"]
    assert re.findall(r"^([\w.-]+)==", written, re.M) == [pin.name for pin in found]
    assert written.count("--hash=sha256:") == sum(len(pin.hashes) for pin in found)


def hashes_of_torch(name: str) -> set[str]:
    return {h for pin in requirements(KNOWN[name]) if pin.name == "torch" for h in pin.hashes}


def test_each_container_has_the_build_of_torch_that_is_its() -> None:
    of_cpu = set(locked("torch-cpu")["torch"].hashes)
    assert hashes_of_torch("cpu") == hashes_of_torch("ascend-a3") == of_cpu
    assert hashes_of_torch("cuda-h200") == set(locked("core")["torch"].hashes) - of_cpu
    assert hashes_of_torch("rocm-mi300") == set()
    assert "TORCH_SHA256:?" in files("rocm-mi300")["Dockerfile"]
    assert "TORCH_SHA256" not in files("cuda-h200")["Dockerfile"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_compiled_ahead_is_served_without_a_compiler(name: str) -> None:
    container = KNOWN[name]
    packages = {pin.name for pin in requirements(container)}
    assert not packages & {"triton", "tilelang", "nvidia-cuda-nvcc", "hatchling"}
    searched = "-name 'ptxas*'" in files(name)["Dockerfile"]
    assert searched == (not container.compilers), "searched, or the reason is told"
    assert (f"holds compilers: {container.compilers}" in files(name)["README.md"]) != searched
    assert {"gcc", "ld", "nvcc", "hipcc*", "ptxas*"} <= set(compilers())


@pytest.mark.parametrize("name", NAMES)
def test_the_bill_of_materials_is_what_is_installed(name: str) -> None:
    bill = json.loads(files(name, base_image=PINNED)["sbom.cdx.json"])
    parts = {(each["name"], each["version"]) for each in bill["components"]}
    wanted = {(pin.name, pin.version) for pin in requirements(KNOWN[name])}
    assert parts == wanted | {("lostwax", "0.1.0")}
    assert {"name": "lostwax:base-image", "value": PINNED} in bill["metadata"]["properties"]
    other = json.loads(files(name)["sbom.cdx.json"])
    assert other["serialNumber"] != bill["serialNumber"]


@pytest.mark.parametrize("name", NAMES)
def test_the_host_s_devices_are_in_every_way_to_run_it(name: str) -> None:
    device, found = KNOWN[name].device, files(name)
    for path in (*device.nodes, *device.mounts):
        assert path in found["README.md"]
        assert path in found["compose.yaml"]
    assert ("--gpus all" in found["README.md"]) == device.gpus
    assert ("driver: nvidia" in found["compose.yaml"]) == device.gpus
    for manifest in ("deployment", "lws"):
        assert (device.resource or "requests:") in found[f"kubernetes/{manifest}.yaml"]
    assert ("was never built" in found["README.md"]) == (name != "cpu")


def test_a_target_that_nobody_runs_is_told_so() -> None:
    for name in NAMES:
        if name.startswith(("rocm", "ascend")):
            assert re.search(r"No (AMD GPU|Ascend NPU) has run any of this", KNOWN[name].checked)


def test_a_package_that_no_lock_has_cannot_be_left_out(tmp_path: Path) -> None:
    from msgspec.structs import replace

    stale: Container = replace(KNOWN["cuda-h200"], leave_out=("triton", "nothing"))
    with pytest.raises(BadLock, match="nothing is to be left out, and no lock has it"):
        requirements(stale)
    (tmp_path / "core.txt").write_text("numpy==2.4.6\n")
    with pytest.raises(BadLock, match="is no part of a pin with hashes"):
        locked("core", tmp_path)


def test_a_misspelt_fact_is_refused() -> None:
    import msgspec

    from lostwax.containers.describe import _Family  # pyright: ignore[reportPrivateUsage]

    text = (TARGETS / "cuda.toml").read_text()
    with pytest.raises(msgspec.ValidationError, match="leave_outs"):
        msgspec.toml.decode(text.replace("leave_out", "leave_outs"), type=_Family)


@pytest.mark.parametrize(
    ("line", "said"),
    {
        "cqu": "unknown container 'cqu'. Did you mean 'cpu'?",
        "cuda-sm90a": "unknown container 'cuda-sm90a'. Did you mean 'cuda-h200'?",
        "ascend-910b-npugraph": "Did you mean 'ascend-a2'?",
        "cpu --base-image python:3.11": "must be an image with its digest",
        "cpu --tag a;b": "must be a name such as registry/lostwax:1",
        "cpu --replicas 0": "--replicas must be in 1..4096, not 0",
        "cpu --nodes 2": "--nodes must be 1, not 2: the ranks of a model meet on one host",
        "cpu --build": "--build needs the image below ours by its digest",
        f"cpu --build --base-image {PINNED}": "--build needs lostwax's own wheel: --wheel FILE",
        "cpu --builder docker": "--builder would change nothing without --build; add it",
        "cpu --build-arg A=b --builder podman": "--builder and --build-arg would change nothing",
        "cpu --build-arg a": "must be NAME=VALUE",
        "cpu --records DIR": "--records lie in the image beside an artifact; give --artifact, too",
        "cpu --wheel FILE": f"is not the wheel of this lostwax; give {WHEEL}",
        "rocm-mi300 --artifact ART": "was compiled for cpu, and this container serves rocm-gfx942",
    }.items(),
)
def test_what_cannot_be_is_one_sentence(
    line: str, said: str, run: Run, tmp_path: Path, small_artifact: Compiled
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    places = {"ART": small_artifact.artifact, "FILE": tmp_path / "file", "DIR": tmp_path / "dir"}
    words = [places.get(word, word) for word in line.split()]
    status, out, err = run("container", *words, "-o", tmp_path / "out")
    assert (status, out) == (1, "")
    assert said in one_sentence(err)
    assert not (tmp_path / "out").exists()


def test_the_ranks_of_an_artifact_are_those_of_its_manifests(
    run: Run, tmp_path: Path, compile_small: CompileSmall
) -> None:
    compile_small(tmp_path / "artifact", tp=2)
    out = tmp_path / "out"
    given = ("--artifact", tmp_path / "artifact", "--replicas", 3)
    assert run("container", "cpu", "-o", out, *given)[0] == 0
    written = (out / "kubernetes" / "lws.yaml").read_text()
    assert "3 servers of the whole model" in written
    assert "(this one has 2) meet over a file of one host" in written
    assert "cpu: 4\n" in written


def blocks(page: str) -> list[list[str]]:
    """The commands of a page's blocks, word by word."""
    found = re.findall(r"^```\n(.*?)^```$", page, re.M | re.S)
    lines = (line for block in found for line in block.replace("\\\n", " ").splitlines())
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("baked", [False, True])
def test_the_commands_of_the_page_are_those_of_the_image(name: str, baked: bool) -> None:
    container = KNOWN[name]
    found = files(name, baked=baked)
    every = blocks(found["README.md"])
    build, run, doctor, bring_up, fetch = (line for line in every if line[0] == "docker")
    arguments = {word.partition("=")[0] for word in build if re.match("[A-Z][A-Z0-9_]*=", word)}
    required = set(re.findall(r'"\$\{(\w+):\?', found["Dockerfile"]))
    assert arguments == {"BASE_IMAGE", *required}
    stage = build[build.index("--target") + 1]
    assert f" AS {stage}\n" in found["Dockerfile"]
    image = default_image(container)
    assert build[-3:] == ["--tag", image, "."]
    set_here = {word.partition("=")[0] for line in every for word in line[:1] if "=" in word}
    asked = set(re.findall(r"\$\{(\w+):\?\}", " ".join(run)))
    assert set_here == asked == {"CHECKPOINT", "KEYS", *([] if baked else ["ARTIFACT"])}
    for line in (run, bring_up):
        assert {"--read-only", "--rm", "--cap-drop"} <= set(line)
    assert run[-1] == image, "the image's own command serves"
    target = container.target
    assert doctor[-3:] == [image, "doctor", target]
    words = [image, "bring-up", target, "--artifact", "/artifact", "--checkpoint", "/checkpoint"]
    assert bring_up[-9:] == [*words, "-o", "/var/lib/lostwax/report"]
    assert fetch[fetch.index("--entrypoint") + 2] == image
    for line in (run, doctor, bring_up):
        given = {word for option, word in pairwise(line) if option == "--device"}
        assert given == set(container.device.nodes)
        assert ("--gpus" in line) == container.device.gpus
    known = {n for a in command_app("bring-up").assemble_argument_collection() for n in a.names}
    assert {word for word in words if word.startswith("-")} <= known


def test_a_folder_that_is_in_use_is_not_written_over(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("container", "cpu")[0] == 0
    status, _, err = run("container", "cpu")
    assert status == 1
    assert "lostwax-cpu exists and is not empty; give -o DIR, or remove it" in one_sentence(err)


def test_a_build_that_fails_says_whose_words_to_read(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "podman").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\nexit 3\n')
    (tools / "podman").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    wheel = tmp_path / WHEEL
    wheel.touch()
    given = ("--base-image", PINNED, "--wheel", wheel, "--build-arg", "PIP_NO_INDEX=1")
    status, _, err = run("container", "cpu", "-o", tmp_path / "out", "--build", *given)
    assert status == 1
    assert "podman ended with 3; what it printed above says why" in one_sentence(err)
    assert (tmp_path / "said").read_text().split() == [
        *("build", "--format", "docker", "--target", "serve"),
        *("--build-arg", f"BASE_IMAGE={PINNED}", "--build-arg", "PIP_NO_INDEX=1"),
        *("--tag", "lostwax:0.1.0-cpu", str(tmp_path / "out")),
    ]
    monkeypatch.setenv("PATH", str(tmp_path))
    status, _, err = run("container", "cpu", "-o", tmp_path / "no", "--build", *given)
    assert status == 1
    assert "docker or podman or buildah is not installed" in one_sentence(err)
