"""A new target: one op of its own, portable's lowerings for the rest, in four small files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from small import PROMPT, greedy
from small_fixtures import Compiled
from tutorial.target.toy import BACKEND
from tutorial_files import MOST_LINES, lines_of

from lostwax.backends.registry import UnknownTarget
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.load import load
from lostwax.ir.contract.artifact import Manifest
from lostwax.ir.contract.choice import Choices

CompileSmall = Callable[..., Manifest]


def test_the_target_takes_less_than_sixty_lines() -> None:
    assert lines_of("target") < MOST_LINES


def test_the_target_compiles_and_gives_the_cpus_tokens(
    small_artifact: Compiled, compile_small: CompileSmall, tmp_path: Path
) -> None:
    compile_small(tmp_path / "a", target="toy", extra_backends=(BACKEND,))
    choices = ArtifactReader(tmp_path / "a").structure("choices.json", Choices)
    own = {c.lowering for p in choices.programs.values() for c in p if "toy" in c.lowering}
    others = {c.lowering for p in choices.programs.values() for c in p} - own
    assert own == {"toy_rms_norm"}
    assert others
    assert all(name.startswith("portable_") for name in others)
    checkpoint = small_artifact.checkpoint
    here = load(tmp_path / "a", checkpoint=checkpoint, extra_backends=(BACKEND,))
    expected = greedy(load(small_artifact.artifact, checkpoint=checkpoint), PROMPT, 12)
    assert greedy(here, PROMPT, 12) == expected


def test_a_target_that_is_not_installed_is_unknown(
    compile_small: CompileSmall, tmp_path: Path
) -> None:
    with pytest.raises(UnknownTarget, match=r"unknown target 'toy'.* Known: .*cpu, "):
        compile_small(tmp_path / "a", target="toy")
