"""Faults in the step's kernels, as replacements in a copy of their text. Knows no test."""

from __future__ import annotations

from pathlib import Path

KERNELS = Path(__file__).parents[1] / "backends" / "gpu_kernels"
FILES = ("step.py", "step_boxes.py", "step_logits.py")

FAULTS: dict[str, tuple[str, str]] = {
    "the length lacks the pick": ("start + last + 1 - begin", "start + last - begin"),
    "every draft is accepted": ("((draft < 0) | (draft != before))", "(draft < 0)"),
    "the second draft continues its own row": (
        "tl.where(stage == 2, last, row), mask",
        "row, mask",
    ),
    "the last slice is not noticed": (
        "if first + R >= tl.load(header + NUM_LOGITS)",
        "if first + R > tl.load(header + NUM_LOGITS)",
    ),
    "a head that ends the rows is not the last": (
        "is_last = cursor + R >= wanted",
        "is_last = cursor + R > wanted",
    ),
    "a row stands at the limit": ("(position < limit)", "(position <= limit)"),
    "results go to the place before": ("+ PLACES - 1) &", "+ PLACES - 2) &"),
    "who drafts stands where it stood in the step": (
        "tl.store(drafting + place,",
        "tl.store(drafting + b,",
    ),
    "last rows stand where they stood in the step": (
        "tl.store(last_rows + place, last)",
        "tl.store(last_rows + b, last)",
    ),
    "the cursor is not reset": ("tl.where(is_last, 0, cursor + R)", "cursor + R"),
    "tokens behind the pick are kept": ("kept, mask=tail)", "kept, mask=tail & (number == 0))"),
    "drafts stand behind the limit": ("is_missing | behind_limit", "is_missing"),
    "a draft gets the counter before": (
        "tl.where(stage == 0, row - begun + 1, stage)",
        "tl.where(stage == 0, row - begun + 1, stage - 1)",
    ),
    "all rows get the counter of the first": (
        "tl.where(stage == 0, row - begun + 1, stage)",
        "tl.where(stage == 0, 1, stage)",
    ),
    "the draft layer sees rows that were rejected": (
        "tl.where(row <= stop, seen, -1)",
        "seen",
    ),
    "a plan is received from the place before": (
        "(tl.load(turn) & (PLACES - 1))",
        "((tl.load(turn) + PLACES - 1) & (PLACES - 1))",
    ),
    "masks of a slice are those of the first": (
        "plan_mask_rows + number, mask=of_body",
        "plan_mask_rows + at, mask=of_body & (at < num_logits)",
    ),
    "drafts have masks": (
        "plan_mask_rows + number, mask=of_body",
        "plan_mask_rows + number, mask=is_real",
    ),
    "an answer may end one output late": (
        "counter < tl.load(state_min_outputs",
        "counter <= tl.load(state_min_outputs",
    ),
    "a bias is that of the place in the step": (
        "tl.where(is_biased, 2 * seq + is_early",
        "tl.where(is_biased, 2 * owner + is_early",
    ),
    "scored rows have a bias": (
        "state_biased + seq, mask=picks",
        "state_biased + seq, mask=is_real",
    ),
    "a draft that was rejected is counted": (
        "exists & (number <= accepted) & (tl.load(state_counted",
        "exists & (tl.load(state_counted",
    ),
    "a draft sees itself": (
        "(draft < about - length - 1)",
        "(draft < about - length)",
    ),
    "prompts have drafts": (
        "is_counted & ((stage > 0) | (tl.load(header + IS_DECODE) != 0))",
        "is_counted",
    ),
    "outputs are counted for the place in the step": (
        "counts + seq * WIDTH + token",
        "counts + b * WIDTH + token",
    ),
    "padding keeps its slots": ("    tl.store(slots + row, 0, mask=inside)\n", "    pass\n"),
    "page tables begin with the second page": (
        "page = tl.load(pages + number, mask=is_real",
        "page = tl.load(pages + number + 1, mask=is_real",
    ),
}

RESULT_FAULTS: dict[str, tuple[str, str]] = {
    "log-probabilities lie over the ids": (
        "_copy(logprobs, place + height + first",
        "_copy(logprobs, place + first",
    ),
    "scores lie one result further": ("place + height * 2 + first", "place + height * 3 + first"),
    "the likeliest ids lie under their scores": (
        "_copy(top_logprobs, top + height * TOP",
        "_copy(top_logprobs, top",
    ),
}
"""Of results that only a head with scores gives."""


def write_mutants(folder: Path, old: str = "", new: str = "") -> None:
    """A package `mutants` in `folder`: the kernels with `old`, which they say once, replaced."""
    texts = {name: (KERNELS / name).read_text(encoding="utf-8") for name in FILES}
    found = sum(text.count(old) for text in texts.values()) if old else 1
    assert found == 1, f"the kernels say no longer, or more than once: {old}"
    package = folder / "mutants"
    package.mkdir()
    for name, text in texts.items():
        mutant = text.replace(old, new) if old else text
        (package / name).write_text(mutant, encoding="utf-8")
