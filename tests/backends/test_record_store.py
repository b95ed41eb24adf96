"""Records: content keys, tiers, atomic files, deterministic merge, clear errors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lostwax.backends.records.store import (
    BadRecord,
    RecordStore,
    fastest,
    merge_records,
    read_records,
    record_files,
)
from lostwax.ir.contract.record import Certificate, Record, RecordKey, State


def key(lowering: str = "a", **changes: Any) -> RecordKey:
    fields: dict[str, Any] = {
        "region": "r",
        "source": "s",
        "sku": "cpu",
        "libraries": {"torch": "2.11"},
        "values": {"y": "f32 [8]", "x": "bf16 [8]"},
        "cache": "",
    }
    return RecordKey(lowering=lowering, **{**fields, **changes})


def record(*samples: float, lowering: str = "a", state: State = "executed", **knobs: int) -> Record:
    certificate = Certificate(state=state, max_error=1e-6, rms_error=1e-7, input_digest="d")
    return Record(key=key(lowering), knobs=knobs, samples_us=samples, certificate=certificate)


def only_file(folder: Path) -> Path:
    (path,) = record_files(folder)
    return path


def test_key_depends_on_content_not_on_order():
    same = key(values={"x": "bf16 [8]", "y": "f32 [8]"})
    assert same.digest() == key().digest()
    assert key(sku="gpu").digest() != key().digest()


def test_records_come_back_from_the_first_tier_that_has_the_key(tmp_path: Path):
    shipped = RecordStore((tmp_path / "shipped",))
    shipped.put(record(5.0))
    store = RecordStore((tmp_path / "user", tmp_path / "shipped"))
    assert store.find(key()) == (record(5.0),)
    store.put(record(3.0))
    assert store.find(key()) == (record(3.0),)
    assert shipped.find(key()) == (record(5.0),)
    assert store.find(key("other")) == ()


def test_one_line_a_knob_setting_and_the_newest_replaces(tmp_path: Path):
    store = RecordStore((tmp_path,))
    for r in (record(2.0, tile=64), record(3.0, tile=32), record(1.0, tile=64)):
        store.put(r)
    assert store.find(key()) == (record(3.0, tile=32), record(1.0, tile=64))
    assert list(tmp_path.rglob("*.part")) == []


def test_merge_does_not_depend_on_direction(tmp_path: Path):
    a, b = record(2.0, 2.1), record(1.0)
    assert merge_records((a, b)) == merge_records((b, a)) == (a,)
    weaker = record(1.0, 1.0, 1.0, state="interpreted")
    assert merge_records((weaker, b)) == (b,)
    left, right = RecordStore((tmp_path / "l",)), RecordStore((tmp_path / "r",))
    left.put(a)
    right.put(b)
    assert (left.merge(tmp_path / "r"), right.merge(tmp_path / "l")) == (0, 1)
    assert only_file(tmp_path / "l").read_bytes() == only_file(tmp_path / "r").read_bytes()


def test_ties_within_noise_resolve_by_name():
    noisy = record(1.0, 1.2, 1.4, lowering="b")
    assert fastest([noisy, record(1.25, lowering="a")]) == record(1.25, lowering="a")
    assert fastest([record(2.0, lowering="a"), record(1.0, lowering="b")]) == record(
        1.0, lowering="b"
    )
    assert fastest([record()]) is None
    least, noisier = record(1.0, lowering="b"), record(1.0, 1.2, 1.4, lowering="a")
    assert fastest([least, noisier]) == noisier, "its own noise reaches the least"
    assert fastest([least, record(1.2, lowering="a")]) == least


def test_of_two_equally_good_records_the_same_is_kept_whichever_comes_first():
    one, other = record(1.0), record(2.0)
    assert merge_records((one, other)) == merge_records((other, one)) == (one,)


Spoil = Callable[[bytes], bytes]


def cut_newline(text: bytes) -> bytes:
    return text[:-1]


def cut_half(text: bytes) -> bytes:
    return text[: len(text) // 2] + b"\n"


def not_utf8(text: bytes) -> bytes:
    return b"\xff" * 9 + b"\n"


def replace(old: bytes, new: bytes) -> Spoil:
    return lambda text: text.replace(old, new)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut_newline, "torn"),
        (cut_half, "damaged"),
        (replace(b'"schema":2', b'"schema":3'), "has schema 3.*upgrade"),
        (replace(b'"schema":2', b'"schema":9'), "has schema 9.*upgrade"),
        (replace(b'"schema":2', b'"schema":1'), "has schema 1.*measure again"),
        (replace(b'"cpu"', b'"gpu"'), "holds the key"),
    ],
)
def test_a_spoilt_file_is_named_with_the_remedy(tmp_path: Path, spoil: Spoil, message: str):
    store = RecordStore((tmp_path,))
    store.put(record(1.0))
    path = only_file(tmp_path)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(BadRecord, match=message):
        read_records(path)


def test_a_damaged_file_is_a_miss_that_says_so_and_is_written_anew(tmp_path: Path) -> None:
    said: list[str] = []
    shipped = RecordStore((tmp_path / "shipped",))
    shipped.put(record(3.0))
    store = RecordStore((tmp_path / "user", tmp_path / "shipped"), said.append)
    store.put(record(1.0))
    path = only_file(tmp_path / "user")
    for spoil in (cut_newline, cut_half, not_utf8):
        path.write_bytes(spoil(path.read_bytes()))
        assert store.find(key()) == (record(3.0),), "the next tier's"
        store.put(record(9.0))
        assert store.find(key()) == (record(9.0),)
    assert len(said) == 6
    assert all(str(path) in line and "is written anew" in line for line in said)


def test_a_file_of_a_newer_lostwax_is_never_replaced(tmp_path: Path) -> None:
    store = RecordStore((tmp_path,))
    store.put(record(1.0))
    path = only_file(tmp_path)
    newer = path.read_bytes().replace(b'"schema":2', b'"schema":9')
    path.write_bytes(newer)
    for use in (lambda: store.find(key()), lambda: store.put(record(2.0))):
        with pytest.raises(BadRecord, match="upgrade"):
            use()
    assert path.read_bytes() == newer


def test_a_certificate_is_never_rounded_up():
    with pytest.raises(ValueError, match="use state 'compiled'"):
        Certificate(state="executed")
    assert Certificate(state="compiled").max_error is None
