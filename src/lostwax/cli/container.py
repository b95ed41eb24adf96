"""`lostwax container`: a folder from which a target's image is built and run. Knows no template."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from msgspec.structs import replace

from lostwax.backends.runtime.say import result, say
from lostwax.cli.named_paths import Artifact, EmptyFolder, File, Folder, Records
from lostwax.cli.option_types import MORE, Flag, OptionRefused, within

if TYPE_CHECKING:
    from lostwax.containers.describe import Container


def _name(_: object, name: str) -> None:
    from lostwax.containers.describe import UnknownContainer, container_named

    try:
        container_named(name)
    except UnknownContainer as error:  # a ValueError, of which cyclopts would make its own sentence
        raise OptionRefused(str(error)) from error


def _base_image(_: object, image: str | None) -> None:
    from lostwax.containers.build import require_pinned

    if image is not None:
        require_pinned(image)


def _tag(_: object, image: str | None) -> None:
    from lostwax.containers.build import require_tag

    if image is not None:
        require_tag(image)


def _nodes(_: object, nodes: int) -> None:
    if nodes != 1:
        raise ValueError(
            f"must be 1, not {nodes}: the ranks of a model meet on one host, and none spans nodes"
            " yet; --replicas N puts a server of the whole model on each of N nodes"
        )


def _argument(_: object, given: list[str] | None) -> None:
    for each in given or []:
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*=\S*", each) or each.startswith("BASE_IMAGE="):
            raise ValueError(
                f"must be NAME=VALUE (a base image is --base-image), not {each[:200]!r}"
            )


def container(
    target: Annotated[str, Parameter(validator=_name)],
    /,
    *,
    out: Annotated[EmptyFolder | None, Parameter(name=["-o", "--out"])] = None,
    base_image: Annotated[str | None, Parameter(validator=_base_image)] = None,
    artifact: Artifact | None = None,
    records: Annotated[Records | None, MORE] = None,
    wheel: File | None = None,
    wheels: Annotated[Folder | None, MORE] = None,
    replicas: Annotated[int, MORE, Parameter(validator=within(1, 4096))] = 2,
    nodes: Annotated[int, MORE, Parameter(validator=_nodes)] = 1,
    tag: Annotated[str | None, MORE, Parameter(validator=_tag)] = None,
    build: Flag = False,
    builder: Annotated[Literal["docker", "podman", "buildah"] | None, MORE] = None,
    build_arg: Annotated[
        list[str] | None, MORE, Parameter(negative=(), validator=_argument)
    ] = None,
) -> None:
    """Write a Dockerfile for a target, and how to build and run it.

    Parameters
    ----------
    target
        Which container, such as cpu or cuda-h200; an unknown name lists them.
    out
        The folder to write (default: lostwax-TARGET).
    base_image
        The image below ours, with its digest: NAME@sha256:DIGEST. Without it each build says it.
    artifact
        An artifact to put into the image; without it one is mounted.
    records
        Tuning records to put in beside it.
    wheel
        The wheel of this lostwax, which a build needs.
    wheels
        A folder of packages' files that are taken before an index is asked.
    replicas
        Servers of the LeaderWorkerSet for Kubernetes, each of the whole model.
    nodes
        Nodes of one server: 1, as the ranks of a model share a host.
    tag
        What the image is called (default: lostwax:VERSION-TARGET).
    build
        Build the image at once.
    builder
        With which tool (default: the first that is installed).
    build_arg
        An argument of the build, NAME=VALUE; may be repeated.
    """
    from lostwax.containers.build import build as build_image
    from lostwax.containers.build import find_builder
    from lostwax.containers.describe import container_named
    from lostwax.containers.render import Asked, default_image, rendered
    from lostwax.containers.write import Brought, require_apart, require_wheel, write_folder

    chosen = container_named(target)
    _require_whole(
        build=build,
        base_image=base_image,
        wheel=wheel,
        artifact=artifact,
        records=records,
        used_by_build={"--builder": builder, "--build-arg": build_arg},
    )
    if wheel is not None:
        require_wheel(wheel)
    folder, brought = _folder(out, target), Brought(wheel, wheels, artifact, records)
    require_apart(folder, brought)
    ranks = 1
    if artifact is not None:
        made_for, ranks = _made_for(artifact, chosen)
        chosen = replace(chosen, target=made_for)
    tool = find_builder(builder) if build else ""
    image = tag or default_image(chosen)
    asked = Asked(image, base_image or "", artifact is not None, ranks, replicas)
    files = rendered(chosen, asked)
    write_folder(folder, files, brought)
    say(f"{target} needs {chosen.needs}. {chosen.checked}")
    result(f"{folder}: {len(files)} files; {folder / 'README.md'} says how to build and run it")
    if build:
        given = [f"BASE_IMAGE={base_image}", *(build_arg or ())]
        stage = "baked" if asked.baked else "serve"
        build_image(folder, builder=tool, stage=stage, image=image, arguments=given)
        result(image)


def _require_whole(
    *,
    build: bool,
    base_image: str | None,
    wheel: Path | None,
    artifact: Path | None,
    records: Path | None,
    used_by_build: dict[str, object],
) -> None:
    """OptionRefused where a build lacks something, or an option would change nothing."""
    if records is not None and artifact is None:
        raise OptionRefused("--records lie in the image beside an artifact; give --artifact, too")
    if not build:
        idle = [name for name, value in used_by_build.items() if value is not None]
        if idle:
            raise OptionRefused(
                f"{' and '.join(idle)} would change nothing without --build; add it"
            )
        return
    if base_image is None:
        raise OptionRefused(
            "--build needs the image below ours by its digest: --base-image NAME@sha256:DIGEST"
        )
    if wheel is None:
        raise OptionRefused(
            "--build needs lostwax's own wheel: --wheel FILE, which `python -m build --wheel` makes"
            " in the source tree"
        )


def _made_for(artifact: Path, container: Container) -> tuple[str, int]:
    """The target of an artifact that the container serves, and how many ranks it has."""
    from lostwax.backends.runtime.artifact_reader import ArtifactReader
    from lostwax.containers.describe import served_by

    manifest, served = ArtifactReader(artifact).manifest, served_by(container)
    if manifest.target.name not in served:
        raise OptionRefused(
            f"{artifact} was compiled for {manifest.target.name}, and this container serves"
            f" {' and '.join(served)}; give an artifact of that, or another container"
        )
    return manifest.target.name, manifest.world_size


def _folder(out: Path | None, target: str) -> Path:
    if out is not None:
        return out
    folder = Path(f"lostwax-{target}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OptionRefused(f"{folder} exists and is not empty; give -o DIR, or remove it")
    return folder
