"""CPU twins behind the operators' own schemas: as strict as the rules, lengths among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from ascend_tools.samples import SAMPLES

from lostwax.backends.ascend.kernels.attention import row_groups, single_rows
from lostwax.backends.ascend.twins.attention import NOTHING
from lostwax.backends.ascend.twins.checked import RuleBroken
from lostwax.backends.ascend.twins.register import register

Change = Callable[[dict[str, Any]], None]
I32 = torch.int32


@pytest.fixture(scope="module", autouse=True)
def npu() -> Any:
    """Operators, kept as long as the process."""
    register()
    return torch.ops.npu


def attention() -> dict[str, Any]:
    """Two requests of 2 and 1 rows over 20 and 40 positions in blocks of 16."""
    torch.manual_seed(0)
    keys = torch.randn(8, 16, 1, 512).bfloat16()
    return {
        "query": torch.randn(3, 4, 512).bfloat16(),
        "key": keys,
        "value": keys,
        "sparse_indices": torch.tensor([[[0, 3, -1]], [[19, 1, 2]], [[5, 39, -1]]], dtype=I32),
        "scale_value": 0.1,
        "block_table": torch.tensor([[1, 2, 0], [3, 4, 5]], dtype=I32),
        "actual_seq_lengths_query": torch.tensor([2, 3], dtype=I32),
        "actual_seq_lengths_kv": torch.tensor([20, 40], dtype=I32),
        "query_rope": torch.randn(3, 4, 64).bfloat16(),
        "key_rope": torch.randn(8, 16, 1, 64).bfloat16(),
        "layout_query": "TND",
        "layout_kv": "PA_BSND",
        "sparse_mode": 0,
        "attention_mode": 2,
    }


def attend(arguments: dict[str, Any]) -> torch.Tensor:
    return torch.ops.npu.npu_sparse_flash_attention(**arguments)[0]


def test_attention_is_softmax_over_what_is_selected() -> None:
    given = attention()
    out = attend(given)
    chosen, table = [5, 39], [3, 4, 5]
    keys = torch.stack([given["key"][table[p // 16], p % 16, 0] for p in chosen]).float()
    ropes = torch.stack([given["key_rope"][table[p // 16], p % 16, 0] for p in chosen]).float()
    scores = given["query"][2].float() @ keys.T + given["query_rope"][2].float() @ ropes.T
    want = torch.softmax(scores * 0.1, -1) @ keys
    torch.testing.assert_close(out[2].float(), want, rtol=1e-2, atol=1e-2)


def set_to(name: str, change: Callable[[Any], Any]) -> Change:
    def apply(arguments: dict[str, Any]) -> None:
        arguments[name] = change(arguments[name])

    return apply


def three_heads(arguments: dict[str, Any]) -> None:
    for name in ("query", "query_rope"):
        arguments[name] = arguments[name][:, :3].contiguous()


def small_blocks(arguments: dict[str, Any]) -> None:
    for name in ("key", "value", "key_rope"):
        arguments[name] = arguments[name][:, :8].contiguous()
    arguments["value"] = arguments["key"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_to("query", torch.Tensor.float), "query is f32"),
        (three_heads, "N is 3, wants one of 1, 2, 4"),
        (small_blocks, "block is 8, wants a multiple of 16"),
        (set_to("query", lambda q: q.transpose(0, 1).contiguous().transpose(0, 1)), "dense"),
        (set_to("actual_seq_lengths_query", lambda t: t.new_tensor([2, 1])), "not cumulative"),
        (set_to("actual_seq_lengths_query", lambda t: t.new_tensor([1, 2])), "up to 3 rows"),
        (set_to("actual_seq_lengths_kv", lambda t: t.new_tensor([20, 60])), "beyond 48"),
        (set_to("actual_seq_lengths_kv", lambda t: t.new_tensor([-1, 40])), "negative"),
        (set_to("attention_mode", lambda _: 0), "attention_mode is 0"),
        (set_to("layout_kv", lambda _: "TND"), "layout_kv is 'TND'"),
        (set_to("sparse_indices", torch.Tensor.long), "sparse_indices is i64"),
        (set_to("query_rope", torch.Tensor.half), "wants one type"),
    ],
)
def test_what_the_rule_forbids_is_refused(change: Change, said: str) -> None:
    given = attention()
    change(given)
    with pytest.raises(RuleBroken, match=said):
        attend(given)


def test_a_position_that_a_request_does_not_have_is_refused() -> None:
    """Also where no mask hides it: what lies there may be another request's."""
    for mode in (0, 3):
        given = attention()
        given["sparse_mode"] = mode
        given["sparse_indices"][0, 0, 1] = 20
        with pytest.raises(RuleBroken, match="row 0 selects position 20 of a request of 20"):
            attend(given)


def test_key_and_value_are_one_tensor() -> None:
    given = attention()
    given["value"] = given["value"].clone()
    with pytest.raises(ValueError, match="one tensor"):
        attend(given)


def test_what_stands_behind_a_negative_index_is_not_read() -> None:
    given = attention()
    before = attend(given)
    given["sparse_indices"][0, 0] = torch.tensor([0, -1, 3], dtype=I32)
    after = attend(given)
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1:], after[1:])


def index_arguments() -> dict[str, Any]:
    torch.manual_seed(1)
    return {
        "query": torch.randn(3, 2, 128).bfloat16(),
        "key": torch.randn(8, 16, 1, 128).bfloat16(),
        "weights": torch.ones(3, 2),
        "actual_seq_lengths_query": torch.tensor([2, 3], dtype=I32),
        "actual_seq_lengths_key": torch.tensor([5, 40], dtype=I32),
        "block_table": torch.tensor([[1, 2, 0], [3, 4, 5]], dtype=I32),
        "layout_query": "TND",
        "layout_key": "PA_BSND",
        "sparse_count": 8,
        "sparse_mode": 3,
    }


def test_a_row_selects_of_what_it_sees() -> None:
    """Of two rows over five positions the first sees four; nothing is said of the places behind."""
    chosen, _ = torch.ops.npu.npu_lightning_indexer(**index_arguments())
    assert sorted(chosen[0, 0, :4].tolist()) == [0, 1, 2, 3]
    assert sorted(chosen[1, 0, :5].tolist()) == [0, 1, 2, 3, 4]
    assert set(chosen[0, 0, 4:].tolist()) == {NOTHING}
    assert len(set(chosen[2, 0].tolist())) == 8


def test_the_indexer_refuses_65_heads() -> None:
    given = index_arguments()
    given["query"] = torch.randn(3, 65, 128).bfloat16()
    given["weights"] = torch.ones(3, 65)
    with pytest.raises(RuleBroken, match="N is 65, wants at most 64"):
        torch.ops.npu.npu_lightning_indexer(**given)


def test_shares_of_a_grouped_product_must_be_all_rows() -> None:
    x, weight = torch.randn(4, 8).bfloat16(), torch.randn(2, 8, 6).bfloat16()

    def product(counts: list[int]) -> torch.Tensor:
        (found,) = torch.ops.npu.npu_grouped_matmul(
            [x], [weight], split_item=2, group_type=0, group_list=torch.tensor(counts),
            group_list_type=1, output_dtype=torch.bfloat16,
        )  # fmt: skip
        return found

    want = torch.cat([x[:1].float() @ weight[0].float(), x[1:].float() @ weight[1].float()])
    torch.testing.assert_close(product([1, 3]).float(), want, rtol=1e-2, atol=1e-2)
    with pytest.raises(RuleBroken, match="does not sum to 4 rows"):
        product([1, 4])


def test_the_groups_of_a_step_count_rows_without_a_token_apart() -> None:
    """Three requests, the last of padding: their rows end at 2, 3, 3; two more rows have none."""
    ends, lengths = torch.empty(4, dtype=I32), torch.empty(4, dtype=I32)
    table = torch.empty((4, 2), dtype=I32)
    row_groups(
        torch.tensor([0, 2, 3, 3], dtype=I32), torch.tensor([20, 7, 0], dtype=I32),
        torch.tensor([[1, 2], [3, 0], [0, 0]], dtype=I32), ends, lengths, table,
        rows=5, page_tokens=16,
    )  # fmt: skip
    assert ends.tolist() == [2, 3, 3, 5]
    assert lengths.tolist() == [20, 7, 0, 2]
    assert table.tolist() == [[1, 2], [3, 0], [0, 0], [0, 0]]


def test_rows_of_requests_whose_drafts_are_missing_see_their_own_positions() -> None:
    """Of three rows of the first request one has a token; the second lacks its last."""
    ends, lengths = torch.empty(7, dtype=I32), torch.empty(7, dtype=I32)
    table = torch.empty((7, 2), dtype=I32)
    single_rows(
        torch.tensor([19, -1, -1, 6, 7, -1, -1], dtype=I32), torch.tensor([0, 3, 6], dtype=I32),
        torch.tensor([[1, 2], [3, 0]], dtype=I32), ends, lengths, table,
    )  # fmt: skip
    assert ends.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert lengths.tolist() == [20, 0, 0, 7, 8, 0, 0]
    assert table.tolist() == [[1, 2]] * 3 + [[3, 0]] * 4


def latent_row() -> dict[str, Any]:
    torch.manual_seed(2)
    return {
        "kv": torch.randn(3, 1, 1, 576).bfloat16(),
        "gamma": torch.rand(512).bfloat16(),
        "cos": torch.rand(3, 1, 1, 64).bfloat16(),
        "sin": torch.rand(3, 1, 1, 64).bfloat16(),
        "index": torch.tensor([17, -1, 40]),
        "k_cache": torch.full((4, 16, 1, 64), 7.0).bfloat16(),
        "ckv_cache": torch.full((4, 16, 1, 512), 7.0).bfloat16(),
        "epsilon": 1e-6,
        "cache_mode": "PA_BNSD",
    }


def test_a_row_without_a_place_is_not_written_and_pairs_are_kept_in_halves() -> None:
    given = latent_row()
    torch.ops.npu.npu_kv_rmsnorm_rope_cache(**given)
    keys = given["k_cache"].view(64, 64)
    written = (keys != 7).any(1).nonzero()[:, 0].tolist()
    assert written == [17, 40]
    even, odd = given["kv"][2, 0, 0, 512:].float().unflatten(0, (-1, 2)).unbind(1)
    cos, sin = (given[name][2, 0, 0].float() for name in ("cos", "sin"))
    want = torch.cat((even * cos[:32] - odd * sin[:32], odd * cos[32:] + even * sin[32:]))
    torch.testing.assert_close(keys[40].float(), want, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("index", "said"),
    [([17, 17, 40], "holds a place twice"), ([17, 64, 40], "outside of 64"), ([-2, 1, 2], "-2")],
)
def test_places_are_of_the_cache_and_each_once(index: list[int], said: str) -> None:
    given = latent_row() | {"index": torch.tensor(index)}
    with pytest.raises(RuleBroken, match=said):
        torch.ops.npu.npu_kv_rmsnorm_rope_cache(**given)


WRITES = {
    "npu_kv_rmsnorm_rope_cache": ("k_cache", "ckv_cache"),
    "npu_scatter_nd_update_": ("input",),
}
"""Arguments of which what is written there is wanted, and nothing that the operator gives."""
OTHERWISE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "zeros": torch.zeros_like,
    "last first": lambda tensor: tensor.flip(
        max(range(tensor.dim()), key=tensor.shape.__getitem__)
    ),
}
"""What a call may be given in place of a tensor: nothing, or its numbers in another order."""


def tensors_of(arguments: dict[str, Any]) -> dict[str, torch.Tensor]:
    """By name; of a list the one that is in it."""
    alone = {n: v[0] if isinstance(v, list) and len(v) == 1 else v for n, v in arguments.items()}
    return {n: v for n, v in alone.items() if isinstance(v, torch.Tensor)}


def result(op: str, arguments: dict[str, Any]) -> list[torch.Tensor]:
    """What a call gives, or has written."""
    found = getattr(torch.ops.npu, op)(**arguments)
    if op in WRITES:
        return [arguments[name] for name in WRITES[op]]
    return [found] if isinstance(found, torch.Tensor) else [t for t in found if t.numel()]


def each_tensor() -> Iterator[Any]:
    for op, arguments in SAMPLES().items():
        for name in tensors_of(arguments):
            for how in OTHERWISE:
                yield pytest.param(op, name, how, id=f"{op}: {name} is {how}")


@pytest.mark.parametrize(("op", "name", "how"), list(each_tensor()))
def test_each_tensor_of_a_call_makes_a_difference(op: str, name: str, how: str) -> None:
    """Else a twin forgives whoever gives a wrong one: nothing would be shown by it."""
    before = result(op, SAMPLES()[op])
    given = SAMPLES()[op]
    wrong = OTHERWISE[how](tensors_of(given)[name])
    given[name] = [wrong] if isinstance(given[name], list) else wrong
    if name == "key" and "value" in given:
        given["value"] = wrong
    try:
        after = result(op, given)
    except (RuleBroken, ValueError):
        return
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
