"""What the runtime does with a device's memory, whatever it computes with. Two kinds satisfy it:
`HostMemory` (numpy, no torch in the process) and `TorchMemory`. Knows no program.

A buffer is u8 [bytes] of the kind's own: a numpy array or a torch tensor. Both are cut by slices
and filled by assignment (`buffer[16:32] = 0`); what they do not share is here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from lostwax.backends.runtime.weight_steps import Numbers, Values
from lostwax.ir.contract.probe import Given, GivenWeight
from lostwax.ir.contract.view import View

if TYPE_CHECKING:  # the gateway asks for a driver's errors alone: numpy takes a tenth of a second
    from numpy.typing import NDArray

Buffer: TypeAlias = Any
"""u8 [bytes], a numpy array or a torch tensor; `nbytes` is its size."""
Held: TypeAlias = Any
"""A buffer, or a place of the same kind."""
Table: TypeAlias = Any
"""Rows of a buffer, as words: a numpy array or a torch tensor [rows, words]."""
Index: TypeAlias = Any
"""Row numbers, as the kind indexes with them."""
Array: TypeAlias = "NDArray[Any]"


class Place(Protocol):
    """What a view names inside a buffer; keeps the buffer. A torch tensor is one."""

    @property
    def shape(self) -> Any:
        """Extents; a leading -1 of the view is as many as the buffer holds."""
        ...

    def data_ptr(self) -> int:
        """The address of the first element."""
        ...


@dataclass(frozen=True)
class Content:
    """What a buffer holds at first: so many bytes, which `put` writes into it."""

    num_bytes: int
    put: Callable[[Buffer], None]


class Drawing(Protocol):
    """Draws what golden probes hold, bit for bit as `draw.py` has it."""

    def given(self, given: Given, num_bytes: int) -> Content:
        """The data, and NaN where it is undefined."""
        ...

    def weight(self, weight: GivenWeight) -> Content:
        """A stored weight: its parts are drawn, then formed as the loader forms them."""
        ...


class WeightMaker(Protocol):
    """Reads sources and makes stored weights of them."""

    @property
    def numbers(self) -> Numbers:
        """What computes with sources."""
        ...

    def open(self, path: Path) -> Any:
        """A safetensors file, whose `get_tensor(name)` gives a source. Raises BadFile."""
        ...

    def typed(self, buffer: Buffer, dtype: str, shape: tuple[int, ...]) -> Values:
        """A whole buffer as numbers."""
        ...

    def write(self, place: Values, piece: Values, /) -> None:
        """Put a piece where `place`, of its dtype and shape, lies in the memory."""
        ...


class DeviceMemory(Protocol):
    """One device's memory. What changes it goes behind what was launched, and does not wait."""

    @property
    def is_host(self) -> bool:
        """Whether the host computes in it, so that no copy is ever needed."""
        ...

    def place(self, buffer: Buffer, view: View, offset: int = 0) -> Place:
        """The view inside a buffer, `offset` bytes further on. Raises ValueError or RuntimeError
        where it reaches beyond the buffer's end."""
        ...

    def mirror(self, buffer: Buffer) -> Buffer:
        """Zeroed host memory beside a buffer, which `copy` sends; where `is_host`, the buffer."""
        ...

    def array(self, buffer: Buffer) -> Array:
        """u8 [bytes] over the memory itself, of a buffer that lies on the host."""
        ...

    def copy(self, to: Buffer, source: Buffer) -> None:
        """The bytes of a buffer (or a table's row) into another of the same size."""
        ...

    def put(self, buffer: Buffer, values: Array, start: int = 0) -> None:
        """An array's bytes into a buffer, from byte `start` on; the array may change at once."""
        ...

    def read(self, held: Held) -> Array:
        """A copy of a buffer's bytes, or of a place's numbers, once what was launched has run."""
        ...

    def set_words(self, buffer: Buffer, places: Array, values: Array) -> None:
        """i32 `values` [n] at the words i64 `places` [n] of a buffer, none of which comes twice."""
        ...

    def add_words(self, buffer: Buffer, places: Array, amount: int) -> None:
        """Add to the i32 words at i64 `places` [n]; one that comes twice is added to twice."""
        ...

    def table(self, buffer: Buffer, rows: int, *, wide: bool) -> Table:
        """A buffer's bytes in so many rows: of words of eight bytes where `wide`, else of bytes."""
        ...

    def index(self, rows: Array) -> Index:
        """i64 [n] where tables are indexed with it."""
        ...

    def take_rows(self, table: Table, rows: Index, out: Table) -> None:
        """`out` [n, words] becomes n rows of a table."""
        ...

    def put_rows(self, table: Table, rows: Index, values: Table) -> None:
        """n rows of a table become `values`."""
        ...

    def array_at(self, place: Place) -> Array:
        """A place's numbers over the memory itself, where `is_host`."""
        ...

    @property
    def drawing(self) -> Drawing:
        """What fills buffers for golden probes."""
        ...

    def weights(self, num_bytes: int) -> AbstractContextManager[WeightMaker]:
        """What makes weights of so many bytes in all; they lie there when the context ends."""
        ...

    def samples(self, place: Place, rows: Array, columns: Array) -> Array:
        """The numbers in rows i64 [r] of the place's first axis and columns i64 [c] of the others,
        which are flat: [r, c]; all columns where there are none."""
        ...

    def strays(self, place: Place, rows: int) -> tuple[bool, bool]:
        """Whether the first `rows` rows hold NaN, and whether they hold an infinity."""
        ...
