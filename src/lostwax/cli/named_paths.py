"""Types of options that are paths: what must lie there is looked at before anything is imported.

A validator raises UnusablePath, which names the path and what to give. Reads no file.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token

from lostwax.ir.contract.artifact import MANIFEST

STDIN = Path("-")
REPORT = "records.jsonl"
"""Records, a line each: the file of a bring-up's report that a record store takes."""
PACKED = (".gz", ".tgz", ".tar", ".zip")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
"""A model's name on the Hugging Face hub looks so: organisation and name."""
_HOW_TO_MAKE = "`lostwax compile CHECKPOINT -o DIR` makes one"


class UnusablePath(Exception):
    """A path does not lead to what a command needs; the message says what to give."""


def is_artifact(path: Path) -> bool:
    """Whether a folder says that it is one; whether it is whole is the reader's to check."""
    return os.path.lexists(path / MANIFEST)


def is_checkpoint(path: Path) -> bool:
    """Whether a folder has a configuration; what that says is the frontend's to check."""
    return (path / "config.json").exists()


def is_hub_id(name: str) -> bool:
    """Whether a name that leads to nothing here looks like a model's on the Hugging Face hub."""
    return _HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def _require_folder(path: Path, wanted: str) -> None:
    """Where nothing is, a hub's name gets its own sentence: nothing here downloads."""
    if path.is_dir():
        return
    if path.exists():
        raise UnusablePath(f"{path} is no folder; give {wanted}")
    if _HUB_ID.fullmatch(str(path)):
        raise UnusablePath(
            f"{path} is no folder here, and lostwax downloads nothing: fetch the model first"
            f" (`hf download {path} --local-dir DIR`), then give DIR"
        )
    raise UnusablePath(f"{path} does not exist; give {wanted}")


def _model(_: object, path: Path | None) -> None:
    if path is None:
        return
    _require_folder(path, "the folder of an artifact or of a checkpoint")
    if not is_artifact(path) and not is_checkpoint(path):
        raise UnusablePath(
            f"{path} is neither an artifact (it has no manifest.json) nor a checkpoint (it has no"
            " config.json); give the folder of one"
        )


def _artifact(_: object, path: Path | None) -> None:
    if path is None:
        return
    _require_folder(path, f"the folder of an artifact; {_HOW_TO_MAKE}")
    if is_artifact(path):
        return
    if is_checkpoint(path):
        raise UnusablePath(
            f"{path} is a checkpoint and no artifact; compile it first:"
            f" lostwax compile {path} -o DIR"
        )
    raise UnusablePath(f"{path} has no manifest.json, so it is no artifact; {_HOW_TO_MAKE}")


def _checkpoint(_: object, path: Path | None) -> None:
    if path is None:
        return
    wanted = "the folder that holds config.json and the safetensors files"
    _require_folder(path, wanted)
    if is_checkpoint(path):
        return
    if is_artifact(path):
        raise UnusablePath(f"{path} is an artifact and no checkpoint; give {wanted}")
    raise UnusablePath(f"{path} has no config.json, so it is no checkpoint; give {wanted}")


def _folder(_: object, path: Path | None) -> None:
    if path is not None:
        _require_folder(path, "the folder that was written before")


def _config(_: object, path: Path) -> None:
    if path.is_dir():
        raise UnusablePath(f"{path} is a folder; give the file: --config {path / 'config.json'}")
    if not path.exists():
        raise UnusablePath(
            f"{path} does not exist; give a config.json of the architecture, such as"
            " examples/tiny.json"
        )


def _file(_: object, path: Path | None) -> None:
    if path is None:
        return
    if path.is_dir():
        raise UnusablePath(f"{path} is a folder; give a file")
    if not path.exists():
        raise UnusablePath(f"{path} does not exist; give a file")


def _module_file(_: object, path: Path) -> None:
    if path != STDIN:
        _file(_, path)


def _records(_: object, path: Path | None) -> None:
    if path is not None and not path.is_dir():
        raise UnusablePath(
            f"{path} is no folder of records; give the folder that `lostwax certify -o` filled"
        )


def _report(_: object, path: Path) -> None:
    if path.is_dir():
        if not os.path.lexists(path / REPORT):
            raise UnusablePath(
                f"{path} has no {REPORT}: it is no report, or nothing could run on that device;"
                " give the folder that `lostwax bring-up TARGET -o DIR` wrote"
            )
        return
    _file(_, path)
    if path.suffix in PACKED:
        raise UnusablePath(f"{path} is packed; unpack it (tar xzf {path}), and give its folder")


def _place(path: Path) -> Path:
    """Where a path leads, whatever is there: `new/..` is the folder that `new` would lie in."""
    try:
        there = path.resolve()
        there.exists()
    except RuntimeError as error:  # of pathlib: a link to itself
        raise UnusablePath(f"{path} is a link that leads nowhere; give another path") from error
    except ValueError as error:
        raise UnusablePath(f"{str(path)!r} is no path: {error}; give another") from error
    except OSError as error:
        raise UnusablePath(f"{path} cannot be made: {error.strerror}; give another path") from error
    return there


def _require_takes_folders(path: Path) -> None:
    """A folder that is there, or the nearest above, must take one: not all say by their modes."""
    while not path.exists():
        path = path.parent
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".lostwax.", dir=path))
    except OSError as error:
        raise UnusablePath(
            f"{path} takes no folders ({error.strerror}); give another path"
        ) from error


def _require_parent(path: Path) -> None:
    """The nearest folder above that exists must let us make what is missing."""
    above = path.absolute().parent
    while not os.path.lexists(above):
        above = above.parent
    if not above.is_dir():
        raise UnusablePath(f"{path} cannot be made: {above} is no folder; give another path")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UnusablePath(f"{path} cannot be made: {above} may not be written; give another path")


def _out_folder(_: object, path: Path | None) -> None:
    if path is None:
        return
    there = _place(path)
    if there.exists() and not there.is_dir():
        raise UnusablePath(f"{path} is no folder; give another")
    if not there.exists():
        _require_parent(path)
    elif not os.access(path, os.W_OK | os.X_OK):
        raise UnusablePath(f"{path} may not be written; give another folder")
    _require_takes_folders(there)


def _empty_folder(_: object, path: Path | None) -> None:
    if path is None:
        return
    there = _place(path)
    if there.exists() and (not there.is_dir() or any(there.iterdir())):
        raise UnusablePath(f"{path} exists and is not empty; give another -o or remove it")
    _out_folder(_, path)


def _out_artifact(_: object, path: Path) -> None:
    from lostwax.backends.artifact_writer import ArtifactExists, require_replaceable

    _place(path)
    try:
        require_replaceable(path)
    except ArtifactExists as error:  # a ValueError, of which cyclopts would make its own sentence
        raise UnusablePath(str(error)) from error
    _require_parent(path)


def _out_file(_: object, path: Path) -> None:
    if path.is_dir():
        raise UnusablePath(f"{path} is a folder; give the name of a file")
    _require_parent(path)


def _given(_: object, tokens: Sequence[Token]) -> Path:
    """A path as it was given. An empty one, as of an unset variable, is no current directory."""
    (token,) = tokens
    if not token.value:
        raise UnusablePath(
            f"{token.keyword or 'the path'} is empty; give a path (. is the current folder)"
        )
    return Path(token.value)


def _checked(validator: Callable[[object, Any], None]) -> Parameter:
    return Parameter(converter=_given, validator=validator)


Model = Annotated[Path, _checked(_model)]
Artifact = Annotated[Path, _checked(_artifact)]
Checkpoint = Annotated[Path, _checked(_checkpoint)]
Folder = Annotated[Path, _checked(_folder)]
ConfigFile = Annotated[Path, _checked(_config)]
File = Annotated[Path, _checked(_file)]
ModuleFile = Annotated[Path, _checked(_module_file)]
Report = Annotated[Path, _checked(_report)]
Records = Annotated[Path, _checked(_records)]
EmptyFolder = Annotated[Path, _checked(_empty_folder)]
OutArtifact = Annotated[Path, _checked(_out_artifact)]
OutFolder = Annotated[Path, _checked(_out_folder)]
OutFile = Annotated[Path, _checked(_out_file)]
