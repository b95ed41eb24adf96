"""No address of a Triton kernel is computed in 32 bits where a full-width model needs more.

Running cannot show it: the tensors that overflow have gigabytes. So the sources are read.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "backends" / "gpu_kernels"
SOURCES = sorted(p for p in FOLDER.glob("*.py") if "@triton.jit" in p.read_text())
ACCESSES = ("tl.load", "tl.store", "tl.atomic_add")


class Offsets(ast.NodeVisitor):
    """Walks one kernel in order and notes products in addresses that may leave 32 bits.

    `wide` names hold 64-bit values. `bounded` names stay below a block's or a page's size: made of
    constants (upper case), `tl.arange` and remainders by constants. A product is in order if it is
    wide, has a bounded factor, or numbers a block (times BLOCK_…). A row times its width is none.
    """

    def __init__(self) -> None:
        self.wide: set[str] = set()
        self.bounded: set[str] = set()
        self.products: dict[str, list[ast.BinOp]] = {}
        self.found: list[str] = []

    def is_wide(self, node: ast.AST) -> bool:
        match node:
            case ast.Name(id=name):
                return name in self.wide
            case ast.Attribute(attr="int64"):
                return True
            case ast.Call(func=ast.Attribute(attr="load")):
                return False  # however wide its address: what lies there is an index of 32 bits
            case _:
                return any(map(self.is_wide, ast.iter_child_nodes(node)))

    def is_bounded(self, node: ast.expr) -> bool:
        match node:
            case ast.Constant():
                return True
            case ast.Name(id=name):
                return name.isupper() or name in self.bounded
            case ast.Subscript(value=value):
                return self.is_bounded(value)
            case ast.Call(func=ast.Attribute(attr="arange")):
                return True
            case ast.BinOp(op=ast.Mod(), right=right):
                return self.is_bounded(right)
            case ast.BinOp(left=left, right=right):
                return self.is_bounded(left) and self.is_bounded(right)
            case _:
                return False

    def risky(self, node: ast.AST) -> Iterator[ast.BinOp]:
        """Products below a node, and those that made the names it reads."""
        for n in ast.walk(node):
            if isinstance(n, ast.Name):
                yield from self.products.get(n.id, ())
            match n:
                case ast.BinOp(op=ast.Mult()) if not self.is_wide(n) and not self._keeps_small(n):
                    yield n
                case _:
                    pass

    def _keeps_small(self, product: ast.BinOp) -> bool:
        """Whether a factor is bounded and no row's width (which, times a row, is an address)."""
        for factor in (product.left, product.right):
            name = factor.id if isinstance(factor, ast.Name) else ""
            is_width = name.isupper() and not name.startswith("BLOCK")
            if self.is_bounded(factor) and not is_width:
                return True
        return False

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            if isinstance(target, ast.Name):
                name = target.id
                self.products[name] = list(self.risky(node.value))
                self.wide.discard(name)
                self.bounded.discard(name)
                if self.is_wide(node.value):
                    self.wide.add(name)
                elif self.is_bounded(node.value):
                    self.bounded.add(name)

    def visit_Call(self, node: ast.Call) -> None:
        """Accesses by address: a tile's (`weight.load([row, column])`) are by its place."""
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and ast.unparse(node.func) in ACCESSES:
            for product in self.risky(node.args[0]):
                self.found.append(f"line {product.lineno}: {ast.unparse(product)}")


def narrow_products(source: str) -> list[str]:
    """Each product in an address that is neither wide nor kept small, with its line."""
    found: list[str] = []
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef):
            offsets = Offsets()
            for statement in function.body:
                offsets.visit(statement)
            found += dict.fromkeys(offsets.found)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_addresses_of_a_kernel_are_wide_enough(path: Path) -> None:
    assert narrow_products(path.read_text()) == []


@pytest.mark.parametrize(
    ("address", "narrow"),
    [
        ("x + row * WIDTH", True),
        ("x + row * stride", True),
        ("x + (row * heads + head) * WIDTH", True),
        ("x + row.to(tl.int64) * WIDTH", False),
        ("x + (row % PAGE) * stride", False),
        ("x + row * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)", False),
        ("x + far", True),
        ("x + tl.load(slots + row.to(tl.int64)) * stride", True),
        ("x + tl.load(slots + row).to(tl.int64) * stride", False),
    ],
)
def test_the_rule_finds_a_row_times_its_width(address: str, narrow: bool) -> None:
    kernel = f"""
def kernel(x, slots, heads, stride, WIDTH: tl.constexpr, PAGE: tl.constexpr, BLOCK_ROWS):
    row, head = tl.program_id(0), tl.program_id(1)
    far = row * stride
    tl.store({address}, 0)
"""
    assert bool(narrow_products(kernel)) is narrow
