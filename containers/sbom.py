"""A bill of materials in CycloneDX's form, of what a container installs. Looks into no image."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable

import lostwax
from lostwax.containers.describe import Container
from lostwax.containers.requirements import Pin

SPEC = "1.6"
_SPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # RFC 9562's, of URLs


def sbom(container: Container, pins: Iterable[Pin], base_image: str) -> bytes:
    """Packages by name, version and package URL; what the base image holds is its maker's to say.

    Equal inputs give equal bytes: it holds no time, and its serial number follows from the rest.
    """
    parts = [_library("lostwax", lostwax.__version__), *(_library(p.name, p.version) for p in pins)]
    about: dict[str, object] = {
        "bom-ref": f"container/{container.name}",
        "type": "container",
        "name": f"lostwax-{container.name}",
        "version": lostwax.__version__,
    }
    properties = [{"name": "lostwax:target", "value": container.target}]
    if base_image:
        properties.append({"name": "lostwax:base-image", "value": base_image})
    if container.torch == "given":
        properties.append({"name": "lostwax:torch", "value": "the wheel of the build's TORCH_URL"})
    content: dict[str, object] = {
        "metadata": {"component": about, "properties": properties},
        "components": parts,
    }
    serial = uuid.uuid5(_SPACE, json.dumps(content, sort_keys=True))
    head = {"bomFormat": "CycloneDX", "specVersion": SPEC, "version": 1}
    whole = head | {"serialNumber": f"urn:uuid:{serial}"} | content
    return json.dumps(whole, indent=1).encode() + b"\n"


def _library(name: str, version: str) -> dict[str, str]:
    url = f"pkg:pypi/{name.replace('_', '-').lower()}@{version}"
    return {"bom-ref": url, "type": "library", "name": name, "version": version, "purl": url}
