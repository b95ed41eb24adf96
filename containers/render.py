"""The files of a container's folder as text: Dockerfile, bake file, compose, Kubernetes, a page on
how to run it. Writes nothing and asks no machine; equal inputs give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

import lostwax
from lostwax.backends.registry import UnknownTarget, find_target
from lostwax.containers.describe import Container, served_by
from lostwax.containers.requirements import LOCK, as_text, locked, requirements
from lostwax.containers.sbom import sbom
from lostwax.containers.write import WHEEL

FOLDER = Path(__file__).parent
UID = 10001
"""Whom the server runs as: nobody that a host's first users are."""
PORT = 8000
PYTHON = "/opt/lostwax/bin/python"
SHARED = "/usr/share/lostwax"
KEYS = "/run/secrets/lostwax/keys"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
"""Where torch's CPU builds lie, beside the index of all other packages."""
EVIDENCE = "lostwax-evidence"
"""The volume that keeps what was proven on a host's device."""
COMMAND = (
    *("serve", "/artifact", "--checkpoint", "/checkpoint", "--certificates", "/var/lib/lostwax"),
    *("--host", "0.0.0.0", "--api-key-file", KEYS),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is said of the container beside its name.

    `base_image` is NAME@sha256:DIGEST, empty where the build is to say it. `image` is what the
    image is called, `baked` whether the artifact lies in it, `ranks` how many the artifact has,
    which share one host. `replicas` are the servers of an LWS, each of the whole model.
    """

    image: str
    base_image: str = ""
    baked: bool = False
    ranks: int = 1
    replicas: int = 2


@dataclass(frozen=True, slots=True)
class _Volume:
    """What is mounted into a pod: `source` are the lines behind its name."""

    name: str
    path: str
    source: tuple[str, ...]
    read_only: bool = False


def default_image(container: Container) -> str:
    """What the image is called where nobody says."""
    return f"lostwax:{lostwax.__version__}-{container.name}"


def rendered(container: Container, asked: Asked, lock: Path = LOCK) -> dict[str, bytes]:
    """The content of each file by its path in the folder. Raises BadLock."""
    pins = requirements(container, lock)
    text = _Templates(container, asked, lock)
    what = f"What is installed in the container {container.name}."
    found = {
        "Dockerfile": text("Dockerfile"),
        "docker-bake.hcl": text("docker-bake.hcl"),
        "compose.yaml": text("compose.yaml"),
        "kubernetes/deployment.yaml": text("deployment.yaml"),
        "kubernetes/lws.yaml": text("lws.yaml"),
        "README.md": text("README.md"),
        "requirements.txt": as_text(pins, what),
        "probe.py": (FOLDER / "files" / "probe.py").read_text(encoding="utf-8"),
    }
    if container.scripts:
        found["enter.sh"] = text("enter.sh")
    files = {name: content.encode() for name, content in found.items()}
    return files | {"sbom.cdx.json": sbom(container, pins, asked.base_image)}


class _Templates:
    """The folder's templates, with what all of them may name."""

    def __init__(self, container: Container, asked: Asked, lock: Path) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(FOLDER / "templates"),
            undefined=jinja2.StrictUndefined,  # a name that nothing has is an error, not a gap
            autoescape=False,  # no HTML, and each value is checked where it comes in
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self._environment.filters["tojson"] = json.dumps
        self._names = _names(container, asked, lock)
        app: str = self._names["app"]
        # The controller of a LeaderWorkerSet makes a service of the set's own name.
        called = {"deployment": app, "lws": f"{app}-http"}
        for part in ("service", "pod"):
            parts = {
                name: self(f"{part}.yaml", service=each, command=kubernetes_command(each))
                for name, each in called.items()
            }
            self._names[f"{part}s"] = {name: text.rstrip("\n") for name, text in parts.items()}

    def __call__(self, name: str, **more: object) -> str:
        return self._environment.get_template(f"{name}.j2").render(self._names, **more)


def _names(container: Container, asked: Asked, lock: Path) -> dict[str, Any]:
    shared = ["sbom.cdx.json", "probe.py", *(["enter.sh"] if container.scripts else [])]
    entry = ["/bin/bash", f"{SHARED}/enter.sh"]
    return {
        "c": container,
        "app": f"lostwax-{container.name}",
        **_facts(container),
        "served": " or ".join(f"`{name}`" for name in _targets(container, asked)),
        "version": lostwax.__version__,
        "image": asked.image,
        "base_image": asked.base_image,
        "base_name": container.base.rpartition(":")[0],
        "torch": locked("core", lock)["torch"].version,
        "torch_index": TORCH_INDEX,
        "baked": asked.baked,
        "ranks": asked.ranks,
        "replicas": asked.replicas,
        "uid": UID,
        "port": PORT,
        "shared": shared,
        "compilers": compilers(),
        "probe": _probe,
        "entrypoint": entry if container.scripts else [PYTHON, "-P", "-m", "lostwax"],
        "command": list(COMMAND),
        **_commands(container, asked),
        "wheel": WHEEL,
        "mounts": list(_volumes(container, asked)),
    }


def kubernetes_command(service: str) -> tuple[str, ...]:
    """The image's command, told the names by which a cluster calls it: others are refused."""
    inside = ("", ".$(NAMESPACE)", ".$(NAMESPACE).svc", ".$(NAMESPACE).svc.cluster.local")
    names = [word for suffix in inside for word in ("--allow-host", f"{service}{suffix}")]
    return (*COMMAND, *names)


def _probe(path: str) -> str:
    """What asks a path of the server from within, as JSON."""
    return json.dumps([PYTHON, f"{SHARED}/probe.py", path])


def _facts(container: Container) -> dict[str, object]:
    """Of the target, where it is installed: its architecture's name, and what compiles for it."""
    try:
        backend, target = find_target(container.target)
    except UnknownTarget:
        return {"arch": "", "compiler": None}
    return {"arch": target.arch, "compiler": backend.compiler}


def _targets(container: Container, asked: Asked) -> tuple[str, ...]:
    """Whose artifacts are served: that of the one in the image, else all that may be mounted."""
    return (container.target,) if asked.baked else served_by(container)


def compilers() -> tuple[str, ...]:
    """Names of programs that no final stage may hold, as of `find -name`."""
    lines = (FOLDER / "compilers.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def _volumes(container: Container, asked: Asked) -> Sequence[_Volume]:
    app = f"lostwax-{container.name}"
    found = [
        *([] if asked.baked else [_claim("artifact", f"{app}-artifact")]),
        _claim("checkpoint", f"{app}-checkpoint"),
        _Volume("keys", str(Path(KEYS).parent), ("secret:", f"  secretName: {app}-keys"), True),
        # What golden probes proved on this device: behind a claim in its place they run once.
        _Volume("evidence", "/var/lib/lostwax", ("emptyDir: {}",)),
        _Volume("tmp", "/tmp", ("emptyDir: {}",)),
        _Volume("shm", "/dev/shm", ("emptyDir:", "  medium: Memory", "  sizeLimit: 1Gi")),
    ]
    for number, path in enumerate(container.device.mounts, 1):
        found.append(_Volume(f"driver-{number}", path, ("hostPath:", f"  path: {path}"), True))
    return found


def _claim(name: str, claim: str) -> _Volume:
    source = ("persistentVolumeClaim:", f"  claimName: {claim}", "  readOnly: true")
    return _Volume(name, f"/{name}", source, read_only=True)


def _device_options(container: Container) -> list[str]:
    """What gives `docker run` the host's devices, with what their driver reads."""
    device = container.device
    return [
        *(["--gpus all"] if device.gpus else []),
        *(f"--device {node}" for node in device.nodes),
        *(f'--group-add "$(stat -c %g {node})"' for node in device.groups),
        *(f"--volume {path}:{path}:ro" for path in device.mounts),
    ]


def _run_options(container: Container, asked: Asked) -> list[str]:
    """What `docker run` gives a container that reads an artifact and keeps what it proves."""
    data = {"CHECKPOINT": "/checkpoint"}
    if not asked.baked:
        data = {"ARTIFACT": "/artifact"} | data
    return [
        *("--init --read-only --tmpfs /tmp --shm-size 1g", "--cap-drop ALL"),
        "--security-opt no-new-privileges",
        *_device_options(container),
        *(f'--volume "${{{name}:?}}:{path}:ro"' for name, path in data.items()),
        f"--volume {EVIDENCE}:/var/lib/lostwax",
    ]


def _commands(container: Container, asked: Asked) -> dict[str, str]:
    """Commands of the page by what they do, a line an option."""
    options = _run_options(container, asked)
    report = "/var/lib/lostwax/report"
    data = "--artifact /artifact --checkpoint /checkpoint"
    of_server = [f'--volume "${{KEYS:?}}:{KEYS}:ro"', f"--publish 127.0.0.1:{PORT}:{PORT}"]
    each = {
        "run": [*options, *of_server, asked.image],
        "doctor": [*_device_options(container), f"{asked.image} doctor {container.target}"],
        "bring_up": [
            *options,
            f"{asked.image} bring-up {container.target}",
            f"{data} -o {report}",
        ],
        "fetch": [
            f"--volume {EVIDENCE}:/var/lib/lostwax --entrypoint tar {asked.image}",
            "-C /var/lib/lostwax -cz report > report.tar.gz",
        ],
    }
    return {name: " \\\n  ".join(["docker run --rm", *words]) for name, words in each.items()}
