"""Tells whether a checkpoint's files are those that were compiled, by header and samples.

Covered is each file's header (names, dtypes, shapes, order) and three samples of every tensor: its
first, middle and last bytes, and so the whole of a small tensor such as a norm. Every realistic
other checkpoint (fine-tuned, re-quantised, shuffled) differs there; a single changed number between
the samples does not show.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from lostwax.ir.contract.foreign_file import BadFile, MissingFile, decoded, open_regular

SAMPLE_BYTES = 256
MAX_HEADER_BYTES = 100_000_000  # the format's own limit


class CheckpointMismatch(ValueError):
    """The checkpoint is not the one that was compiled; the message names file or tensor."""


def content_digest(path: Path) -> str:
    """sha256 of a safetensors file's header and samples. Raises CheckpointMismatch."""
    try:
        return _content_digest(path)
    except MissingFile as error:
        raise CheckpointMismatch(
            f"{path} is missing; give the checkpoint that was compiled with --checkpoint DIR,"
            " or recompile"
        ) from error
    except BadFile as error:
        raise CheckpointMismatch(f"{error}; download it again") from error


def _content_digest(path: Path) -> str:
    with open_regular(path) as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > MAX_HEADER_BYTES:
            raise CheckpointMismatch(f"{path} is no safetensors file; download it again")
        data_bytes = os.fstat(file.fileno()).st_size - len(prefix) - length
        if data_bytes < 0:
            raise CheckpointMismatch(f"{path} is cut short; download it again")
        header = file.read(length)
        found = hashlib.sha256(prefix + header)
        for begin, end in _spans(path, header):
            if not 0 <= begin <= end <= data_bytes:
                raise CheckpointMismatch(f"{path} is cut short or damaged; download it again")
            for start in _starts(begin, end):
                count = min(SAMPLE_BYTES, end - start)
                sample = os.pread(file.fileno(), count, 8 + length + start)
                if len(sample) != count:
                    raise CheckpointMismatch(f"{path} is cut short; download it again")
                found.update(sample)
    return found.hexdigest()


class _Entry(msgspec.Struct):
    """What a header says of a tensor, as far as it matters here."""

    data_offsets: tuple[int, int]


def _spans(path: Path, header: bytes) -> list[tuple[int, int]]:
    entries = decoded(header, dict[str, msgspec.Raw], path)
    entries.pop("__metadata__", None)
    return sorted(decoded(bytes(e), _Entry, path).data_offsets for e in entries.values())


def _starts(begin: int, end: int) -> list[int]:
    """Where the samples of one tensor begin; they overlap in a small one."""
    middle = begin + max((end - begin - SAMPLE_BYTES) // 2, 0)
    return sorted({begin, middle, max(end - SAMPLE_BYTES, begin)})


def content_digests(folder: Path, files: Iterable[str]) -> dict[str, str]:
    """The digest of each named file of a checkpoint."""
    return {name: content_digest(folder / name) for name in sorted(set(files))}


def require_content(folder: Path, noted: dict[str, str]) -> None:
    """Raise CheckpointMismatch at the first file that is not as it was noted when compiling."""
    for name, digest in noted.items():
        path = folder / name
        if content_digest(path) != digest:
            raise CheckpointMismatch(
                f"{path} has other content than when it was compiled; give that checkpoint with"
                " --checkpoint DIR, or recompile this one"
            )
