"""Manifests and compose files: by the schemas of those who read them, and whole in themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from command_line import command_app

from lostwax.containers.describe import containers
from lostwax.containers.render import COMMAND, Asked, default_image, rendered

SCHEMAS = json.loads(Path(__file__).with_name("schemas.json").read_text())
FILES = ("kubernetes/deployment.yaml", "kubernetes/lws.yaml", "compose.yaml")


def text(name: str, file: str, **asked: Any) -> str:
    container = containers()[name]
    return rendered(container, Asked(default_image(container), **asked))[file].decode()


def check(written: str) -> list[dict[str, Any]]:
    """The documents of a file. jsonschema's ValidationError where one is wrong."""
    found = list(yaml.safe_load_all(written))
    for document in found:
        jsonschema.validate(document, SCHEMAS[document.get("kind", "Compose")])
    return found


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", containers())
@pytest.mark.parametrize("baked", [False, True])
def test_every_file_is_one_that_its_reader_takes(name: str, file: str, baked: bool) -> None:
    assert check(text(name, file, baked=baked))


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        (FILES[0], "readOnlyRootFilesystem", "readOnlyRootFileSystem"),
        (FILES[0], "containerPort: 8000", "containerPort: '8000'"),
        (FILES[0], "periodSeconds: 5", "periodSecond: 5"),
        (FILES[0], "mountPath: /tmp", "path: /tmp"),
        (FILES[0], "emptyDir: {}", "emptyDir: []"),
        (FILES[1], "RecreateGroupOnPodRestart", "Always"),
        (FILES[1], "size: 1", "size: 0"),
        (FILES[1], "runAsNonRoot: true", "runAsNonRoot: yes please"),
        (FILES[1], "workerTemplate:", "workerTemplates:"),
        (FILES[1], "fieldPath: metadata.namespace", "fieldpath: metadata.namespace"),
        (FILES[1], '- "serve"', "- {}"),
        (FILES[2], "read_only: true", "readonly: true"),
        (FILES[2], "cap_drop: [ALL]", "cap_drop: ALL"),
        (FILES[2], "target: /artifact", "path: /artifact"),
        (FILES[2], 'command: ["serve"', 'commands: ["serve"'),
    ],
)
def test_a_file_that_its_reader_would_refuse_is_seen(file: str, right: str, wrong: str) -> None:
    written = text("cpu", file)
    assert right in written
    with pytest.raises(jsonschema.ValidationError):
        check(written.replace(right, wrong))


def pods(name: str, baked: bool) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The pod template of each manifest, and the service beside it."""
    deployment, service = check(text(name, FILES[0], baked=baked))
    yield deployment["spec"]["template"], service
    lws, service = check(text(name, FILES[1], baked=baked))
    yield lws["spec"]["leaderWorkerTemplate"]["workerTemplate"], service


@pytest.mark.parametrize("name", containers())
@pytest.mark.parametrize("baked", [False, True])
def test_a_pod_mounts_what_it_has_and_is_found_by_its_service(name: str, baked: bool) -> None:
    for pod, service in pods(name, baked):
        selector = service["spec"]["selector"].items()
        assert selector <= pod["metadata"]["labels"].items()
        spec = pod["spec"]
        (container,) = spec["containers"]
        mounted = [each["name"] for each in container["volumeMounts"]]
        assert mounted == [each["name"] for each in spec["volumes"]]
        assert ("artifact" in mounted) != baked
        writable = {v["mountPath"] for v in container["volumeMounts"] if not v.get("readOnly")}
        assert writable == {"/var/lib/lostwax", "/tmp", "/dev/shm"}
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert spec["securityContext"]["runAsNonRoot"]
        named = {port["name"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named
        assert container["livenessProbe"]["httpGet"]["path"] == "/health", "open without a key"


@pytest.mark.parametrize("tag", ["123", "null", "1:30", "true", "1e3", "0x10", "registry/a:1"])
@pytest.mark.parametrize("file", FILES)
def test_a_tag_stays_text(tag: str, file: str) -> None:
    container = containers()["cpu"]
    written = rendered(container, Asked(tag))[file].decode()
    document = check(written)[0]
    match file:
        case "compose.yaml":
            found = document["services"]["lostwax"]["image"]
        case "kubernetes/lws.yaml":
            pod = document["spec"]["leaderWorkerTemplate"]["workerTemplate"]
            found = pod["spec"]["containers"][0]["image"]
        case _:
            found = document["spec"]["template"]["spec"]["containers"][0]["image"]
    assert found == tag


def test_a_deployment_selects_its_own_pods() -> None:
    deployment, _ = check(text("cpu", FILES[0]))
    wanted = deployment["spec"]["selector"]["matchLabels"].items()
    assert wanted <= deployment["spec"]["template"]["metadata"]["labels"].items()


def allowed(command: list[str]) -> set[str]:
    """The names by which a server that is started so may be called."""
    return {name for option, name in pairwise(command) if option == "--allow-host"}


@pytest.mark.parametrize("name", containers())
def test_servers_are_told_the_names_by_which_they_are_called(name: str) -> None:
    known = {n for a in command_app("serve").assemble_argument_collection() for n in a.names}
    (served,) = check(text(name, FILES[2]))
    assert allowed(served["services"]["lostwax"]["command"]) == {"lostwax"}
    for pod, service in pods(name, baked=False):
        (container,) = pod["spec"]["containers"]
        args, called = container["args"], service["metadata"]["name"]
        assert tuple(args[: len(COMMAND)]) == COMMAND == tuple(commanded(name))
        assert {word for word in args if word.startswith("--")} <= known
        suffixes = ("", ".$(NAMESPACE)", ".$(NAMESPACE).svc", ".$(NAMESPACE).svc.cluster.local")
        assert allowed(args) == {called + suffix for suffix in suffixes}
        assert [each["name"] for each in container["env"]] == ["NAMESPACE"], "args name it"


def commanded(name: str) -> list[str]:
    """What the image itself runs."""
    (line,) = (x for x in text(name, "Dockerfile").splitlines() if x.startswith("CMD "))
    return json.loads(line.removeprefix("CMD "))


def test_ranks_of_an_artifact_have_a_device_each_and_one_node() -> None:
    for name, file in product(["cuda-h200", "rocm-mi355", "ascend-a2", "cpu"], FILES[:2]):
        first, _ = check(text(name, file, ranks=4))
        spec = first["spec"].get("template") or first["spec"]["leaderWorkerTemplate"]
        assert spec.get("size", 1) == 1
        (container,) = spec.get("workerTemplate", spec)["spec"]["containers"]
        resource = containers()[name].device.resource
        if resource:
            assert container["resources"] == {"limits": {resource: 4}}
        else:
            assert container["resources"] == {"requests": {"cpu": 8, "memory": "32Gi"}}
    (compose,) = check(text("cuda-h200", FILES[2], ranks=4))
    reserved = compose["services"]["lostwax"]["deploy"]["resources"]["reservations"]
    assert reserved["devices"][0]["count"] == 4
    assert "(this one has 4) meet over a file of one host" in text("cpu", FILES[1], ranks=4)


def test_a_set_of_several_servers_has_one_node_for_each() -> None:
    lws, service = check(text("rocm-mi300", FILES[1], replicas=5))
    assert (lws["spec"]["replicas"], lws["spec"]["leaderWorkerTemplate"]["size"]) == (5, 1)
    assert service["metadata"]["name"] != lws["metadata"]["name"], "its controller makes one so"


@pytest.mark.parametrize("name", containers())
def test_compose_gives_what_the_run_command_gives(name: str) -> None:
    (compose,) = check(text(name, FILES[2]))
    served = compose["services"]["lostwax"]
    targets = {volume["target"] for volume in served["volumes"]}
    written = text(name, "README.md")
    bound = {target for target in targets if target in written}
    assert bound == targets
    assert {"/artifact", "/checkpoint", "/var/lib/lostwax"} <= targets
    nodes = [each.partition(":")[0] for each in served.get("devices", [])]
    assert nodes == list(containers()[name].device.nodes)
