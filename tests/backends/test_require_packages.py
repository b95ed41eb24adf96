"""An artifact does not load where a package that its lowerings call is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from native_kernels import torch_alone

from lostwax.backends.lowering import Knobs, Match, Work
from lostwax.backends.portable.kernels import linear
from lostwax.backends.portable.lowerings.linear import LINEAR
from lostwax.backends.runtime import load as loading
from lostwax.backends.runtime import require_packages as packages
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


def test_a_package_of_an_extra_is_installed_by_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["a-package; extra == 'none'x", "b-package<2,>=1; extra == 'gpu'", "c-package>=1"]

    def requires(name: str) -> list[str]:
        assert name == "lostwax"
        return lines

    monkeypatch.setattr(packages, "requires", requires)
    assert packages.remedy_of("b-package") == "install it with `pip install 'lostwax[gpu]'`"
    for alone in ("a-package", "b", "c-package", "d-package"):
        assert packages.remedy_of(alone) == f"install it with `pip install {alone}`"


def test_a_library_that_is_not_the_one_meant_is_refused_before_weights_load(
    compile_small: Callable[..., Manifest],
    small_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def require_library() -> None:
        raise MissingPackage("another version")

    with torch_alone():
        compile_small(tmp_path / "a")
    monkeypatch.setattr(linear, "require_library", require_library, raising=False)
    monkeypatch.setattr(loading, "load_weights", pytest.fail)
    with pytest.raises(MissingPackage, match="another version"):
        load(tmp_path / "a", checkpoint=small_checkpoint)


def _free(match: Match, knobs: Knobs) -> Work:
    return Work(0, 0, 0)
