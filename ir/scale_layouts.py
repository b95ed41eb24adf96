"""Scale layouts and stored formats as attributes: what `.mlir` prints of `ir/contract` types."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects import builtin
from xdsl.ir import Attribute, ParametrizedAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from lostwax.ir.contract.scale_layout import (
    BlockScale,
    ChannelScale,
    ScaleLayout,
    StoredFormat,
    TwoLevelScale,
)

ELEMENTS: dict[str, Attribute] = {
    "f64": builtin.f64,
    "f32": builtin.f32,
    "f16": builtin.f16,
    "bf16": builtin.bf16,
    "si8": builtin.IntegerType(8, builtin.Signedness.SIGNED),
    "i32": builtin.i32,
    "i64": builtin.i64,
    "f8E4M3FN": builtin.Float8E4M3FNType(),
    "f8E4M3FNUZ": builtin.Float8E4M3FNUZType(),
    "f8E8M0FNU": builtin.Float8E8M0FNUType(),
    "f4E2M1FN": builtin.Float4E2M1FNType(),
}
"""Element types by the name that `ir/contract/dtypes.py` has of them."""

STORED = "lostwax.stored"
"""Attribute of a weight argument: its `#lostwax.stored`; without one it is stored as typed."""


def _require_element(attribute: Attribute, where: str) -> None:
    if str(attribute) not in ELEMENTS:
        raise VerifyException(f"{where}: {attribute} is not one of {', '.join(ELEMENTS)}")


@irdl_attr_definition
class BlockScaleAttr(ParametrizedAttribute):
    """Scales of one value per `rows` x `cols` block of the last two axes, multiplied on read."""

    name = "lostwax.block_scale"
    rows: builtin.IntAttr
    cols: builtin.IntAttr
    dtype: Attribute

    def verify(self) -> None:
        """A block holds something; the scales are of a type that is known."""
        if min(self.rows.data, self.cols.data) < 1:
            raise VerifyException(f"{self.name}: a block of {self} holds nothing")
        _require_element(self.dtype, self.name)

    @property
    def layout(self) -> BlockScale:
        """The same as plain data."""
        return BlockScale(rows=self.rows.data, cols=self.cols.data, dtype=str(self.dtype))

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """Parse `<128, 128, f32>`."""
        with parser.in_angle_brackets():
            rows = parser.parse_integer()
            parser.parse_punctuation(",")
            cols = parser.parse_integer()
            parser.parse_punctuation(",")
            return [builtin.IntAttr(rows), builtin.IntAttr(cols), parser.parse_type()]

    def print_parameters(self, printer: Printer) -> None:
        """Print `<128, 128, f32>`."""
        with printer.in_angle_brackets():
            printer.print_string(f"{self.rows.data}, {self.cols.data}, ")
            printer.print_attribute(self.dtype)


@irdl_attr_definition
class ChannelScaleAttr(ParametrizedAttribute):
    """`#lostwax.channel_scale<f32>`: a scale for each row of the last two axes."""

    name = "lostwax.channel_scale"
    dtype: Attribute

    def verify(self) -> None:
        """The scales are of a type that is known."""
        _require_element(self.dtype, self.name)

    @property
    def layout(self) -> ChannelScale:
        """The same as plain data."""
        return ChannelScale(dtype=str(self.dtype))


@irdl_attr_definition
class TwoLevelScaleAttr(ParametrizedAttribute):
    """`#lostwax.two_level_scale<16, f8E4M3FN, f32>`: a scale for so many columns of a row, and one
    for the whole tensor that multiplies those.
    """

    name = "lostwax.two_level_scale"
    cols: builtin.IntAttr
    dtype: Attribute
    whole_dtype: Attribute

    def verify(self) -> None:
        """A block holds something; the scales are of types that are known."""
        if self.cols.data < 1:
            raise VerifyException(f"{self.name}: a block of {self} holds nothing")
        _require_element(self.dtype, self.name)
        _require_element(self.whole_dtype, self.name)

    @property
    def layout(self) -> TwoLevelScale:
        """The same as plain data."""
        return TwoLevelScale(
            cols=self.cols.data, dtype=str(self.dtype), whole_dtype=str(self.whole_dtype)
        )

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """Parse `<16, f8E4M3FN, f32>`."""
        with parser.in_angle_brackets():
            cols = parser.parse_integer()
            parser.parse_punctuation(",")
            dtype = parser.parse_type()
            parser.parse_punctuation(",")
            return [builtin.IntAttr(cols), dtype, parser.parse_type()]

    def print_parameters(self, printer: Printer) -> None:
        """Print `<16, f8E4M3FN, f32>`."""
        with printer.in_angle_brackets():
            printer.print_string(f"{self.cols.data}, ")
            printer.print_attribute(self.dtype)
            printer.print_string(", ")
            printer.print_attribute(self.whole_dtype)


ScaleAttr = BlockScaleAttr | ChannelScaleAttr | TwoLevelScaleAttr


def scale_attr(layout: ScaleLayout) -> ScaleAttr:
    """The attribute of a layout."""
    dtype = ELEMENTS[layout.dtype]
    match layout:
        case BlockScale():
            return BlockScaleAttr(builtin.IntAttr(layout.rows), builtin.IntAttr(layout.cols), dtype)
        case ChannelScale():
            return ChannelScaleAttr(dtype)
        case TwoLevelScale():
            whole = ELEMENTS[layout.whole_dtype]
            return TwoLevelScaleAttr(builtin.IntAttr(layout.cols), dtype, whole)


@irdl_attr_definition
class StoredAttr(ParametrizedAttribute):
    """How the checkpoint stores a weight: `#lostwax.stored<bf16>`, or with scales and an expert a
    tensor `#lostwax.stored<f8E4M3FN, #lostwax.block_scale<128, 128, f32>, stacked>`.
    """

    name = "lostwax.stored"
    dtype: Attribute
    scale: BlockScaleAttr | ChannelScaleAttr | TwoLevelScaleAttr | builtin.NoneAttr
    is_stacked: builtin.BoolAttr

    def verify(self) -> None:
        """Values are of a type that is known; those of 8 bits or fewer have scales, no others."""
        _require_element(self.dtype, self.name)
        scaled = isinstance(self.scale, ScaleAttr)
        if str(self.dtype).startswith(("f8", "f4")) is not scaled:
            wants = "has no scales" if scaled else "needs scales"
            raise VerifyException(f"{self.name}: {self.dtype} {wants}")

    @staticmethod
    def of(stored: StoredFormat) -> StoredAttr:
        """Build from plain data."""
        scale = builtin.NoneAttr() if stored.scale is None else scale_attr(stored.scale)
        stacked = builtin.BoolAttr.from_bool(stored.stacked)
        return StoredAttr(ELEMENTS[stored.dtype], scale, stacked)

    @property
    def format(self) -> StoredFormat:
        """The same as plain data."""
        scale = None if isinstance(self.scale, builtin.NoneAttr) else self.scale.layout
        return StoredFormat(
            dtype=str(self.dtype), scale=scale, stacked=bool(self.is_stacked.value.data)
        )

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """Parse `<f8E4M3FN, #lostwax.block_scale<128, 128, f32>, stacked>`."""
        scale: Attribute = builtin.NoneAttr()
        stacked = False
        with parser.in_angle_brackets():
            dtype = parser.parse_type()
            while parser.parse_optional_punctuation(","):
                stacked = parser.parse_optional_keyword("stacked") is not None
                if stacked:
                    break
                scale = parser.parse_attribute()
        return [dtype, scale, builtin.BoolAttr.from_bool(stacked)]

    def print_parameters(self, printer: Printer) -> None:
        """Print the short form."""
        with printer.in_angle_brackets():
            printer.print_attribute(self.dtype)
            if not isinstance(self.scale, builtin.NoneAttr):
                printer.print_string(", ")
                printer.print_attribute(self.scale)
            if self.is_stacked.value.data:
                printer.print_string(", stacked")
