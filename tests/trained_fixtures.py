"""The trained tiny model of this repository, compiled for the CPU once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

TRAINED = Path(__file__).parents[1] / "models" / "tiny" / "weights"


@pytest.fixture(scope="session")
def trained_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its artifact in fp32, with its tokenizer; tests must not change it."""
    from lostwax.cli.compile import compile_checkpoint

    out = tmp_path_factory.mktemp("trained") / "artifact"
    compile_checkpoint(
        TRAINED, out, target="cpu", dtype="fp32", max_context=1024, max_tokens=256, max_reqs=4
    )
    return out
