"""The order of syncs and renames, who may read what is written, and files that change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lostwax.backends.runtime import whole_folder
from lostwax.backends.runtime.certificates import write_certificates
from lostwax.backends.runtime.whole_file import write_whole
from lostwax.ir.contract import foreign_file
from lostwax.ir.contract.check_views import Inconsistent, end_of, require_pages, require_within
from lostwax.ir.contract.foreign_file import BadFile, read_bounded
from lostwax.ir.contract.probe import Certificates
from lostwax.ir.contract.program import View


@pytest.fixture
def done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens to names in `tmp_path`, in order."""
    found: list[str] = []
    rename, sync, remove = os.rename, whole_folder.sync, whole_folder.remove

    def noted(what: str, *paths: Path) -> None:
        found.append(" ".join([what, *(os.path.relpath(p, tmp_path) for p in paths)]))

    def renamed(one: Path, other: Path) -> None:
        noted("rename", one, other)
        rename(one, other)

    def synced(path: Path) -> None:
        noted("sync", path)
        sync(path)

    def removed(path: Path) -> None:
        noted("remove", path)
        remove(path)

    monkeypatch.setattr("os.rename", renamed)
    monkeypatch.setattr(whole_folder, "sync", synced)
    monkeypatch.setattr(whole_folder, "remove", removed)
    return found


def _folder(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "file").write_text(content)
    return path


def test_the_new_name_is_on_the_disk_before_the_old_version_goes(
    tmp_path: Path, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_folder, "exchange", lambda one, other: False)  # pyright: ignore
    new, out = _folder(tmp_path / "new", "2"), _folder(tmp_path / "art", "1")
    whole_folder.put_in_place(new, out)
    assert done == [
        "rename art .art.replaced",
        "rename new art",
        "sync .",
        "remove .art.replaced",
        "sync .",
    ]
    assert (out / "file").read_text() == "2"
    assert os.listdir(tmp_path) == ["art"]


def test_two_names_are_exchanged_on_the_disk_before_the_old_version_goes(
    tmp_path: Path, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    new, out = _folder(tmp_path / "new", "2"), _folder(tmp_path / "art", "1")

    def exchange(one: Path, other: Path) -> bool:
        """As where the file system can."""
        done.append("exchange")
        between = tmp_path / "between"
        for old, name in ((one, between), (other, one), (between, other)):
            old.replace(name)
        return True

    monkeypatch.setattr(whole_folder, "exchange", exchange)
    whole_folder.put_in_place(new, out)
    assert done == ["exchange", "sync .", "remove new", "sync ."]
    assert (out / "file").read_text() == "2"


def test_a_first_version_is_renamed_and_synced(tmp_path: Path, done: list[str]) -> None:
    whole_folder.put_in_place(_folder(tmp_path / "new", "1"), tmp_path / "art")
    assert done == ["rename new art", "sync ."]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_evidence_is_for_every_user_to_read_and_for_its_own_to_write(
    tmp_path: Path, umask: int
) -> None:
    """A service is another user than who compiled; a temporary file is 0600."""
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "new" / "file", b"1")
        made = Certificates(artifact="a", device="d", code="c", evidence={})
        assert write_certificates(made, tmp_path / "c.json")
    finally:
        os.umask(before)
    for path in (tmp_path / "new" / "file", tmp_path / "c.json"):
        assert path.stat().st_mode & 0o7777 == 0o644


@pytest.mark.parametrize("size", [0, 3, 9, 12, 10_000])
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    fstat = os.fstat

    def changing(handle: int) -> os.stat_result:
        found = fstat(handle)
        os.truncate(path, size)
        return found

    def once(handle: int) -> os.stat_result:
        """`open_regular` asks first, for the kind; the size is asked after."""
        monkeypatch.setattr(foreign_file.os, "fstat", changing)
        return fstat(handle)

    assert read_bounded(path, 20) == b"0123456789"
    monkeypatch.setattr(foreign_file.os, "fstat", once)
    with pytest.raises(BadFile, match=rf"{path} changes while it is read"):
        read_bounded(path, 20)


def _pages(strides: tuple[int, ...], offset: int = 0, dtype: str = "u8") -> View:
    return View(
        space="plane", name="p", dtype=dtype, shape=(-1, 4, 4), strides=strides, offset=offset
    )


def test_a_page_is_left_by_all_axes_together() -> None:
    """No axis alone reaches beyond the 64 bytes: 3 x 16 and 3 x 6 bytes do."""
    require_pages(_pages((64, 16, 5)), 64)
    with pytest.raises(Inconsistent, match="reaches beyond its page"):
        require_pages(_pages((64, 16, 6)), 64)
    with pytest.raises(Inconsistent, match="reaches beyond its page"):
        require_pages(_pages((64, 16, 5), offset=1), 64)
    require_pages(_pages((32, 8, 2), dtype="bf16"), 64)
    with pytest.raises(Inconsistent, match="reaches beyond its page"):
        require_pages(_pages((32, 8, 3), dtype="bf16"), 64)


def test_a_view_ends_where_all_its_axes_end() -> None:
    view = View(space="arena", name="", dtype="bf16", shape=(4, 4), strides=(8, 3), offset=6)
    assert end_of(view) == 6 + 2 * (3 * 8 + 3 * 3 + 1)
    require_within(view, 74)
    with pytest.raises(Inconsistent, match="ends at byte 74 of a buffer of 72"):
        require_within(view, 72)
