"""Faults in kernels that AMD's GPUs take, as replacements in a copy. Knows no test."""

from __future__ import annotations

from pathlib import Path

KERNELS = Path(__file__).parents[1] / "backends" / "gpu_kernels"
FILES = ("rounding", "fp8_loads", "sparse_attention", "index_logits", "topk")
"""In the order in which they import each other."""

FAULTS: dict[str, tuple[str, str, str]] = {
    "the scales of latents are lost": (
        "sparse_attention",
        "* scale[:, :, None]",
        "* (scale[:, :, None] * 0.0 + 1.0)",
    ),
    "the scale of keys is lost": (
        "index_logits",
        "factor *= tl.load(scales + scale_at // 4, mask=is_read, other=0.0)",
        "factor *= 1.0",
    ),
    "codes of one encoding are read as the other's": (
        "fp8_loads",
        "fp8_wide(tl.load(data + at, mask=inside, other=0), 1)",
        "fp8_wide(tl.load(data + at, mask=inside, other=0), 0)",
    ),
    "half of the rope part is lost": (
        "sparse_attention",
        "in_rope = live[:, None] & (rope < ROPE)[None, :]",
        "in_rope = live[:, None] & (rope < ROPE // 2)[None, :]",
    ),
    "tokens of a page lie a page apart": (
        "sparse_attention",
        "(position % PAGE) * token_stride",
        "(position % PAGE) * (page_stride // PAGE + 16)",
    ),
    "of equal logits the last are chosen": (
        "topk",
        "(is_equal & (rank <= room))",
        "(is_equal & (rank > tl.sum(is_equal.to(tl.int32), axis=0) - room))",
    ),
    "equal logits of the parts before are forgotten": (
        "topk",
        "room = tl.maximum(left - equal_before, 0)",
        "room = left",
    ),
    "NaN is the largest": (
        "topk",
        'return (x > float("-inf")) & (index < LENGTH)',
        'return (x != float("-inf")) & (index < LENGTH)',
    ),
}
"""Each: the file, its text, and what stands there instead."""

SHOWN_BY = {
    "the scales of latents are lost": "gfx942 attend fp8_656 f32",
    "the scale of keys is lost": "gfx950 logits index_row",
    "codes of one encoding are read as the other's": "gfx942 attend fp8_576 f32",
    "half of the rope part is lost": "gfx950 attend fp8_656 f32",
    "tokens of a page lie a page apart": "gfx942 attend fp8_656 f32",
    "of equal logits the last are chosen": "gfx942 topk 40 of 1",
    "equal logits of the parts before are forgotten": "gfx942 topk 40 of 2",
    "NaN is the largest": "gfx950 topk 40 of 1",
}
"""How the name of a case that shows it begins."""


def write_mutants(folder: Path, *fault: str) -> None:
    """Copies of all files, of which one has the fault: its file, text and replacement, if given."""
    for name in FILES:
        text = (KERNELS / f"{name}.py").read_text()
        if fault and fault[0] == name:
            _, before, after = fault
            assert text.count(before) == 1, f"{before!r} stands {text.count(before)} times"
            text = text.replace(before, after)
        (folder / f"{name}.py").write_text(text)
