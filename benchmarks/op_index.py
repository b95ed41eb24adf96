"""The indexer's logits beside DeepGEMM's, and the selection beside torch's top-k."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from fp8_cases import draw
from gpu_cases import reference as gpu_reference
from gpu_cases import topk_case
from op_grid import PAGE, TOP_K, Format, OpCase, PlannedOp
from op_memory import Given, Tensors
from op_trial import Peer, Peers, Trial, count_sets, step_inputs

HEADS, WIDTH = 64, 128
ROW = WIDTH + 4  # bytes of a cached fp8 key with its scale
BOUND = 5e-4
"""Of fp8's logits, relative. fp8 products are exact, their sums on Hopper are no f32: what is added
at once (32 products and the sum so far) is cut off 13 bits below the largest of them. Counted out
for these numbers that is 2e-4 to 3e-4, as DeepGEMM's are, too; one bit less would be 5e-4 to 6e-4,
a product rounded to bf16 1.8e-3."""
BF16_BOUND = 1e-6
"""Of bf16's: exact products, f32 sums; 1.4e-7 to 1.6e-7 were found."""
FREE = 10
"""Times the bound that a chosen logit may lie below the k-th, in the logits' root mean square: two
logits, each at most 5 times the bound off (counted out for fp8: 1.8e-3 of 4,096)."""
KERNEL = "sm90_index_logits"
SAMPLED = 16
MOST_SETS = 300


def _fill_pool(pages: int, form: Format) -> torch.Tensor:
    """Random keys: u8 [pages, 64 * 132], of a page all keys and then their scales, or bf16
    [pages, 64, 128]."""
    if form == "bf16":
        plain = torch.empty(pages, PAGE, WIDTH, dtype=torch.bfloat16, device="cuda")
        for start in range(0, pages, 1 << 14):
            plain[start : start + (1 << 14)].normal_()
        return plain
    pool = torch.empty(pages, PAGE * ROW, dtype=torch.uint8, device="cuda")
    for start in range(0, pages, 1 << 14):
        part = pool[start : start + (1 << 14)]
        keys = draw("keys", (part.shape[0], PAGE * WIDTH), "f8E4M3FN")
        part[:, : PAGE * WIDTH] = keys.view(torch.uint8)
        scales = torch.rand(part.shape[0], PAGE, device="cuda") * 0.01 + 1e-3
        part[:, PAGE * WIDTH :] = scales.view(torch.uint8)
    return pool


class Index:
    """Keeps a pool of pages that all cases of one size read."""

    def __init__(self) -> None:
        self._pool = torch.empty(0, device="cuda")

    def open(self, op: PlannedOp, peers: Peers) -> Trial:
        """Requests over pages in order; the next set reads the pages behind."""
        case = op.case
        device = torch.device("cuda")
        pages = case.reqs * -(-case.context // PAGE)
        fp8 = case.form == "fp8"
        count = count_sets(pages * PAGE * (ROW if fp8 else 2 * WIDTH), MOST_SETS)
        if self._pool.shape[0] != 1 + count * pages:
            self._pool = torch.empty(0, device="cuda")
            self._pool = _fill_pool(1 + count * pages, case.form)
        torch.manual_seed(case.rows)
        shared = step_inputs(case, device)
        shared["q"] = draw("q", (case.rows, HEADS, WIDTH), "f8E4M3FN" if fp8 else "bf16")
        if fp8:
            exponents = torch.randint(-8, -4, (case.rows, HEADS, 1), device=device)
            shared["q:scale"] = torch.exp2(exponents.float())
        shared["weights"] = torch.randn(case.rows, HEADS, device=device)
        shared["cache_in"] = self._pool
        sets = [
            Given(shared | {"page_table": shared["page_table"] + i * pages}) for i in range(count)
        ]
        scale = float(op.attributes["dsa.index_logits.scale"])
        rows = _sampled(case)
        with_topk = case.op == "index_topk"
        return Trial(
            sets=sets,
            want=partial(_want, sets[0].values, rows, scale, with_topk),
            bound=(FREE if with_topk else 1) * (BOUND if fp8 else BF16_BOUND),
            peer=_peer(peers, op, sets, scale, rows) if fp8 else None,
            found=partial(_found, sets[0].values, rows, scale),
        )


def _sampled(case: OpCase) -> list[int]:
    return sorted({i * (case.rows - 1) // max(SAMPLED - 1, 1) for i in range(SAMPLED)})


def _keys(given: Tensors, row: int) -> torch.Tensor:
    """f64 [visible, 128] of a row's request."""
    request = int((given["q_starts"][1:] <= row).sum())
    seen = int(given["positions"][row]) + 1
    pages = given["cache_in"][given["page_table"][request].long()]
    if pages.dtype == torch.bfloat16:
        return pages.reshape(-1, WIDTH)[:seen].double()
    keys = pages[:, : PAGE * WIDTH].reshape(-1, WIDTH)[:seen].contiguous()
    scales = pages[:, PAGE * WIDTH :].contiguous().view(torch.float32).flatten()[:seen]
    return keys.view(torch.float8_e4m3fn).double() * scales.double()[:, None]


def _logits(given: Tensors, row: int, scale: float) -> torch.Tensor:
    """f64 [visible]."""
    query = given["q"][row].double()
    if "q:scale" in given:
        query *= given["q:scale"][row].double()
    products = (query @ _keys(given, row).T).relu()
    return scale * (given["weights"][row].double() @ products)


def _want(given: Tensors, rows: Sequence[int], scale: float, with_topk: bool) -> Tensors:
    if with_topk:
        ones = torch.ones(len(rows), dtype=torch.float64, device="cuda")
        return {"chosen": ones, "peer": ones}
    return {"logits": torch.cat([_logits(given, row, scale) for row in rows])}


def _found(given: Tensors, rows: Sequence[int], scale: float, outputs: Tensors) -> Tensors:
    """What rows see of their logits, or how far what they chose lies below the best.
    AssertionError where what a row does not see is not -inf."""
    out = outputs["out.0"]
    if out.dtype == torch.int32:
        return {"chosen": _judged(given, rows, scale, out)}
    seen = {row: int(given["positions"][row]) + 1 for row in rows}
    if not all((out[row][count:] == -torch.inf).all() for row, count in seen.items()):
        raise AssertionError("what a row does not see has a logit")
    return {"logits": torch.cat([out[row][:count] for row, count in seen.items()])}


def _judged(
    given: Tensors, rows: Sequence[int], scale: float, chosen: torch.Tensor
) -> torch.Tensor:
    """f64 [rows]: 1 and each row's shortfall, so that `error_of` with ones is their mean square's
    root."""
    each = [shortfall(_logits(given, row, scale), chosen[row]) for row in rows]
    return 1 + torch.tensor(each, dtype=torch.float64, device=chosen.device)


def shortfall(logits: torch.Tensor, chosen: torch.Tensor) -> float:
    """How far the least of a selection lies below the k-th largest logit, in their root mean
    square.

    `logits` f64 [visible] are exact, `chosen` [slots] are positions, -1 for none: which of those
    that differ by rounding are chosen is free, so values are compared. Infinite where positions are
    too few, not seen or not distinct.
    """
    taken = chosen[chosen >= 0].long()
    count = min(chosen.numel(), TOP_K, logits.numel())
    if taken.numel() != count or taken.unique().numel() != count or int(taken.max()) >= len(logits):
        return float("inf")
    best = logits.topk(count).values[-1]
    return float((best - logits[taken].min()).clamp(min=0) / logits.square().mean().sqrt())


def _peer(
    peers: Peers, op: PlannedOp, sets: Sequence[Given], scale: float, rows: Sequence[int]
) -> Peer | None:
    """Ours is timed without what lists the step's tiles once, as the peer is without its plan."""
    case = op.case
    deep_gemm = peers.get("deep_gemm")
    if deep_gemm is None:
        return None
    call = _prompt_call if case.segment == "extend" else _paged_call
    logits = [call(deep_gemm, given.values, scale, case) for given in sets]
    if case.op != "index_topk":

        def found() -> Tensors:
            out, positions = logits[0](), sets[0].values["positions"]
            return {"logits": torch.cat([out[r][: int(positions[r]) + 1] for r in rows])}

        core = "" if "smxx_index_logits" in op.lowerings else KERNEL
        return Peer("DeepGEMM", logits, found, core, around=logits)

    def both(call: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        return lambda: call().topk(TOP_K, sorted=False).indices

    calls = [both(call) for call in logits]
    return Peer(
        "DeepGEMM, then torch.topk",
        calls,
        lambda: {"peer": _judged(sets[0].values, rows, scale, calls[0]())},
    )


def _weights(given: Tensors, scale: float) -> torch.Tensor:
    return (given["weights"] * given["q:scale"][..., 0] * scale).contiguous()


def _paged_call(
    peer: Any, given: Tensors, scale: float, case: OpCase
) -> Callable[[], torch.Tensor]:
    lengths, block_table = given["kv_lens"], given["page_table"]
    pool = given["cache_in"].view(-1, PAGE, 1, ROW)
    query, weights = given["q"].view(case.reqs, -1, HEADS, WIDTH), _weights(given, scale)
    if "2d" not in _LENGTHS:
        _LENGTHS["2d"] = _takes_matrix(peer, lengths)
    if _LENGTHS["2d"]:
        lengths = given["positions"].view(case.reqs, -1) + 1
    plan = peer.get_paged_mqa_logits_metadata(lengths, PAGE, peer.get_num_sms())

    def run() -> torch.Tensor:
        return peer.fp8_paged_mqa_logits(
            query, pool, weights, lengths, block_table, plan, case.context, clean_logits=False
        )

    return run


_LENGTHS: dict[str, bool] = {}


def _takes_matrix(peer: Any, lengths: torch.Tensor) -> bool:
    """Whether lengths are [requests, rows of each]: versions differ."""
    try:
        peer.get_paged_mqa_logits_metadata(lengths[:, None], PAGE, peer.get_num_sms())
    except (RuntimeError, TypeError, ValueError):
        return False
    return True


def _prompt_call(
    peer: Any, given: Tensors, scale: float, case: OpCase
) -> Callable[[], torch.Tensor]:
    """Keys lie together for the peer, which ours gathers by pages."""
    pages = given["cache_in"][given["page_table"][0].long()]
    keys = pages[:, : PAGE * WIDTH].reshape(-1, WIDTH)[: case.context].contiguous()
    scales = pages[:, PAGE * WIDTH :].contiguous().view(torch.float32).flatten()[: case.context]
    rows = keys.view(torch.float8_e4m3fn), scales.contiguous()
    query, weights = given["q"], _weights(given, scale)
    end = given["positions"] + 1
    begin = torch.zeros_like(end)
    clean = case.op == "index_topk"  # what lies behind a row's end is then less than any logit
    return lambda: peer.fp8_mqa_logits(query, rows, weights, begin, end, clean_logits=clean)


class Topk:
    """Random scores, or ones that lie close together."""

    def open(self, op: PlannedOp, peers: Peers) -> Trial:
        """The peer is torch's: no other exact one is at hand."""
        case = op.case
        device = torch.device("cuda")
        torch.manual_seed(case.rows)
        shared = step_inputs(case, device)
        sets: list[Given] = []
        for _ in range(count_sets(4 * case.rows * case.context, 64)):
            scores = torch.randn(case.rows, case.context, device=device)
            if case.scores == "narrow":
                scores = 10 + 0.05 * scores
            sets.append(Given(shared | {"logits": scores}))

        def want() -> Tensors:
            logits = sets[0].values["logits"]
            given = topk_case(case.rows, case.context)
            best = logits.topk(TOP_K).values
            return {"out.0": gpu_reference(given, {"logits": logits})["op.out"], "peer": best}

        calls = [partial(torch.topk, each.values["logits"], TOP_K) for each in sets]
        peer = Peer("torch.topk", calls, lambda: {"peer": calls[0]().values})
        return Trial(sets=sets, want=want, bound=0.0, peer=peer)
