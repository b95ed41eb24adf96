"""Whether a manifest's parts fit each other. Reads no other file."""

from __future__ import annotations

from pathlib import PurePosixPath

from lostwax.ir.contract.artifact import Manifest, ProgramRef
from lostwax.ir.contract.cache_layout import LAYOUTS
from lostwax.ir.contract.caches import CachePlane
from lostwax.ir.contract.check_views import require
from lostwax.ir.contract.program import HEADS, Bucket
from lostwax.ir.contract.step_layout import LAYOUT

PROGRAMS = "programs"
KERNELS = "kernels"
MAX_PAGES = 1 << 24
"""Of all requests at full length: a thousand million cached tokens at 64 a page."""
MAX_ROWS = 1 << 24
"""Of one step."""
MAX_LAYERS = 4096
ARENA_ALIGN = 8
"""Bytes: so that an arena holds whole elements of every dtype."""


def check_manifest(manifest: Manifest) -> None:
    """Raise Inconsistent, naming the field, where a manifest contradicts itself."""
    _check_model(manifest)
    require(
        manifest.step_layout in ("", LAYOUT),
        "its kernels were compiled for another layout of steps (step_layout); recompile it",
    )
    require(bool(manifest.planes), "planes is empty")
    require(bool(manifest.programs), "programs is empty")
    for plane in manifest.planes:
        _check_plane(plane, manifest)
    names = [plane.name for plane in manifest.planes]
    require(len(set(names)) == len(names), "planes names one plane twice")
    for ref in manifest.programs:
        _check_ref(ref, manifest)
    files = [ref.file for ref in manifest.programs]
    require(len(set(files)) == len(files), "programs names one file twice")
    largest = max(ref.arena_bytes for ref in manifest.programs)
    require(
        manifest.arena_bytes == largest and largest % ARENA_ALIGN == 0,
        f"arena_bytes is {manifest.arena_bytes}, the programs' largest arena has {largest}",
    )
    _check_complete(manifest)
    _check_kernels(manifest)


def _check_complete(manifest: Manifest) -> None:
    """Every step within the limits has a body whatever its lengths, and every row each head."""
    limits, refs = manifest.limits, manifest.programs
    for head in HEADS:
        require(any(r.segment == head for r in refs), f"programs has no head {head!r}")
    reqs, pages = limits.max_reqs, -(-limits.max_context // limits.page_tokens)
    extended = min(limits.max_tokens, reqs * limits.max_context)
    decoded = reqs * min(limits.max_drafts + 1, limits.max_context)
    rows = {"extend": extended, "decode": decoded}
    drafting = any(r.segment == "draft" for r in refs)
    require(
        drafting == bool(limits.max_drafts), "programs and limits.max_drafts disagree about drafts"
    )
    if drafting:
        rows["draft"] = max(extended, decoded)
    for segment, most in rows.items():
        whole = Bucket(most, min(reqs, most), pages)
        taken = any(
            r.segment == segment
            and not r.guard.terms
            and r.bucket.tokens >= whole.tokens
            and r.bucket.reqs >= whole.reqs
            and r.bucket.pages >= whole.pages
            for r in refs
        )
        require(taken, f"no {segment} program takes the largest step that limits allow, {whole}")
    largest = max(r.bucket.tokens for r in refs)
    row = manifest.model.hidden_size * largest
    require(
        row > 0 and manifest.state_bytes in (2 * row, 4 * row),
        f"state_bytes is {manifest.state_bytes}, which holds no {largest} rows of"
        f" {manifest.model.hidden_size} numbers",
    )


def _check_model(manifest: Manifest) -> None:
    limits, model = manifest.limits, manifest.model
    require(limits.vocab_size == model.vocab_size, "limits.vocab_size is not model.vocab_size")
    require(limits.page_tokens == model.page_tokens, "limits.page_tokens is not model.page_tokens")
    ids = [*model.eos_token_ids, *([] if model.bos_token_id is None else [model.bos_token_id])]
    beyond = [i for i in ids if not 0 <= i < model.vocab_size]
    require(not beyond, f"model names token {beyond[:1]}, beyond its vocabulary")
    require(model.num_layers <= MAX_LAYERS, f"model.num_layers is above {MAX_LAYERS}")
    pages = -(-limits.max_context // limits.page_tokens)
    require(limits.max_reqs * pages <= MAX_PAGES, "limits ask for too many pages")
    rows = max(limits.max_tokens, limits.max_reqs * (limits.max_drafts + 1))
    require(rows <= MAX_ROWS, "limits ask for too many rows a step")


def _check_plane(plane: CachePlane, manifest: Manifest) -> None:
    layout = LAYOUTS.get(plane.layout)
    if layout is None:
        require(False, f"plane {plane.name!r} has an unknown layout {plane.layout!r}")
        return
    require(
        bool(plane.row) and layout.fits(plane.row),
        f"plane {plane.name!r} has a row that layout {plane.layout} does not take",
    )
    layers = manifest.model.num_layers + bool(manifest.limits.max_drafts)
    require(plane.layers <= layers, f"plane {plane.name!r} has {plane.layers} layers of {layers}")
    require(
        plane.page_tokens == manifest.limits.page_tokens,
        f"plane {plane.name!r} has pages of {plane.page_tokens} tokens, the limits say"
        f" {manifest.limits.page_tokens}",
    )
    page_bytes = layout.row_bytes(plane.row) * plane.page_tokens
    require(
        plane.page_bytes == page_bytes,
        f"plane {plane.name!r} has pages of {plane.page_bytes} bytes, its layout says {page_bytes}",
    )


def _check_ref(ref: ProgramRef, manifest: Manifest) -> None:
    limits, bucket = manifest.limits, ref.bucket
    path = PurePosixPath(ref.file)
    require(
        path.parent == PurePosixPath(PROGRAMS) and ref.file in manifest.files,
        f"programs names {ref.file!r}, which is no file of {PROGRAMS}/ that files lists",
    )
    rows = max(limits.max_tokens, limits.max_reqs * (limits.max_drafts + 1))
    pages = -(-limits.max_context // limits.page_tokens)
    if ref.segment in HEADS:
        fits = bucket == Bucket(rows=bucket.rows) and 1 <= bucket.rows <= rows
    else:
        fits = (
            1 <= bucket.reqs <= bucket.tokens <= rows
            and bucket.reqs <= limits.max_reqs
            and 1 <= bucket.pages <= pages
            and bucket.rows == 0
        )
    require(fits, f"{ref.file} has a bucket beyond the limits")
    why = ref.guard.refusal()
    require(not why, f"{ref.file}: {why}")
    if ref.guard.selects_all:
        longest = ref.guard.longest(min(bucket.pages * limits.page_tokens, limits.max_context))
        require(
            longest <= manifest.model.index_topk,
            f"{ref.file} selects every position, but its guard admits {longest} of them where"
            f" index_topk is {manifest.model.index_topk}",
        )


def _check_kernels(manifest: Manifest) -> None:
    for kernel in manifest.kernels:
        listed = manifest.files.get(f"{KERNELS}/{kernel.binary}")
        require(
            listed is not None and listed == kernel.digest,
            f"kernels gives {kernel.binary} a digest that files does not",
        )
