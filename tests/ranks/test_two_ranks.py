"""Two CPU processes give what one gives, from one capture and one artifact."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from native_kernels import torch_alone
from play_steps import Note, play_artifact
from rank_processes import run_on_two_ranks
from tiny import MTP, ODD, PLAIN, WIDE, Config, write_config

from lostwax.backends.asked import UnsupportedRanks
from lostwax.backends.compile import CompileOptions, compile_module
from lostwax.backends.formats import Formats
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.runtime.load import load
from lostwax.backends.runtime.ranks import RankError
from lostwax.frontend.capture import Captured, capture
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.frontend.config import parse_config
from lostwax.frontend.new_checkpoint import Format, new_checkpoint
from lostwax.ir.contract.artifact import Manifest
from lostwax.ir.passes.shard import ShardRefused

SCRIPT = Path(__file__).parents[1] / "play_steps.py"
SIZES = Sizes(max_context=128, max_tokens=64, max_reqs=2, max_score_rows=64)
OPTIONS = CompileOptions(dtype="f32", sizes=SIZES)
EVEN_ODD: Config = ODD | {"num_attention_heads": 2, "num_key_value_heads": 2}
"""Sizes that are multiples of nothing but two ranks; its vocabulary not even of them."""


@dataclass(frozen=True)
class Case:
    """One model, how it is stored and computed, and how far log-probabilities may differ."""

    config: Config
    format: Format = "fp32"
    options: CompileOptions = OPTIONS
    bound: float = 1e-4
    is_native: bool = False
    """Whether the CPU's native kernels run, of which nobody hears what they choose."""


NO_MARGIN = 2**-8
"""Of two experts' scores, which are below 1 and a bias: what bf16 keeps of the states before."""
MOST_TIES = 2
BF16 = replace(OPTIONS, dtype="bf16")
FP8 = Formats(kv="fp8_656", indexer="fp8_ue8m0", activations="fp8_ue8m0")
WHOLE_BLOCKS: Config = WIDE | {"vocab_size": 64, "hidden_size": 256, "moe_intermediate_size": 256}
"""A rank's slices hold whole blocks of 128, in which activations are quantised."""
CASES = {
    "plain": Case(PLAIN),
    "even_odd": Case(EVEN_ODD),
    "drafting": Case(MTP, options=replace(OPTIONS, sizes=replace(SIZES, max_drafts=2))),
    "stored_fp8": Case(WIDE | {"vocab_size": 64, "hidden_size": 256}, "fp8", BF16, 0.05),
    "all_fp8": Case(WHOLE_BLOCKS, "fp8", replace(BF16, formats=FP8), 0.05),
    "native": Case(PLAIN, is_native=True),
    "native_drafting": Case(
        MTP, options=replace(OPTIONS, sizes=replace(SIZES, max_drafts=2)), is_native=True
    ),
    "batch_invariant": Case(PLAIN, options=replace(OPTIONS, batch_invariant=True)),
}


def compiled(
    captured: Captured, out: Path, tp: int, options: CompileOptions = OPTIONS, target: str = "cpu"
) -> Manifest:
    chosen = replace(options, tp=tp)
    return compile_module(captured.module, captured.facts, captured.weights, target, out, chosen)


def captured_checkpoint(folder: Path, config: Config, format: Format) -> Captured:
    source = write_config(folder / "source", config)
    new_checkpoint(source, folder / "checkpoint", seed=3, format=format)
    return capture(open_checkpoint(folder / "checkpoint"))


@dataclass(frozen=True)
class Played:
    """Each case's folder, what one rank noted, and what each of two did."""

    folder: Path
    alone: dict[str, Note]
    ranks: tuple[dict[str, Note], dict[str, Note]]

    def of(self, case: str) -> tuple[Note, Note, Note]:
        """One rank's note, then both ranks'."""
        key = str(self.folder / case / "two")
        return self.alone[case], self.ranks[0][key], self.ranks[1][key]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("ranks")
    alone: dict[str, Note] = {}
    pairs: list[str] = []
    threads = torch.get_num_threads()
    for name, case in CASES.items():
        captured = captured_checkpoint(folder / name, case.config, case.format)
        checkpoint = folder / name / "checkpoint"
        for tp, out in ((1, "one"), (2, "two")):
            with nullcontext() if case.is_native else torch_alone():
                compiled(captured, folder / name / out, tp, case.options)
        alone[name] = play_artifact(folder / name / "one", checkpoint)
        pairs.append(f"{checkpoint}={folder / name / 'two'}")
    torch.set_num_threads(threads)
    run_on_two_ranks(SCRIPT, str(folder), *pairs)
    first, second = (json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))
    return Played(folder, alone, (first, second))


def tied_rows(first: Note, alone: Note) -> set[tuple[int, int]]:
    """(step, row) of what another expert computed because two scored the same but for rounding:
    the sums of two ranks are added up in another order."""
    steps = len(alone["scores"])
    assert alone["routes"]
    ties: set[tuple[int, int]] = set()
    for call, routed in enumerate(zip(first["routes"], alone["routes"], strict=True)):
        for row, ((ours, margin), (theirs, _)) in enumerate(zip(*routed, strict=True)):
            if ours != theirs:
                assert margin < NO_MARGIN
                ties.add((call * steps // len(alone["routes"]), row))
    return ties


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_score_and_pick_as_one(played: Played, case: str) -> None:
    alone, first, _ = played.of(case)
    assert first["programs"] == alone["programs"]
    assert any("chosen" in p for p in first["programs"])
    ties = set[tuple[int, int]]() if CASES[case].is_native else tied_rows(first, alone)
    assert len(ties) <= MOST_TIES
    for step, (rows, expected) in enumerate(zip(first["scores"], alone["scores"], strict=True)):
        for row, (found, wanted) in enumerate(zip(rows, expected, strict=True)):
            if (step, row) not in ties:
                assert found == pytest.approx(wanted, rel=0, abs=CASES[case].bound), (step, row)
    if CASES[case].options.dtype == "f32":
        assert not ties
        assert first["ids"] == alone["ids"]


@pytest.mark.parametrize("case", ["drafting", "native_drafting"])
def test_two_ranks_draft_as_one(played: Played, case: str) -> None:
    alone, first, _ = played.of(case)
    assert first["drafted"] == alone["drafted"]
    assert first["num_drafted"] == alone["num_drafted"] > 0


@pytest.mark.parametrize("case", [name for name, each in CASES.items() if not each.is_native])
def test_every_rank_selects_the_same_positions(played: Played, case: str) -> None:
    _, first, second = played.of(case)
    assert len(first["selections"]) >= CASES[case].config["num_hidden_layers"] * 8
    assert first["selections"] == second["selections"]


def test_ranks_load_one_artifact(played: Played) -> None:
    for case in CASES:
        _, first, second = played.of(case)
        assert first["digest"] == second["digest"]


def test_ranks_that_loaded_different_things_refuse(played: Played) -> None:
    for notes in played.ranks:
        assert "different artifacts or numbers of pages" in notes["strangers"]["refusal"]


def test_one_capture_serves_any_number_of_ranks(played: Played) -> None:
    one, two = (
        (played.folder / "plain" / n / "graphs" / "captured.mlir").read_text()
        for n in ("one", "two")
    )
    assert one == two


def test_an_artifact_of_ranks_is_the_same_again(played: Played, tmp_path: Path) -> None:
    again = capture(open_checkpoint(played.folder / "plain" / "checkpoint"))
    with torch_alone():
        made = compiled(again, tmp_path / "again", 2)
    assert made.digest == played.of("plain")[1]["digest"]


def test_a_rank_alone_says_how_to_start_the_others(played: Played) -> None:
    with pytest.raises(RankError, match="use `lostwax serve`, which starts one a rank"):
        load(played.folder / "plain" / "two", checkpoint=played.folder / "plain" / "checkpoint")


@pytest.mark.parametrize(
    ("config", "tp", "message"),
    [
        (ODD, 2, "the 3 heads of .* do not divide over tp=2; choose a tp that divides them"),
        (PLAIN | {"intermediate_size": 93}, 2, "'mlp.gate_proj.weight' of @dense has 93 elements"),
        (PLAIN | {"moe_intermediate_size": 27}, 2, "do not divide over tp=2"),
        (PLAIN, 3, "heads of .* do not divide over tp=3"),
    ],
)  # fmt: skip
def test_what_does_not_divide_is_refused(
    tmp_path: Path, config: Config, tp: int, message: str
) -> None:
    with pytest.raises(ShardRefused, match=message):
        compiled(capture(parse_config(config)), tmp_path / "out", tp)
    assert not (tmp_path / "out").exists()


def test_ranks_on_a_target_of_captured_graphs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedRanks, match="leave --tp out"):
        compiled(capture(parse_config(PLAIN)), tmp_path / "out", 2, BF16, "cuda-sm90a")
