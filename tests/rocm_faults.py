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
    "codes of e4m3fn are read as e4m3fnuz": (
        "fp8_loads",
        "return values.to(tl.float32) if WIDE else values",
        "return fp8_wide(tl.load(data + at, mask=inside, other=0), 1)",
    ),
    "codes of e4m3fnuz are read as e4m3fn": (
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

_BOTH = ("gfx942", "gfx950")
SHOWN_BY: dict[str, tuple[str, tuple[str, ...]]] = {
    "the scales of latents are lost": ("attend fp8_656 f32", _BOTH),
    "the scale of keys is lost": ("logits index_row", _BOTH),
    "codes of e4m3fn are read as e4m3fnuz": ("attend fp8_576 f32", ("gfx950",)),
    "codes of e4m3fnuz are read as e4m3fn": ("attend fp8_576 f32", ("gfx942",)),
    "half of the rope part is lost": ("attend fp8_656 f32", _BOTH),
    "tokens of a page lie a page apart": ("attend fp8_656 f32", _BOTH),
    "of equal logits the last are chosen": ("topk 40 of 1", _BOTH),
    "equal logits of the parts before are forgotten": ("topk 40 of 2", _BOTH),
    "NaN is the largest": ("topk 40 of 1", _BOTH),
}
"""The case that names its op, and the architectures on which it is one: each has an encoding."""
EACH = tuple((fault, arch) for fault, (_, archs) in SHOWN_BY.items() for arch in archs)


def write_mutants(folder: Path, *fault: str) -> None:
    """Copies of all files, of which one has the fault: its file, text and replacement, if given."""
    for name in FILES:
        text = (KERNELS / f"{name}.py").read_text()
        if fault and fault[0] == name:
            _, before, after = fault
            assert text.count(before) == 1, f"{before!r} stands {text.count(before)} times"
            text = text.replace(before, after)
        (folder / f"{name}.py").write_text(text)
