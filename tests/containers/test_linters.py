"""Each container's files before the tools that are made for them: hadolint, HCL, CycloneDX."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module  # lint knows nothing that only this lane installs
from pathlib import Path
from typing import Any

import pytest

from lostwax.containers.describe import containers
from lostwax.containers.render import Asked, default_image, rendered

pytestmark = pytest.mark.containers
PINNED = f"python@sha256:{'a' * 64}"


def folder(name: str) -> dict[str, str]:
    container = containers()[name]
    found = rendered(container, Asked(default_image(container), PINNED))
    return {path: content.decode() for path, content in found.items()}


def hadolint(dockerfile: str) -> tuple[int, str]:
    command = [Path(sys.executable).with_name("hadolint"), "--no-color", "-"]
    done = subprocess.run(command, input=dockerfile, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", containers())
def test_hadolint_has_nothing_to_say(name: str) -> None:
    assert hadolint(folder(name)["Dockerfile"]) == (0, "")


def test_hadolint_would_say_it() -> None:
    text = folder("cpu")["Dockerfile"]
    status, said = hadolint(text.replace("WORKDIR /var/lib", "WORKDIR var/lib"))
    assert status == 1
    assert "DL3000" in said
    status, said = hadolint(text.replace("FROM base AS serve", "FORM base AS serve"))
    assert status == 1
    assert "unexpected" in said


@pytest.mark.parametrize("name", containers())
def test_the_bake_file_builds_stages_that_there_are(name: str) -> None:
    files = folder(name)
    hcl: Any = import_module("hcl2")
    found: dict[str, Any] = hcl.loads(files["docker-bake.hcl"])
    targets = {name.strip('"'): each for block in found["target"] for name, each in block.items()}
    assert set(targets) == {"serve", "baked"}
    for target in targets.values():
        stage = target["target"].strip('"')
        assert f" AS {stage}\n" in files["Dockerfile"]
    variables = {each.strip('"') for block in found["variable"] for each in block}
    assert set(targets["serve"]["args"]) | {"IMAGE"} == variables
    for each in targets["serve"]["args"]:
        assert f"ARG {each}" in files["Dockerfile"]


@pytest.mark.parametrize("name", containers())
def test_the_bill_of_materials_is_cyclonedx(name: str) -> None:
    schema: Any = import_module("cyclonedx.schema")
    validation: Any = import_module("cyclonedx.validation.json")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    text = folder(name)["sbom.cdx.json"]
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"purl"', '"pearl"')) is not None


@pytest.mark.parametrize("name", ["ascend-a2", "ascend-a3"])
def test_the_shell_reads_what_starts_ascends_server(name: str) -> None:
    done = subprocess.run(["bash", "-n"], input=folder(name)["enter.sh"], text=True, check=False)
    assert done.returncode == 0
