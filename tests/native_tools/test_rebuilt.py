"""The libraries that come with the package beside a rebuild of their sources, by digest."""

from __future__ import annotations

import hashlib

import pytest
from native_tools.environment import FOLDER, compiler_python

from lostwax.backends.cpu import build_library
from lostwax.backends.cpu.build_library import BUILDS
from lostwax.backends.cpu.library import libraries

pytestmark = pytest.mark.sanitisers


@pytest.mark.parametrize("name", BUILDS)
def test_a_rebuild_has_the_same_bytes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (FOLDER / "made-of").exists():
        pytest.fail("no compiler: run tests/native_tools/environment.py")

    def compiler(module: str) -> list[str]:
        return [str(compiler_python()), "-m", module]

    monkeypatch.setattr(build_library, "own_program", compiler)
    rebuilt = hashlib.sha256(build_library.built(BUILDS[name])).hexdigest()
    for arch in BUILDS[name].archs:
        assert libraries()[arch].digest == rebuilt, (
            "run python -m lostwax.backends.cpu.build_library"
        )
