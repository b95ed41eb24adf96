"""Which rows of a step may wait for masks. Knows no mask and no state."""

from __future__ import annotations

from lostwax.ir.contract.step_plan import StepPlan


def refusal_of_masked(plan: StepPlan, most: int) -> str:
    """Why the plan's masked rows cannot wait for masks, empty where they can; `most` may at once.

    They are some that pick, in order, under a head that looks at masks.
    """
    if not plan.masked:
        return ""
    if plan.head == "pick":
        return "rows wait for masks, and the head 'pick' looks at none; ask for 'sample' or 'score'"
    end = 0
    for first, count in plan.masked:
        if first < end or count < 1:
            return "the rows that wait for masks are not in order, or one waits twice"
        end = first + count
    if end > plan.num_logits:
        return f"logit row {end - 1} waits for a mask; the step has {plan.num_logits}"
    scored = {first + i for first, count in plan.scored for i in range(count)}
    if any(first + i in scored for first, count in plan.masked for i in range(count)):
        return "a row that scores a target waits for a mask; such a row picks nothing"
    return f"{plan.num_masked} rows wait for masks; {most} can" if plan.num_masked > most else ""
