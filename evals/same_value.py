"""Whether two JSON values are the same. Knows no schema."""

from __future__ import annotations

from typing import Any


def same_value(left: Any, right: Any) -> bool:
    """Equal as JSON: 1 and 1.0 are one number, true is none; objects have no order."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_value(left[k], right[k]) for k in left)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_value, left, right))  # pyright: ignore[reportUnknownArgumentType]
    return left == right
