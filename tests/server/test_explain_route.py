"""What `/explain` says of an artifact is what was recorded, in bounds, and read elsewhere, once."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from fake_runtime import FakeRuntime
from http_server import running
from small_fixtures import Compiled

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.certificates import write_certificates
from lostwax.ir.contract.choice import Choices, Loser, RegionChoice
from lostwax.ir.contract.probe import Certificates, Evidence
from lostwax.server.engine.loop import EngineCore
from lostwax.server.gateway import explained
from lostwax.server.gateway.api_keys import digests_of
from lostwax.server.gateway.app import create_app
from lostwax.server.gateway.explain import Explainer
from lostwax.server.gateway.explain_answer import Explained, ExplainedChoices
from lostwax.server.gateway.explained import in_order, layers_of, lines
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.settings import Build, Settings
from lostwax.server.gateway.tokenizer import IdCodec

KEY = {"Authorization": "Bearer right"}


def _app(folder: Path) -> Any:
    build = Build(9, "ab", "cpu", folder)
    settings = Settings(build=build, key_digests=digests_of(["right"]))
    return create_app(InProcessEngine(EngineCore(FakeRuntime())), IdCodec(), settings)


@pytest.fixture(scope="module")
def proven(small_artifact: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small artifact with a proof of every probe."""
    folder = tmp_path_factory.mktemp("proven") / "art"
    shutil.copytree(small_artifact.artifact, folder)
    probes = ArtifactReader(folder).probes().probes
    found = Evidence(state="executed", max_error=1e-6, rms_error=1e-7)
    proof = Certificates(
        artifact=small_artifact.manifest.digest,
        device="a device",
        code="c",
        evidence={probe.id: found for probe in probes},
    )
    assert write_certificates(proof, folder / "certificates.json")
    return folder


@pytest.fixture(scope="module")
def client(proven: Path) -> Iterator[httpx.Client]:
    with running(_app(proven)) as url, httpx.Client(base_url=url, headers=KEY, timeout=60) as found:
        yield found


def _whole(client: httpx.Client) -> Explained:
    return msgspec.json.decode(client.get("/explain").content, type=Explained)


def _chosen(client: httpx.Client, name: str) -> ExplainedChoices:
    return msgspec.json.decode(client.get(f"/explain/{name}").content, type=ExplainedChoices)


def test_all_programs_are_listed_with_what_they_cost(client: httpx.Client, proven: Path) -> None:
    whole, reader = _whole(client), ArtifactReader(proven)
    recorded = reader.structure("choices.json", Choices)
    assert (whole.artifact, whole.target) == (reader.manifest.digest, "cpu")
    assert whole.device == "a device"
    assert [p.name for p in whole.programs] == [Path(r.file).stem for r in reader.manifest.programs]
    layers = {block.name: block.layers for block in whole.blocks}
    groups = reader.weight_plan().groups
    assert layers["moe"] == sum(group == "moe" for group in groups.values())
    assert layers["embed"] == layers["norm"] == 1
    for program in whole.programs:
        chosen = recorded.programs[program.name]
        total = sum(c.us * layers[c.block] for c in chosen)
        assert program.us == pytest.approx(total, rel=1e-3, abs=0.002)  # told to a nanosecond
        assert (program.num_choices, program.shown) == (len(chosen), True)
        assert program.measured_us == 0  # no record prices the cpu target's here


def test_what_records_priced_counts_as_measured(
    proven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = ArtifactReader(proven)
    read = reader.structure

    def measured(name: str, kind: type[Any]) -> Any:
        found = read(name, kind)
        if not isinstance(found, Choices):
            return found
        replace = msgspec.structs.replace
        of_moe = {"source": "record", "us": 3.0}
        programs = {
            name: tuple(replace(c, **(of_moe if c.block == "moe" else {})) for c in chosen)
            for name, chosen in found.programs.items()
        }
        return replace(found, programs=programs)

    plan = reader.weight_plan()
    deeper = {f"model.layers.{n}.": "moe" for n in range(90, 93)}
    deep = msgspec.structs.replace(plan, groups=plan.groups | deeper)
    monkeypatch.setattr(reader, "structure", measured)
    monkeypatch.setattr(reader, "weight_plan", lambda: deep)
    whole = msgspec.json.decode(next(lines(reader, None)), type=Explained)
    layers = next(block.layers for block in whole.blocks if block.name == "moe")
    assert layers > 3
    recorded = measured("choices.json", Choices)
    for program in whole.programs:
        ops = sum(c.block == "moe" for c in recorded.programs[program.name])
        assert program.measured_us == 3.0 * ops * layers
        assert (program.measured_us > 0) == (program.segment in ("extend", "decode"))


def test_a_programs_choices_are_those_recorded(client: httpx.Client, proven: Path) -> None:
    recorded = ArtifactReader(proven).structure("choices.json", Choices)
    for program in _whole(client).programs:
        told, chosen = _chosen(client, program.name).choices, recorded.programs[program.name]
        assert sorted((c.block, c.ops, c.lowering, c.us, c.num_losers) for c in told) == sorted(
            (c.block, list(c.ops), c.lowering, round(c.us, 3), len(c.losers)) for c in chosen
        )
        blocks = list(dict.fromkeys(c.block for c in told))
        assert [c.block for c in told] == sorted((c.block for c in told), key=blocks.index)
        assert all(c.proof is not None and c.proof.state == "executed" for c in told)


def test_blocks_come_as_they_run(client: httpx.Client) -> None:
    program = next(p for p in _whole(client).programs if p.segment == "decode")
    blocks = list(dict.fromkeys(c.block for c in _chosen(client, program.name).choices))
    assert blocks[0] == "embed"
    assert blocks[-1] == "norm"


def _choice(block: str = "moe", site: int = 0, **changes: Any) -> RegionChoice:
    plain: dict[str, Any] = {"ops": ("core.add",), "region": "r", "lowering": "add", "us": 2.0}
    plain |= {"source": "estimate", "knobs": {}, "losers": (), "site": (site,)}
    return RegionChoice(block=block, **plain | changes)


def test_what_a_block_does_first_comes_first() -> None:
    chosen = in_order((_choice("norm"), _choice(site=2, us=1.0), _choice(site=1)), {"moe": 3}, {})
    assert [(c.block, c.us, c.layers) for c in chosen] == [
        ("moe", 2.0, 3),
        ("moe", 1.0, 3),
        ("norm", 2.0, 1),
    ]


def test_losers_and_their_reasons_are_bounded() -> None:
    losers = tuple(Loser(lowering=f"l{n}", reason="so \n" * 999, us=None) for n in range(99))
    (found,) = in_order((_choice(losers=losers),), {}, {})
    assert found.num_losers == 99
    assert [each.lowering for each in found.losers] == [
        f"l{n}" for n in range(explained.MAX_LOSERS)
    ]
    assert all(len(each.reason) <= explained.MAX_REASON_CHARS for each in found.losers)
    assert "\n" not in found.losers[0].reason


def test_layers_are_those_of_prefixes() -> None:
    groups = {"": "embed+norm", "model.layers.0.": "dense", "model.layers.1.": "moe"}
    assert layers_of(groups | {"model.layers.2.": "moe"}) == {"dense": 1, "moe": 2}


def test_what_is_too_much_is_left_out_and_said_so(
    proven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overview, *rest = lines(ArtifactReader(proven), None)
    first = len(rest[1])
    monkeypatch.setattr(explained, "MAX_BYTES", first)
    less, *details = lines(ArtifactReader(proven), None)
    assert details == rest[:2]
    shown = [p.shown for p in msgspec.json.decode(less, type=Explained).programs]
    assert shown == [True] + [False] * (len(shown) - 1)
    assert all(p.shown for p in msgspec.json.decode(overview, type=Explained).programs)


def test_proofs_of_another_artifact_are_none(proven: Path, tmp_path: Path) -> None:
    reader = ArtifactReader(proven)
    other = Certificates(artifact="another", device="d", code="c", evidence={})
    assert write_certificates(other, tmp_path / f"{reader.manifest.digest}.json")
    whole = msgspec.json.decode(next(lines(reader, tmp_path)), type=Explained)
    assert whole.device is None
    (tmp_path / f"{reader.manifest.digest}.json").write_text("{")
    assert msgspec.json.decode(next(lines(reader, tmp_path)), type=Explained).device is None


def test_a_program_that_is_not_there_is_a_404(client: httpx.Client) -> None:
    for name in ("nothing", "../manifest", "x" * 999):
        answer = client.get(f"/explain/{name}")
        assert answer.status_code == 404
    assert "'nothing'" in client.get("/explain/nothing").json()["error"]["message"]


def test_a_key_is_asked_for(client: httpx.Client) -> None:
    for path in ("/explain", "/explain/decode"):
        assert httpx.get(f"{client.base_url}{path}").status_code == 401


def test_the_document_has_both_paths_and_no_server_without_an_artifact(
    client: httpx.Client,
) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/explain", "/explain/{program}"} <= {*paths}
    assert {"200", "401", "403", "404", "500", "503"} <= {
        *paths["/explain/{program}"]["get"]["responses"]
    }
    plain = create_app(InProcessEngine(EngineCore(FakeRuntime())), IdCodec(), Settings())
    assert "/explain" not in plain.openapi()["paths"]


def test_it_is_read_once_in_a_process_that_ends(
    proven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = list[asyncio.subprocess.Process]()
    start = asyncio.create_subprocess_exec

    async def counted(*command: Any, **options: Any) -> Any:
        started.append(await start(*command, **options))
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", counted)

    async def asked() -> None:
        explainer = Explainer(proven, None)
        first, second = await asyncio.gather(explainer.told(), explainer.told())
        assert first is second is await explainer.told()

    asyncio.run(asked())
    assert [process.returncode for process in started] == [0]
    assert started[0].pid != os.getpid()


def test_a_client_that_leaves_ends_no_reading_and_a_stop_does(proven: Path) -> None:
    async def asked() -> None:
        explainer = Explainer(proven, None)
        leaving = asyncio.create_task(explainer.told())
        await asyncio.sleep(0)
        leaving.cancel()
        assert (await explainer.told()).programs
        other = Explainer(proven, None)
        waiting = asyncio.create_task(other.told())
        await asyncio.sleep(0.05)
        await other.stop()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(asked())
