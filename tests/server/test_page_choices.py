"""The page's view of what was compiled: layers by their time, each choice, what lost and why."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_runtime import FakeRuntime
from http_server import running
from page_visits import NODE, needs_node, visit
from small_fixtures import Compiled

from lostwax.server.engine.loop import EngineCore
from lostwax.server.gateway.app import create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.page_routes import FOLDER
from lostwax.server.gateway.settings import Build, Settings
from lostwax.server.gateway.tokenizer import IdCodec


def _app(build: Build | None) -> Any:
    engine = InProcessEngine(EngineCore(FakeRuntime()))
    return create_app(engine, IdCodec(), Settings(build=build))


@pytest.fixture(scope="module")
def url(small_artifact: Compiled) -> Iterator[str]:
    with running(_app(Build(9, "ab", "cpu", small_artifact.artifact))) as found:
        yield found


@needs_node
def test_layers_and_choices_of_each_program_are_shown(url: str, tmp_path: Path) -> None:
    seen = visit("choices", url, tmp_path)
    programs = httpx.get(f"{url}/explain", timeout=60).json()["programs"]
    assert len(seen["programs"]) == len(programs)
    assert seen["asked"] == [
        "/explain",
        *(f"/explain/{programs[at]['name']}" for at in (0, -1)),
    ]
    for shown, program in ((seen["first"], programs[0]), (seen["last"], programs[-1])):
        choices = httpx.get(f"{url}/explain/{program['name']}").json()["choices"]
        assert shown["ops"] == [" + ".join(choice["ops"]) for choice in choices]
        assert f"{program['segment']} program" in shown["said"]
        assert "all of it estimated" in shown["said"]
        blocks = list(dict.fromkeys(choice["block"] for choice in choices))
        assert [text.split(":")[0].split(" \u00d7 ")[0] for text in shown["blocks"]] == blocks
        assert all(f"{block}" in shown["picture"] for block in blocks)
        layers = sum({choice["block"]: choice["layers"] for choice in choices}.values())
        assert shown["layers"] >= layers
    assert seen["views"] == {"talk": True, "choices": False}
    assert (seen["talk"], seen["choices"], seen["current"]) == (False, True, "page")


@needs_node
def test_what_lost_is_said_when_it_is_asked_for(url: str, tmp_path: Path) -> None:
    seen = visit("choices", url, tmp_path)
    name = httpx.get(f"{url}/explain", timeout=60).json()["programs"][0]["name"]
    choice = httpx.get(f"{url}/explain/{name}").json()["choices"][2]
    assert seen["before"] == {"text": "", "hidden": True}
    assert seen["expanded"] == "true"
    assert not seen["open"]["hidden"]
    for loser in choice["losers"]:
        assert loser["lowering"] in seen["open"]["text"]
        assert loser["reason"] in seen["open"]["text"]
    assert choice["losers"]
    assert seen["closed"] == seen["open"] | {"hidden": True}


@needs_node
def test_a_server_without_an_artifact_says_so(tmp_path: Path) -> None:
    with running(_app(None)) as url:
        assert "serves no artifact" in visit("none", url, tmp_path)


DRAWN = """
import * as e from "./explaining.mjs";
const choice = (block, layers, op, us) => ({ block, layers, ops: [op], us, source: "estimate",
  lowering: "x", knobs: {}, estimate_us: us, prepared_us: 0, proof: null, losers: [] });
const blocks = e.blocksOf([choice("embed", 1, "core.embed", 20),
  choice("moe", 3, "quant.linear", 10), choice("moe", 3, "mla.attend", 10),
  choice("norm", 1, "core.rms_norm", 20)]);
const { rectangles, labels } = e.layersDrawn(blocks);
const empty = e.layersDrawn(e.blocksOf([choice("a", 1, "core.add", 0)]));
const metrics = new Map([['lostwax_engine_steps_total{segment="decode"}', 4],
  ['lostwax_engine_step_seconds_total{entry="decode"}', 0.01]]);
const some = choice("a", 1, "x.y", 5);
const facts = (changes) => Object.fromEntries(e.choiceText({ ...some, ...changes }));
console.log(JSON.stringify({
  us: blocks.map((block) => block.us), rectangles, labels, empty,
  text: e.layersText(blocks),
  times: [0.05, 1.234, 12.3, 123.4, 1234, 123456, 2345678].map(e.timeText),
  families: [["core.add", "quant.linear"], ["dsa.all", "mla.attend"], ["moe.route"], ["kv.append"]]
    .map(e.familyOf),
  program: e.programText({ segment: "decode", tokens: 1, reqs: 2, pages: 8, rows: 0,
    guard: "always" }),
  guarded: e.programText({ segment: "pick", tokens: 0, reqs: 0, pages: 0, rows: 1,
    guard: "max_kv <= 256" }),
  prices: [0, 5, 20].map((measured_us) => e.priceText({ us: 20, measured_us })),
  steps: [[metrics, "decode"], [metrics, "pick"], [undefined, "decode"]]
    .map((each) => e.stepsText(...each)),
  estimated: facts({}), measured: facts({ source: "record", us: 4, knobs: { tile: 8 },
    prepared_us: 1, portable: true,
    proof: { state: "executed", max_error: 0.00012, rms_error: 0.00001 } }),
  compiled: facts({ proof: { state: "compiled", max_error: null, rms_error: null } }),
}));
"""


@needs_node
def test_pictures_and_words_follow_from_the_numbers(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "explaining.js", tmp_path / "explaining.mjs")
    (tmp_path / "drawn.mjs").write_text(DRAWN)
    command = [str(NODE), str(tmp_path / "drawn.mjs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["us"] == [20, 60, 20]
    assert [(r["family"], r["x"], r["width"], r["y"], r["height"]) for r in seen["rectangles"]] == [
        ("other", 0, 20, 0, 100),
        *(
            each
            for x in (20, 40, 60)
            for each in (("attention", x, 20, 0, 50), ("products", x, 20, 50, 50))
        ),
        ("other", 80, 20, 0, 100),
    ]
    assert seen["labels"] == [
        {"text": "embed", "x": 10},
        {"text": "moe \u00d7 3", "x": 50},
        {"text": "norm", "x": 90},
    ]
    assert seen["empty"]["rectangles"] == []
    assert seen["text"] == (
        "Share of the predicted time: embed: 20 %; moe, 3 layers: 60 %; norm: 20 %."
    )
    assert seen["times"] == ["0.05 us", "1.2 us", "12 us", "123 us", "1.23 ms", "123 ms", "2.35 s"]
    assert seen["families"] == ["products", "attention", "experts", "other"]
    assert seen["program"] == "decode: up to 1 token, 2 requests, 8 pages"
    assert seen["guarded"] == "pick: up to 1 row where max_kv <= 256"
    assert seen["prices"] == [
        "20 us a run, all of it estimated",
        "20 us a run, 25 % of it measured",
        "20 us a run, 100 % of it measured",
    ]
    assert "decode steps took 2.50 ms on average" in seen["steps"][0]
    assert seen["steps"][1:] == ["", ""]
    assert seen["estimated"]["Time in one layer"] == "5.0 us, estimated"
    assert seen["estimated"]["Proof"] == "none on this device"
    assert seen["measured"] == {
        "Ops": "x.y",
        "Lowering": "x (any target has it)",
        "Set to": "tile = 8",
        "Time in one layer": "4.0 us, measured",
        "Estimated": "5.0 us",
        "Of it once a step": "1.0 us",
        "Proof": "executed here, error 1.2e-4 at most, 1.0e-5 RMS",
    }
    assert seen["compiled"]["Proof"] == "compiled, never ran here"
