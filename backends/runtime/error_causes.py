"""What a library raised, with all that it came of: the reason often stands in the first of them.

torch says of an extension that it cannot load only that it cannot, and which library is missing
stands in the error behind that.
"""

from __future__ import annotations

from lostwax.ir.contract.one_line import one_line

MAX_CAUSES = 4
MAX_CHARS = 600
"""Of one of them: a vendor's text has its code, and a list of what may be wrong."""


def with_causes(error: BaseException) -> str:
    """`RuntimeError: its text, from ImportError: that one's text`, on one line.

    Sentences of our own say by themselves what they came of, and end it.
    """
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(parts) < MAX_CAUSES:
        text, name = one_line(cause, MAX_CHARS).strip(), type(cause).__name__
        if type(cause).__module__.startswith("lostwax."):
            return ", from ".join([*parts, text or name])
        parts.append(f"{name}: {text}" if text else name)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return ", from ".join(parts)
