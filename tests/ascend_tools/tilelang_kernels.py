"""Two kernels in TileLang's dialect for Ascend (A2 and A3): index scores, and sparse attention.

Run by the emulated interpreter of `environments.py tilelang`, with a folder: writes each kernel's
AscendC text there and prints its path. What would come next is CANN's own compiler (`bisheng`),
which is not published: the text is as far as published packages go.

The cube units multiply, the two vector units of a core do the rest; what one hands to the other
goes through memory, a piece a core. Passes of TileLang put both apart, order them and place
buffers.
"""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

# What launches kernels, which it compiles as it is imported: nothing here launches one.
ADAPTER = "tilelang.jit.adapter.cython"
sys.modules[ADAPTER] = ModuleType(ADAPTER)
sys.modules[ADAPTER].CythonKernelAdapter = object

tilelang: Any = import_module("tilelang")
T: Any = import_module("tilelang.language")

PASSES = {
    tilelang.PassConfigKey.TL_ASCEND_AUTO_CV_COMBINE: True,
    tilelang.PassConfigKey.TL_ASCEND_AUTO_CV_SYNC: True,
    tilelang.PassConfigKey.TL_ASCEND_AUTO_SYNC: True,
    tilelang.PassConfigKey.TL_ASCEND_MEMORY_PLANNING: True,
}
CORES = 20
LOWEST = -(2.0**30)


def index_scores(rows: int, heads: int, width: int, pages: int, block: int) -> Any:
    """Scores [rows, pages * block] of one request: sum over heads of w relu(q k)."""
    half = block // 2
    tiles = rows * pages

    @T.prim_func
    def scores(
        query: T.Tensor([rows, heads, width], "bfloat16"),
        weights: T.Tensor([rows, heads], "float"),
        keys: T.Tensor([pages, block, width], "bfloat16"),
        table: T.Tensor([pages], "int32"),
        workspace: T.Tensor([CORES, heads, block], "float"),
        out: T.Tensor([rows, pages * block], "float"),
    ):
        with T.Kernel(CORES, is_npu=True) as (core, lane):
            q_l1 = T.alloc_L1([heads, width], "bfloat16")
            k_l1 = T.alloc_L1([block, width], "bfloat16")
            sums = T.alloc_L0C([heads, block], "float")
            part = T.alloc_ub([heads, half], "float")
            weight = T.alloc_ub([heads], "float")
            total = T.alloc_ub([half], "float")
            for turn in T.serial(T.ceildiv(tiles, CORES)):
                tile = turn * CORES + core
                if tile < tiles:
                    row = tile // pages
                    page = tile % pages
                    T.copy(query[row, 0:heads, 0:width], q_l1)
                    T.copy(keys[table[page], 0:block, 0:width], k_l1)
                    T.gemm_v0(q_l1, k_l1, sums, transpose_B=True, init=True)
                    T.copy(sums, workspace[core, 0:heads, 0:block], enable_relu=True)
                    T.copy(workspace[core, 0:heads, lane * half : (lane + 1) * half], part)
                    T.copy(weights[row, 0:heads], weight)
                    for head in T.serial(heads):
                        T.tile.mul(part[head, :], part[head, :], weight[head])
                    T.reduce_sum(part, total, dim=0)
                    first = page * block + lane * half
                    T.copy(total, out[row, first : first + half])

    return scores


def sparse_mla(
    rows: int, heads: int, rank: int, rope: int, chosen: int, pages: int, block: int, scale: float
) -> Any:
    """Attention of each row, its query in the latent space, over its selection: -1 is nothing.

    A core takes 16 heads of a row at a time: more do not fit the vector units' memory.
    """
    group, tile = 16, 64
    half, gathered = group // 2, tile // 2
    works = rows * (heads // group)

    @T.prim_func
    def attend(
        query: T.Tensor([rows, heads, rank], "bfloat16"),
        query_rope: T.Tensor([rows, heads, rope], "bfloat16"),
        keys: T.Tensor([pages, block, rank], "bfloat16"),
        rope_keys: T.Tensor([pages, block, rope], "bfloat16"),
        selection: T.Tensor([rows, chosen], "int32"),
        table: T.Tensor([rows, pages], "int32"),
        workspace_keys: T.Tensor([CORES, tile, rank], "bfloat16"),
        workspace_rope: T.Tensor([CORES, tile, rope], "bfloat16"),
        workspace_scores: T.Tensor([CORES, group, tile], "float"),
        workspace_shares: T.Tensor([CORES, group, tile], "bfloat16"),
        workspace_mixed: T.Tensor([CORES, group, rank], "float"),
        out: T.Tensor([rows, heads, rank], "bfloat16"),
    ):
        with T.Kernel(CORES, is_npu=True) as (core, lane):
            q_l1 = T.alloc_L1([group, rank], "bfloat16")
            q_rope_l1 = T.alloc_L1([group, rope], "bfloat16")
            k_l1 = T.alloc_L1([tile, rank], "bfloat16")
            k_rope_l1 = T.alloc_L1([tile, rope], "bfloat16")
            share_l1 = T.alloc_L1([group, tile], "bfloat16")
            score_l0 = T.alloc_L0C([group, tile], "float")
            mixed_l0 = T.alloc_L0C([group, rank], "float")
            place = T.alloc_ub([tile], "int32")
            place_wide = T.alloc_ub([tile], "float")
            is_chosen = T.alloc_ub([tile // 8], "uint8")
            key = T.alloc_ub([gathered, rank], "bfloat16")
            rope_key = T.alloc_ub([gathered, rope], "bfloat16")
            score = T.alloc_ub([half, tile], "float")
            kept = T.alloc_ub([half, tile], "float")
            share = T.alloc_ub([half, tile], "bfloat16")
            top = T.alloc_ub([half, 1], "float")
            top_before = T.alloc_ub([half, 1], "float")
            tops = T.alloc_ub([half, tile], "float")
            mass = T.alloc_ub([half, 1], "float")
            mass_here = T.alloc_ub([half, 1], "float")
            wide = T.alloc_ub([half, rank], "float")
            total = T.alloc_ub([half, rank], "float")
            step = T.alloc_ub([half, rank], "float")
            result = T.alloc_ub([half, rank], "bfloat16")
            for turn in T.serial(T.ceildiv(works, CORES)):
                work = turn * CORES + core
                if work < works:
                    row = work // (heads // group)
                    head = work % (heads // group) * group
                    own = head + lane * half
                    T.copy(query[row, head : head + group, 0:rank], q_l1)
                    T.copy(query_rope[row, head : head + group, 0:rope], q_rope_l1)
                    T.tile.fill(total, 0.0)
                    T.tile.fill(mass, 0.0)
                    T.tile.fill(top, LOWEST)
                    for piece in T.serial(chosen // tile):
                        T.copy(selection[row, piece * tile : (piece + 1) * tile], place)
                        T.copy(place, place_wide)
                        T.tile.compare(is_chosen, place_wide, T.float32(0), "GE")
                        for i in T.serial(gathered):
                            at = T.max(place[lane * gathered + i], 0)
                            page = table[row, at // block]
                            T.copy(keys[page, at % block, 0:rank], key[i, :])
                            T.copy(rope_keys[page, at % block, 0:rope], rope_key[i, :])
                        first = lane * gathered
                        T.copy(key, workspace_keys[core, first : first + gathered, 0:rank])
                        T.copy(rope_key, workspace_rope[core, first : first + gathered, 0:rope])
                        T.copy(workspace_keys[core, 0:tile, 0:rank], k_l1)
                        T.copy(workspace_rope[core, 0:tile, 0:rope], k_rope_l1)
                        T.gemm_v0(q_l1, k_l1, score_l0, transpose_B=True, init=True)
                        T.gemm_v0(q_rope_l1, k_rope_l1, score_l0, transpose_B=True)
                        T.copy(score_l0, workspace_scores[core, 0:group, 0:tile])
                        T.copy(
                            workspace_scores[core, lane * half : (lane + 1) * half, 0:tile], score
                        )
                        T.tile.mul(score, score, scale)
                        for i in T.serial(half):
                            T.tile.select(
                                kept[i, :], is_chosen, score[i, :], LOWEST,
                                "VSEL_TENSOR_SCALAR_MODE",
                            )  # fmt: skip
                        T.copy(top, top_before)
                        T.reduce_max(kept, top, dim=-1)
                        T.tile.max(top, top, top_before)
                        T.tile.sub(top_before, top_before, top)
                        T.tile.exp(top_before, top_before)
                        T.tile.broadcast(tops, top)
                        T.tile.sub(kept, kept, tops)
                        T.tile.exp(kept, kept)
                        T.reduce_sum(kept, mass_here, dim=-1)
                        T.tile.mul(mass, mass, top_before)
                        T.tile.add(mass, mass, mass_here)
                        T.copy(kept, share)
                        T.copy(
                            share, workspace_shares[core, lane * half : (lane + 1) * half, 0:tile]
                        )
                        T.copy(workspace_shares[core, 0:group, 0:tile], share_l1)
                        T.gemm_v0(share_l1, k_l1, mixed_l0, init=True)
                        T.copy(mixed_l0, workspace_mixed[core, 0:group, 0:rank])
                        T.copy(workspace_mixed[core, lane * half : (lane + 1) * half, 0:rank], step)
                        T.tile.broadcast(wide, top_before)
                        T.tile.mul(total, total, wide)
                        T.tile.add(total, total, step)
                    T.tile.broadcast(wide, mass)
                    T.tile.div(total, total, wide)
                    T.copy(total, result)
                    T.copy(result, out[row, own : own + half, 0:rank])

    return attend


KERNELS = {
    "index_scores": lambda: index_scores(4, 64, 128, 8, 64),
    "sparse_mla": lambda: sparse_mla(4, 128, 512, 64, 2048, 64, 64, 0.135),
}


def text_of(kernel: Any, platform: str) -> str:
    """AscendC of the kernel."""
    with tilelang.tvm.transform.PassContext(opt_level=3, config=PASSES):
        return str(tilelang.lower(kernel, target="ascendc", platform=platform).kernel_source)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name, make in KERNELS.items():
        for platform in ("A2", "A3"):
            file = folder / f"{name}-{platform}.cpp"
            file.write_text(text_of(make(), platform))
            print(file)
