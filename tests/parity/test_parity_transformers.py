"""An fp32 artifact gives transformers' logits, however the tokens were fed to it."""

from __future__ import annotations

import pytest
from harness import PROMPT, Build, Models, Player, Rows, error_of
from oracle import hf_greedy, hf_logits
from torch import Tensor

from lostwax.ir.contract.artifact import Manifest

TOLERANCE = 1e-4  # of logits of order 1; transformers and this differ by about 3e-6

BUILDS = [
    Build("plain"),
    Build("odd", 1, page_tokens=16),
    Build("deep", 2, "bf16"),
    Build("wide", 3, "fp8"),
    Build("odd", 4, "fp8"),
    *(
        pytest.param(build, marks=pytest.mark.slow)
        for build in (
            Build("plain", 5, "bf16", page_tokens=16),
            Build("odd", 6),
            Build("deep", 7, "fp8"),
            Build("wide", 8),
            Build("wide", 9, "bf16"),
        )
    ),
]


@pytest.fixture(scope="module", params=BUILDS, ids=lambda build: build.name)
def build(request: pytest.FixtureRequest) -> Build:
    return request.param


@pytest.fixture
def player(models: Models, build: Build) -> Player:
    return Player(models.runtime(build))


def oracle_logits(models: Models, build: Build, *token_lists: list[int]) -> list[Tensor]:
    return hf_logits(models.oracle(build.config, build.seed, build.format), token_lists)


def test_one_prefill_gives_the_logits(models: Models, build: Build, player: Player) -> None:
    tokens = build.tokens(PROMPT)
    (want,) = oracle_logits(models, build, tokens)
    (rows,) = player.extend([(player.open(tokens), PROMPT)])
    assert error_of(rows, want) < TOLERANCE
    assert rows.ids == want.argmax(-1).tolist()


def test_odd_chunks_give_the_logits(models: Models, build: Build, player: Player) -> None:
    tokens = build.tokens(PROMPT, seed=1)
    (want,) = oracle_logits(models, build, tokens)
    request = player.open(tokens)
    for count in (1, 17, 13, 2, 64, 36, 17):
        (rows,) = player.extend([(request, count)])
        assert error_of(rows, want) < TOLERANCE, f"in the chunk of {count} before {request.done}"
        assert rows.ids == want.argmax(-1)[rows.first : request.done].tolist()
    assert request.done == PROMPT


def test_token_by_token_gives_the_logits(models: Models, build: Build, player: Player) -> None:
    tokens = build.tokens(PROMPT, seed=2)
    (want,) = oracle_logits(models, build, tokens)
    request = player.open(tokens)
    for position in range(PROMPT):
        (rows,) = player.decode([request], scores=position % 8 == 0)
        assert error_of(rows, want) < TOLERANCE, f"at position {position}"


def test_unequal_requests_in_a_batch_give_their_own_logits(
    models: Models, build: Build, player: Player
) -> None:
    """Chunks of unequal lengths at unequal depths, a request that leaves and one that joins."""
    lengths = (141, 9, 67, 34)
    token_lists = [build.tokens(n, seed=10 + i) for i, n in enumerate(lengths)]
    wants = oracle_logits(models, build, *token_lists)
    requests = [player.open(tokens) for tokens in token_lists]

    def check(given: list[int], results: list[Rows]) -> None:
        for index, rows in zip(given, results, strict=True):
            assert error_of(rows, wants[index]) < TOLERANCE, f"request {index}, {rows.program}"

    check([0], player.extend([(requests[0], 40)]))
    check([0, 1, 2], player.extend([(requests[0], 61), (requests[1], 5), (requests[2], 33)]))
    for _ in range(4):
        check([1, 0, 2], player.decode([requests[1], requests[0], requests[2]]))
    player.close(requests[1])  # its pages hold stale rows, which the next request gets
    requests[3] = player.open(token_lists[3])
    check([3, 2], player.extend([(requests[3], 31), (requests[2], 26)], scores=False))
    for _ in range(3):
        check([3, 0, 2], player.decode([requests[3], requests[0], requests[2]], scores=True))


def test_greedy_tokens_are_transformers_on_both_sides_of_index_topk(
    models: Models, build: Build, player: Player
) -> None:
    """max_kv <= index_topk picks the program without index logits, one token more the other."""
    manifest: Manifest = player.runtime.manifest
    prompt, num_new = build.tokens(27, seed=3), 12
    request = player.open(prompt, room=num_new)
    (rows,) = player.extend([(request, len(prompt))], scores=False)
    programs = dict[int, str]()
    for _ in range(num_new - 1):
        request.tokens.append(rows.ids[-1])
        (rows,) = player.decode([request])
        programs[request.done] = rows.program.rpartition("-")[2]
    oracle = models.oracle(build.config, build.seed, build.format)
    assert [*request.tokens[27:], rows.ids[-1]] == hf_greedy(oracle, prompt, num_new)
    border = manifest.model.index_topk
    assert programs == {n: "all" if n <= border else "chosen" for n in range(28, 39)}
