"""Types that carry what decides correctness: symbolic shapes, dtypes, scale and cache layouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xdsl.dialects import builtin
from xdsl.ir import Attribute, Data, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from lostwax.ir.contract.cache_layout import LAYOUTS, CacheLayout
from lostwax.ir.scale_layouts import ELEMENTS, BlockScaleAttr
from lostwax.ir.size import Size, parse_size

DTYPES: dict[str, Attribute] = {
    name: ELEMENTS[name]
    for name in ("f64", "f32", "f16", "bf16", "si8", "i32", "i64", "f8E4M3FN", "f8E4M3FNUZ")
}
"""Element types of values, by the name that views, records and `.mlir` text use."""


@irdl_attr_definition
class SizeAttr(Data[Size]):
    """One dimension."""

    name = "lostwax.size"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Size:
        """Parse a polynomial."""
        return parse_size(parser)

    def print_parameter(self, printer: Printer) -> None:
        """Print a polynomial."""
        printer.print_string(str(self.data))


@irdl_attr_definition
class TensorType(ParametrizedAttribute, TypeAttribute):
    """`!lostwax.tensor<[T, 64*P], bf16>`, with a scale layout where the values are scaled."""

    name = "lostwax.tensor"
    shape: builtin.ArrayAttr[SizeAttr]
    dtype: Attribute
    scale: BlockScaleAttr | builtin.NoneAttr

    def verify(self) -> None:
        """The dtype is one that views can name; block scales need two axes."""
        if self.dtype_name not in DTYPES:
            raise VerifyException(f"{self.name}: {self.dtype} is not one of {', '.join(DTYPES)}")
        if self.block_scale is not None and len(self.sizes) < 2:
            raise VerifyException(f"{self.name}: block scales need two axes, {self} has fewer")

    @staticmethod
    def of(
        shape: Sequence[int | str | Size],
        dtype: str | Attribute,
        scale: BlockScaleAttr | None = None,
    ) -> TensorType:
        """Build from plain values."""
        dims = builtin.ArrayAttr([SizeAttr(Size.of(s)) for s in shape])
        element = DTYPES[dtype] if isinstance(dtype, str) else dtype
        return TensorType(dims, element, scale or builtin.NoneAttr())

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The dimensions."""
        return tuple(s.data for s in self.shape)

    @property
    def dtype_name(self) -> str:
        """The element type's name, as in DTYPES."""
        return str(self.dtype)

    @property
    def block_scale(self) -> BlockScaleAttr | None:
        """The scale layout, None for plain values."""
        return self.scale if isinstance(self.scale, BlockScaleAttr) else None

    def at(self, env: Mapping[str, int]) -> tuple[int, ...]:
        """The concrete shape."""
        return tuple(s.at(env) for s in self.sizes)

    def substitute(self, env: Mapping[str, Size]) -> TensorType:
        """The type with some symbols replaced."""
        return TensorType.of([s.substitute(env) for s in self.sizes], self.dtype, self.block_scale)

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """Parse `<[T, 7168], bf16>` or `<[N, K], f8E4M3FN, #lostwax.block_scale<…>>`."""
        with parser.in_angle_brackets():
            dims = parser.parse_comma_separated_list(
                parser.Delimiter.SQUARE, lambda: SizeAttr(parse_size(parser))
            )
            parser.parse_punctuation(",")
            dtype = parser.parse_type()
            scale: Attribute = builtin.NoneAttr()
            if parser.parse_optional_punctuation(","):
                scale = parser.parse_attribute()
            return [builtin.ArrayAttr(dims), dtype, scale]

    def print_parameters(self, printer: Printer) -> None:
        """Print the short form."""
        with printer.in_angle_brackets():
            printer.print_string("[" + ", ".join(map(str, self.sizes)) + "], ")
            printer.print_attribute(self.dtype)
            if self.block_scale is not None:
                printer.print_string(", ")
                printer.print_attribute(self.scale)


@irdl_attr_definition
class CacheType(ParametrizedAttribute, TypeAttribute):
    """One layer's part of a cache plane: `!lostwax.cache<"latent", N, 64, [512, 64], "bf16">`.

    N pages of `page_tokens` rows; a row concatenates `parts` (widths in elements) in `layout`, the
    name of a byte layout (see `ir/contract/cache_layout.py`).
    """

    name = "lostwax.cache"
    plane: builtin.StringAttr
    pages: SizeAttr
    page_tokens: builtin.IntAttr
    parts: builtin.ArrayAttr[builtin.IntAttr]
    layout: builtin.StringAttr

    def verify(self) -> None:
        """The layout is known and rows and pages hold something."""
        if self.layout.data not in LAYOUTS:
            raise VerifyException(
                f"{self.name}: layout {self.layout.data!r} is not one of {', '.join(LAYOUTS)}"
            )
        if self.page_tokens.data < 1 or not self.row or min(self.row) < 1:
            raise VerifyException(f"{self.name}: {self} has an empty page or row")
        if not self.form.fits(self.row):
            raise VerifyException(
                f"{self.name}: layout {self.layout.data!r} stores {len(self.form.dtypes)} parts a "
                f"row, {self} has {len(self.row)}"
            )

    @staticmethod
    def of(
        plane: str, pages: int | str | Size, page_tokens: int, parts: Sequence[int], layout: str
    ) -> CacheType:
        """Build from plain values."""
        return CacheType(
            builtin.StringAttr(plane),
            SizeAttr(Size.of(pages)),
            builtin.IntAttr(page_tokens),
            builtin.ArrayAttr([builtin.IntAttr(p) for p in parts]),
            builtin.StringAttr(layout),
        )

    @property
    def row(self) -> tuple[int, ...]:
        """Widths of the parts of one row, in elements."""
        return tuple(p.data for p in self.parts)

    @property
    def form(self) -> CacheLayout:
        """What the layout's name stands for."""
        return LAYOUTS[self.layout.data]

    def laid_out(self, layout: str) -> CacheType:
        """The same rows in another layout."""
        return CacheType.of(
            self.plane.data, self.pages.data, self.page_tokens.data, self.row, layout
        )

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """Parse `<"latent", N, 64, [512, 64], "bf16">`."""
        with parser.in_angle_brackets():
            plane = parser.parse_str_literal()
            parser.parse_punctuation(",")
            pages = parse_size(parser)
            parser.parse_punctuation(",")
            page_tokens = parser.parse_integer()
            parser.parse_punctuation(",")
            parts = parser.parse_comma_separated_list(
                parser.Delimiter.SQUARE, lambda: builtin.IntAttr(parser.parse_integer())
            )
            parser.parse_punctuation(",")
            layout = parser.parse_str_literal()
        return [
            builtin.StringAttr(plane),
            SizeAttr(pages),
            builtin.IntAttr(page_tokens),
            builtin.ArrayAttr(parts),
            builtin.StringAttr(layout),
        ]

    def print_parameters(self, printer: Printer) -> None:
        """Print the short form."""
        with printer.in_angle_brackets():
            row = ", ".join(map(str, self.row))
            printer.print_string(
                f'"{self.plane.data}", {self.pages.data}, {self.page_tokens.data}, [{row}], '
                f'"{self.layout.data}"'
            )


def tensor(value: Attribute, what: str) -> TensorType:
    """Narrow a type to TensorType; raises TypeError that names the value."""
    if not isinstance(value, TensorType):
        raise TypeError(f"{what}: expected a !lostwax.tensor, got {value}")
    return value
