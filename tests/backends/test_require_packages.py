"""An artifact does not load where a package that its lowerings call is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lostwax.backends.lowering import Knobs, Match, Work
from lostwax.backends.portable.lowerings.linear import LINEAR
from lostwax.backends.runtime import load as loading
from lostwax.backends.runtime.load import load
from lostwax.backends.runtime.require_packages import MissingPackage, require_packages
from lostwax.ir.contract.artifact import Manifest


def test_what_is_installed_passes() -> None:
    require_packages({})
    require_packages({"torch": ("a",), "xdsl": ("b",)})


def test_a_missing_package_is_named_before_weights_load(
    compile_small: Callable[..., Manifest],
    small_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needy = replace(LINEAR[0], name="a_needy", requires=("not-installed-here",), work=_free)
    manifest = compile_small(tmp_path / "a", extra_lowerings=(needy,))
    assert manifest.requires == {"not-installed-here": ("a_needy",)}
    monkeypatch.setattr(loading, "load_weights", pytest.fail)
    with pytest.raises(
        MissingPackage, match=r"a_needy calls the package not-installed-here.*pip install not-inst"
    ):
        load(tmp_path / "a", checkpoint=small_checkpoint)


def _free(match: Match, knobs: Knobs) -> Work:
    return Work(0, 0, 0)
