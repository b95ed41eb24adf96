"""An environment of tools is made once for its pins, by whatever fills it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ascend_tools import environments
from tool_environment import make_environment


def test_an_environment_is_made_once_for_its_pins(tmp_path: Path) -> None:
    folder, filled = tmp_path / "tools", list[tuple[str, ...]]()

    def fill(into: Path, packages: tuple[str, ...]) -> None:
        assert not into.exists(), "of other pins nothing is left"
        into.mkdir()
        filled.append(packages)

    for packages in (("a==1",), ("a==1",), ("a==2", "b==1")):
        make_environment(folder, packages, fill)
    assert filled == [("a==1",), ("a==2", "b==1")]


def test_one_that_was_not_filled_to_its_end_is_filled_again(tmp_path: Path) -> None:
    def fill(into: Path, packages: tuple[str, ...]) -> None:
        into.mkdir()
        raise SystemExit("no debootstrap")

    for _ in range(2):
        with pytest.raises(SystemExit):
            make_environment(tmp_path / "tools", ("a==1",), fill)


def test_each_of_ascend_s_is_made_by_that_maker(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[Path, bool] = {}

    def make(folder: Path, packages: tuple[str, ...], fill: object) -> None:
        assert packages == environments.ENVIRONMENTS[folder.name]
        made[folder] = fill is environments.make_emulated

    monkeypatch.setattr(environments, "make_environment", make)
    for name in environments.ENVIRONMENTS:
        environments.make(name)
    assert made == {
        environments.FOLDER / name: name == "tilelang" for name in ("npu", "triton", "tilelang")
    }
