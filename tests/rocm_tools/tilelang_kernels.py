# type: ignore  # TileLang is a language of its own in Python's syntax
"""The two DSA kernels in TileLang, at V3.2's sizes: attention to a selection, and index logits.

Only ever compiled (`test_tilelang.py`), for gfx942 and gfx950; never run, never part of an
artifact. In bf16: TileLang's fp8 on AMD's GPUs needs HIP's own header of fp8, which a machine
without ROCm lacks. Imports TileLang, so runs in its environment alone.
"""

# TileLang reads annotations as types while it builds a kernel: no postponed evaluation here.

import tilelang.language as T

HEADS, LATENT, ROPE, TOP = 128, 512, 64, 2048
INDEX_HEADS, INDEX_DIM = 64, 128
ROWS, SLOTS, COLUMNS = 64, 1 << 16, 8192
LOG2_E = 1.44269504


def sparse_mla(block_heads: int = 16, block_keys: int = 32, threads: int = 128):  # noqa: C901
    """softmax(q k^T scale) k[:512] of absorbed queries over selected rows of a bf16 cache.

    A program is a row and 16 heads; slots are places of the cache, -1 for none.
    """
    scale = (128 + ROPE) ** -0.5 * LOG2_E

    @T.prim_func
    def attend_selected(
        query: T.Tensor((ROWS, HEADS, LATENT), "bfloat16"),
        query_rope: T.Tensor((ROWS, HEADS, ROPE), "bfloat16"),
        cache: T.Tensor((SLOTS, LATENT + ROPE), "bfloat16"),
        slots: T.Tensor((ROWS, TOP), "int32"),
        out: T.Tensor((ROWS, HEADS, LATENT), "bfloat16"),
    ):
        with T.Kernel(HEADS // block_heads, ROWS, threads=threads) as (block, row):
            q = T.alloc_shared((block_heads, LATENT), "bfloat16")
            r = T.alloc_shared((block_heads, ROPE), "bfloat16")
            latent = T.alloc_shared((block_keys, LATENT), "bfloat16")
            rope = T.alloc_shared((block_keys, ROPE), "bfloat16")
            score = T.alloc_fragment((block_heads, block_keys), "float32")
            weight = T.alloc_shared((block_heads, block_keys), "bfloat16")
            total = T.alloc_fragment((block_heads, LATENT), "float32")
            high = T.alloc_fragment((block_heads,), "float32")
            before = T.alloc_fragment((block_heads,), "float32")
            decay = T.alloc_fragment((block_heads,), "float32")
            added = T.alloc_fragment((block_heads,), "float32")
            sums = T.alloc_fragment((block_heads,), "float32")
            first = block * block_heads
            T.copy(query[row, first : first + block_heads, :], q)
            T.copy(query_rope[row, first : first + block_heads, :], r)
            T.fill(total, 0)
            T.fill(sums, 0)
            T.fill(high, -(2.0**30))  # finite: a row may select nothing
            for start in T.serial(TOP // block_keys):
                for i, d in T.Parallel(block_keys, LATENT):
                    latent[i, d] = T.if_then_else(
                        slots[row, start * block_keys + i] >= 0,
                        cache[slots[row, start * block_keys + i], d],
                        T.cast(0, "bfloat16"),
                    )
                for i, d in T.Parallel(block_keys, ROPE):
                    rope[i, d] = T.if_then_else(
                        slots[row, start * block_keys + i] >= 0,
                        cache[slots[row, start * block_keys + i], LATENT + d],
                        T.cast(0, "bfloat16"),
                    )
                for i, j in T.Parallel(block_heads, block_keys):
                    score[i, j] = T.if_then_else(
                        slots[row, start * block_keys + j] >= 0, 0.0, -T.infinity("float32")
                    )
                T.gemm(q, latent, score, transpose_B=True)
                T.gemm(r, rope, score, transpose_B=True)
                T.copy(high, before)
                T.reduce_max(score, high, dim=1, clear=False)
                for i in T.Parallel(block_heads):
                    decay[i] = T.exp2((before[i] - high[i]) * scale)
                for i, j in T.Parallel(block_heads, block_keys):
                    score[i, j] = T.exp2((score[i, j] - high[i]) * scale)
                T.reduce_sum(score, added, dim=1)
                for i in T.Parallel(block_heads):
                    sums[i] = sums[i] * decay[i] + added[i]
                T.copy(score, weight)
                for i, d in T.Parallel(block_heads, LATENT):
                    total[i, d] *= decay[i]
                T.gemm(weight, latent, total)
            for i, d in T.Parallel(block_heads, LATENT):
                total[i, d] = T.if_then_else(sums[i] > 0, total[i, d] / sums[i], 0.0)
            T.copy(total, out[row, first : first + block_heads, :])

    return attend_selected


def index_logits(block_keys: int = 128, threads: int = 256):
    """sum_h weights[t, h] relu(q[t, h] . k[s]) of one row and 128 keys, -inf behind its position.

    Keys lie behind one another, as a prompt's do once they are gathered.
    """

    @T.prim_func
    def score_keys(
        query: T.Tensor((ROWS, INDEX_HEADS, INDEX_DIM), "bfloat16"),
        keys: T.Tensor((COLUMNS, INDEX_DIM), "bfloat16"),
        weights: T.Tensor((ROWS, INDEX_HEADS), "float32"),
        positions: T.Tensor((ROWS,), "int32"),
        logits: T.Tensor((ROWS, COLUMNS), "float32"),
    ):
        with T.Kernel(COLUMNS // block_keys, ROWS, threads=threads) as (block, row):
            q = T.alloc_shared((INDEX_HEADS, INDEX_DIM), "bfloat16")
            k = T.alloc_shared((block_keys, INDEX_DIM), "bfloat16")
            score = T.alloc_fragment((block_keys, INDEX_HEADS), "float32")
            logit = T.alloc_fragment((block_keys,), "float32")
            first = block * block_keys
            T.copy(query[row, :, :], q)
            T.copy(keys[first : first + block_keys, :], k)
            T.clear(score)
            T.gemm(k, q, score, transpose_B=True)
            for i, h in T.Parallel(block_keys, INDEX_HEADS):
                score[i, h] = T.max(score[i, h], 0) * weights[row, h]
            T.reduce_sum(score, logit, dim=1)
            for i in T.Parallel(block_keys):
                logits[row, first + i] = T.if_then_else(
                    first + i <= positions[row], logit[i], -T.infinity("float32")
                )

    return score_keys


KERNELS = {"sparse_mla": sparse_mla, "index_logits": index_logits}
