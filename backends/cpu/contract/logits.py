"""What the rules of kernels over logits share: rows that are cut into parts of ids."""

from __future__ import annotations

from lostwax.backends.cpu.contract.rule import Memory, Numbers, Parameter, Whole, parts, strided


def logits(name: str = "logits") -> Memory:
    """[R, width], in rows `NAME_row` apart."""
    return Memory(name, "f32", lambda n: strided((n.R, getattr(n, f"{name}_row")), (n.width, 1)))


def of_rows(name: str, dtype: str, *, may_be_null: bool = False) -> Memory:
    """[R]."""
    return Memory(name, dtype, lambda n: n.R, may_be_null)


def num_parts(n: Numbers) -> int:
    """Of all rows together."""
    return n.R * parts(n.width, n.ids)


def sizes() -> tuple[Parameter, ...]:
    """Rows, ids of a row and of a part."""
    return (Whole("R"), Whole("width", least=1), Whole("ids", least=1))
