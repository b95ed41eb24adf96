"""Faults in the fp8 products' kernels, as replacements in a copy of their text. Knows no test."""

from __future__ import annotations

from pathlib import Path

KERNELS = Path(__file__).parents[1] / "backends" / "gpu_kernels"
FILES = (
    "conversions", "fp8_terms", "scaled_products", "joined_rows", "place_pairs", "grouped_experts",
    "gated_terms",
    "norm_terms", "plain_product", "attention_rows", "absorbed",
)  # fmt: skip
"""In the order in which they import each other."""

FAULTS: dict[str, tuple[str, str, str]] = {
    "the second term of rows is dropped": (
        "fp8_terms",
        "to_fp8(value - high.to(tl.float32), terms",
        "to_fp8(value * 0.0, terms",
    ),
    "the second term of the hidden rows is dropped": (
        "grouped_experts",
        "to_fp8(value - high.to(tl.float32), hidden",
        "to_fp8(value * 0.0, hidden",
    ),
    "a product takes the scale of the block before": (
        "scaled_products",
        "tl.load(of_weight + block)",
        "tl.load(of_weight + tl.maximum(block - 1, 0))",
    ),
    "up takes the scale of the block before": (
        "grouped_experts",
        "tl.load(up_scale + of_weight + k)",
        "tl.load(up_scale + of_weight + tl.maximum(k - 1, 0))",
    ),
    "down takes the scale of the block before": (
        "grouped_experts",
        "tl.load(down_scale + of_weight + k)",
        "tl.load(down_scale + of_weight + tl.maximum(k - 1, 0))",
    ),
    "an expert's last row is lost": (
        "place_pairs",
        "filler = placed + tl.arange(0, BLOCK_ROWS)",
        "filler = placed - 1 + tl.arange(0, BLOCK_ROWS)",
    ),
    "an expert's tiles begin with those of one before": (
        "place_pairs",
        "tl.where(of_bin < expert, each, 0))\n    own =",
        "tl.where(of_bin + 2 < expert, each, 0))\n    own =",
    ),
    "a tile that finds its pairs itself takes those of the one before": (
        "place_pairs",
        "rank[None, :] == wanted[:, None]",
        "rank[None, :] + BLOCK_ROWS == wanted[:, None]",
    ),
    "the shared expert's last row is lost": (
        "place_pairs",
        "tl.where(row < real, row * (TOP_K + 1) + TOP_K, -1)",
        "tl.where(row < real - 1, row * (TOP_K + 1) + TOP_K, -1)",
    ),
    "the shared expert is not added": (
        "place_pairs",
        "total += tl.load(there, mask=column < width, other=0.0)",
        "total += 0.0 * tl.load(there, mask=column < width, other=0.0)",
    ),
    "the shared expert's down is a routed one's": (
        "grouped_experts",
        "first_slot, slots, shared_down, shared_down_scale,",
        "first_slot, slots, down, down_scale,",
    ),
    "the shared expert's up is its gate": (
        "grouped_experts",
        "shared_gate, shared_gate_scale, shared_up,",
        "shared_gate, shared_gate_scale, shared_gate,",
    ),
    "the counter of splits is left": (
        "scaled_products",
        "tl.store(arrived + program, 0)",
        "tl.store(arrived + program, 1)",
    ),
    "the last split is not summed": (
        "scaled_products",
        "tl.static_range(SUMMED)",
        "tl.static_range(SUMMED - 1)",
    ),
    "padding's NaN leak into its rows": (
        "scaled_products",
        "inside = (row < real)[:, None]",
        "inside = (row < num_rows)[:, None]",
    ),
    "an MLP's up is read as its gate": ("gated_terms", "summed(of_row + WIDTH,", "summed(of_row,"),
    "the second plane is not summed": ("joined_rows", "planes += plane", "plane += 0"),
    "up is read as gate": ("joined_rows", "summed(of_row + WIDTH,", "summed(of_row,"),
    "the indexer's key is read one column further": (
        "joined_rows",
        "summed(of_row + Q,",
        "summed(of_row + (Q + 1),",
    ),
    "the latent is cached as it was projected": (
        "attention_rows",
        "y = rms_normed(value, w, eps, WIDTH, 1)",
        "y = value",
    ),
    "the cached part behind the latent turns with itself": (
        "attention_rows",
        "summed(of_row + WIDTH + partner,",
        "summed(of_row + WIDTH + rest,",
    ),
    "cached keys are not rotated": (
        "attention_rows",
        "rounded(rotated(y, scale, 1, WIDTH, LEVELS), 1)",
        "y",
    ),
    "keys turn by cosines for sines": (
        "attention_rows",
        "key_table + (num_rows + row) * KEY_DIM",
        "key_table + row * KEY_DIM",
    ),
    "a query's head is the one before": (
        "attention_rows",
        "base = of_row + head * WIDTH",
        "base = of_row + tl.maximum(head - 1, 0) * WIDTH",
    ),
    "index queries are read in front of their place": (
        "attention_rows",
        "of_row + HEADS * WIDTH, plane, row",
        "of_row + (HEADS - 1) * WIDTH, plane, row",
    ),
    "a head's query is absorbed by its values": (
        "absorbed",
        "(head * OF_HEAD + k[:, None])",
        "(head * OF_HEAD + OF_HEAD - NOPE + k[:, None])",
    ),
    "latents leave by a head's keys": (
        "absorbed",
        "(head * OF_HEAD + (OF_HEAD - VALUE) + value[:, None])",
        "(head * OF_HEAD + value[:, None])",
    ),
    "the second term of values made behind a kernel's sums is dropped": (
        "fp8_terms",
        "to_fp8(spread - high.to(tl.float32), kind",
        "to_fp8(spread * 0.0, kind",
    ),
    "a head's scale is that of the row's first": (
        "absorbed",
        "row * scale_row + head * scale_head",
        "row * scale_row",
    ),
    "the last columns of the latent are not read": (
        "absorbed",
        "tl.arange(0, BLOCK_LATENT)\n    of_weight",
        "tl.arange(0, BLOCK_LATENT) // 2\n    of_weight",
    ),
    "the normed rows' second term lies a row further": (
        "norm_terms",
        "tl.cast(num_rows, tl.int64) * WIDTH",
        "tl.cast(num_rows + 1, tl.int64) * WIDTH",
    ),
    "the scales of normed rows lie as those of one block": (
        "norm_terms",
        "scales + row * tl.cdiv(WIDTH, BLOCK) + group",
        "scales + row + group",
    ),
    "the residual is normed without what is added": (
        "norm_terms",
        "y = rms_normed(total, w",
        "y = rms_normed(a.to(tl.float32), w",
    ),
    "the second term of a query's row lies where the first does": (
        "attention_rows",
        "target + tl.cast(num_rows, tl.int64) * out_stride, low",
        "target, low",
    ),
    "the heads' counter is left": (
        "plain_product",
        "tl.store(arrived + block, 0)",
        "tl.store(arrived + block, 1)",
    ),
    "the last split of the heads is not summed": (
        "plain_product",
        "tl.static_range(SPLITS)",
        "tl.static_range(SPLITS - 1)",
    ),
    "the heads' rows are those of the first tile's": (
        "plain_product",
        "row[:, None] * x_stride",
        "(row[:, None] * 0) * x_stride",
    ),
}


def write_mutants(folder: Path, file: str = "", old: str = "", new: str = "") -> None:
    """Copies of the kernels in `folder`, with `old`, which `file` says once, replaced."""
    for name in FILES:
        text = (KERNELS / f"{name}.py").read_text(encoding="utf-8")
        if name == file:
            assert text.count(old) == 1, f"{file} says no longer, or more than once: {old}"
            text = text.replace(old, new)
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
