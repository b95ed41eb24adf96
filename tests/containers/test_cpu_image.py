"""The image `cpu`, really built and served: read-only, as nobody, without compiler or network."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cpu_image import BOOT_S, KEY, ROOT, Running, Store, missing, packages, run, running, wheel

pytestmark = pytest.mark.containers

LOSTWAX = [sys.executable, "-P", "-m", "lostwax"]
CHECKPOINT = ROOT / "models" / "tiny" / "weights"
IMAGE = "localhost/lostwax-cpu:test"
ASK = """
import json, urllib.request
def ask(path, body=None):
    headers = {"Content-Type": "application/json", "Authorization": "Bearer KEY"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request("http://127.0.0.1:8000/v1/" + path, data, headers)
    return json.load(urllib.request.urlopen(request, timeout=60))
model = ask("models")["data"][0]["id"]
messages = [{"role": "user", "content": "What is 17 + 25?"}]
asked = {"model": model, "max_tokens": 64, "temperature": 0, "messages": messages}
print(ask("chat/completions", asked)["choices"][0]["message"]["content"])
"""


@dataclass(frozen=True)
class Built:
    """What is left of a build."""

    store: Store
    base: str
    folder: Path
    root: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Generator[Built]:
    lacking = " and ".join(missing())
    assert not lacking, f"it lacks {lacking}: as root, apt-get install buildah crun debootstrap"
    tmp = tmp_path_factory.mktemp("image")
    store = Store(tmp / "store")
    store.folder.mkdir()
    base = store.standin()
    artifact = tmp / "artifact"
    small = ["--dtype", "fp32", "--max-context", "512", "--max-reqs", "2"]
    run([*LOSTWAX, "compile", CHECKPOINT, "-o", artifact, *small])
    run([*LOSTWAX, "container", "cpu", "-o", tmp / "plain"])
    packages(tmp / "plain" / "requirements.txt", tmp / "wheels")
    given = ["--artifact", artifact, "--wheel", wheel(tmp), "--wheels", tmp / "wheels"]
    build = ["--build", "--builder", "buildah", "--base-image", base, "--tag", IMAGE]
    build += ["--build-arg", "PIP_NO_INDEX=1"]
    command = [*LOSTWAX, "container", "cpu", "-o", tmp / "folder", *given, *build]
    run(command, env=store.environment, umask=0o077)  # as a careful builder's
    yield Built(store, base, tmp / "folder", store.mounted(IMAGE))
    store.buildah("rm", "--all")
    shutil.rmtree(tmp, ignore_errors=True)


@pytest.fixture(scope="module")
def served(
    built: Built, tmp_path_factory: pytest.TempPathFactory
) -> Generator[tuple[Running, Path]]:
    """The image as its own configuration runs it, once its health check says that it is ready."""
    tmp = tmp_path_factory.mktemp("run")
    configuration = built.store.configuration(IMAGE)
    (tmp / "keys").write_text(f"{KEY}\n")
    (tmp / "keys").chmod(0o644)
    evidence = tmp / "evidence"
    evidence.mkdir()
    shutil.chown(evidence, 10001, 10001)
    mounts = {
        "/checkpoint": (CHECKPOINT, False),
        "/run/secrets/lostwax/keys": (tmp / "keys", False),
        "/var/lib/lostwax": (evidence, True),
    }
    check, *command = configuration["Healthcheck"]["Test"]
    assert check == "CMD"
    with running(tmp / "bundle", built.root, configuration, mounts) as container:
        end = time.monotonic() + BOOT_S
        while container.inside(*command).returncode != 0:
            log = (tmp / "bundle" / "log").read_text()[-4000:]
            assert time.monotonic() < end, log
            assert container.has_not_ended, log
            time.sleep(1)
        yield container, evidence


def test_it_answers_a_question_by_the_key_alone(served: tuple[Running, Path]) -> None:
    container, _ = served
    assert "42" in container.python(ASK.replace("KEY", KEY))
    done = container.inside("/opt/lostwax/bin/python", "-c", ASK.replace("KEY", "another"))
    assert "401" in done.stderr


def test_it_runs_as_nobody_and_writes_to_its_evidence_alone(
    served: tuple[Running, Path],
) -> None:
    container, evidence = served
    assert container.inside("/usr/bin/id", "-u").stdout.strip() == "10001"
    for path in ("/x", "/opt/lostwax/x", "/artifact/x", "/checkpoint/x", "/etc/x"):
        done = container.inside("/usr/bin/touch", path)
        assert "Read-only file system" in done.stderr, path
    status = container.inside("/bin/cat", "/proc/1/status").stdout
    assert "Uid:\t10001\t10001\t10001\t10001\n" in status
    assert "CapEff:\t0000000000000000\n" in status
    (proven,) = evidence.iterdir()
    states = {each["state"] for each in json.loads(proven.read_text())["evidence"].values()}
    assert states == {"executed"}


def test_the_page_s_bring_up_ends_in_a_report_that_a_store_takes(
    built: Built, tmp_path: Path
) -> None:
    page = (built.folder / "README.md").read_text().replace("\\\n", "")
    (line,) = re.findall(rf"{IMAGE} (bring-up .*)$", page, re.M)
    evidence = tmp_path / "evidence"
    evidence.mkdir()
    shutil.chown(evidence, 10001, 10001)
    mounts = {"/checkpoint": (CHECKPOINT, False), "/var/lib/lostwax": (evidence, True)}
    configuration = built.store.configuration(IMAGE) | {"Cmd": shlex.split(line)}
    with running(tmp_path / "bundle", built.root, configuration, mounts) as container:
        status = container.process.wait(BOOT_S)
    assert status == 0, (tmp_path / "bundle" / "log").read_text()[-4000:]
    filed = run([*LOSTWAX, "records", "add", evidence / "report", "-o", tmp_path / "store"])
    assert re.search(r" for cpu: \d+ executed, 0 wrong\n", filed)


def test_what_is_installed_is_what_the_bill_of_materials_says(
    served: tuple[Running, Path], built: Built
) -> None:
    container, _ = served
    listed = container.python(
        "import json\nfrom importlib.metadata import distributions\n"
        "print(json.dumps([[d.name, d.version] for d in distributions()]))"
    )
    there = {(name.replace("_", "-").lower(), version) for name, version in json.loads(listed)}
    inside = built.root / "usr/share/lostwax/sbom.cdx.json"
    assert inside.read_bytes() == (built.folder / "sbom.cdx.json").read_bytes()
    bill = json.loads(inside.read_text())
    wanted = {(each["name"], each["version"]) for each in bill["components"]}
    assert {(name, version.partition("+")[0]) for name, version in there} == wanted


def test_it_holds_no_compiler(built: Built) -> None:
    programs = {"cc", "gcc", "g++", "clang", "ld", "as", "nvcc", "ptxas", "hipcc", "cpp"}
    found = [
        str(path)
        for path in built.root.rglob("*")
        if path.name in programs and not path.is_dir() and not path.is_relative_to("/proc")
    ]
    assert [path for path in found if "/bin/" in path] == []


def test_a_build_refuses_a_compiler_and_a_base_that_is_not_pinned(
    built: Built, tmp_path: Path
) -> None:
    text = (built.folder / "Dockerfile").read_text()
    (search,) = re.findall(r"^RUN found=.*?exit 1; fi$", text, re.M | re.S)
    (pinned,) = re.findall(r"^RUN case .*?esac$", text, re.M | re.S)
    store = built.store
    for planted, instruction, said in (
        ("touch /usr/bin/gcc-12 && chmod 755 /usr/bin/gcc-12", search, "/usr/bin/gcc-12"),
        ("true", search, ""),
        ("true", pinned, "give it with its digest"),
    ):
        dockerfile = f"FROM {built.base}\nARG BASE_IMAGE\nRUN {planted}\n{instruction}\n"
        (tmp_path / "Dockerfile").write_text(dockerfile)
        given = ["--build-arg", "BASE_IMAGE=python:3.11", tmp_path]
        if said:
            with pytest.raises(AssertionError, match=said):
                store.buildah("build", *given)
        else:
            store.buildah("build", *given)
