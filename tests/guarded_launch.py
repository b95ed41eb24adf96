"""Native launches over memory that ends where their views do: what a kernel touches behind it ends
the process, which is a child for that. Compares no numbers."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
from collections.abc import Callable, Iterable

import numpy as np

from lostwax.backends.cpu.contract.check_native import appended, check_native, numbers_of
from lostwax.backends.cpu.contract.rule import RealRows
from lostwax.backends.cpu.contract.rules import RULES
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.parameter import Pointer, Scalar
from lostwax.ir.contract.program import KernelLaunch
from lostwax.ir.contract.view import View

PAGES = 3
"""Of every cache."""
PAGE = os.sysconf("SC_PAGESIZE")
SLACK = 0xA5
LINE = 64
_READ_WRITE, _PRIVATE_NEW = 0x3, 0x22
MEAN = (-(1 << 31), -1, 0, 1, 2, 3, 7, (1 << 31) - 1)
"""What no step's page, slot, position or id is, among what one may be."""


class _Progress(ctypes.Structure):
    """As `kernels/team.h` has them."""

    _fields_ = (("taken", ctypes.c_uint64), ("done", ctypes.c_uint64))


class _Team(ctypes.Structure):
    _fields_ = (
        ("step", ctypes.c_uint32),
        ("chunks", ctypes.c_uint32),
        ("holds", ctypes.c_bool),
        ("progress", ctypes.POINTER(_Progress)),
        ("scratch", ctypes.c_void_p),
    )


class Guarded:
    """So many bytes that end where the next page may not be touched, nor the one before them."""

    def __init__(self, num_bytes: int) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = (ctypes.c_void_p, *[ctypes.c_size_t] * 5)
        self._libc.mprotect.argtypes = self._libc.munmap.argtypes = (
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
        )
        whole = -(-num_bytes // PAGE) * PAGE
        self._size = whole + 2 * PAGE
        none = (1 << 64) - 1  # no file
        self._at = self._libc.mmap(None, self._size, 0, _PRIVATE_NEW, none, 0)
        assert self._libc.mprotect(self._at + PAGE, whole, _READ_WRITE) == 0 or not whole
        self.address = self._at + PAGE + whole - num_bytes
        self._slack = (ctypes.c_ubyte * (whole - num_bytes)).from_address(self._at + PAGE)
        ctypes.memset(self._slack, SLACK, whole - num_bytes)
        self.bytes = np.ctypeslib.as_array((ctypes.c_ubyte * num_bytes).from_address(self.address))

    def close(self) -> None:
        """Give it back; nothing may have been written in front."""
        assert bytes(self._slack) == bytes([SLACK]) * len(self._slack), "written in front of it"
        del self.bytes
        self._libc.munmap(self._at, self._size, 0)


def _fill(memory: Guarded, view: View, rows: int | None, rng: np.random.Generator) -> None:
    """Anything; of integers, numbers that lead elsewhere among those that do not."""
    memory.bytes[:] = rng.integers(0, 256, len(memory.bytes), np.uint8)
    if view.dtype == "i32" and rng.random() < 0.7:
        held = memory.bytes.view(np.int32)
        held[:] = rng.choice(MEAN, len(held)) if rng.random() < 0.3 else rng.integers(-1, 40)
    if rows is not None and rng.random() < 0.8:
        memory.bytes.view(np.int32)[0] = rows


def run_guarded(launch: KernelLaunch, address: int, rng: np.random.Generator) -> None:
    """Run a kernel by its address on one thread, as the driver would."""
    check_native(launch)
    added = appended(launch, lambda view: PAGES)
    rule = RULES[launch.symbol]
    numbers = numbers_of(rule, launch)
    is_head = all(each.name != "T" for each in rule.parameters)
    held: list[Guarded] = []
    values: list[ctypes.c_void_p | ctypes.c_int32 | ctypes.c_float] = []
    for each, param in zip(rule.parameters, (*launch.params, *added), strict=True):
        if isinstance(param, Pointer):
            view = param.view
            size = view.span_bytes
            if view.shape[:1] == (-1,):
                size = PAGES * view.strides[0] * DTYPE_BYTES[view.dtype]
            held.append(Guarded(size))
            rows = None
            if isinstance(each, RealRows):
                rows = numbers.R if is_head else numbers.T
            _fill(held[-1], view, rows, rng)
            values.append(ctypes.c_void_p(held[-1].address))
        elif isinstance(param, Scalar):
            kind = ctypes.c_int32 if param.kind == "i32" else ctypes.c_float
            values.append(kind(param.value))  # pyright: ignore[reportArgumentType]
        else:
            values.append(ctypes.c_void_p(0))
    held.append(Guarded(-(-launch.shared_bytes // LINE) * LINE))
    progress = _Progress(7 << 32, 7 << 32)
    team = _Team(7, 0, False, ctypes.pointer(progress), held[-1].address)
    addresses = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
    kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(address)
    kernel(ctypes.addressof(addresses), ctypes.addressof(team))
    assert team.chunks <= rule.chunks(numbers), f"{team.chunks} chunks"
    assert progress.done == 7 << 32 | team.chunks, "chunks that are not done"
    for each in held:
        each.close()


def harmed(launches: Iterable[KernelLaunch], run: Callable[[KernelLaunch], None]) -> str | None:
    """What went wrong with the first of them, all run in a child; None where nothing did."""
    reads, writes = os.pipe()
    if not (child := os.fork()):
        _run_all(launches, run, writes)
    os.close(writes)
    with os.fdopen(reads, "rb") as told:
        last = told.read().decode().splitlines()[-1:]
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return f"{signal.Signals(os.WTERMSIG(status)).name}: {last}"
    return None if os.WEXITSTATUS(status) == 0 else str(last)


def _run_all(
    launches: Iterable[KernelLaunch], run: Callable[[KernelLaunch], None], writes: int
) -> None:
    code = 1
    faulthandler.disable()  # pytest's: a fault is told as one line
    try:
        for launch in launches:
            os.write(writes, f"{described(launch)}\n".encode())
            run(launch)
        code = 0
    except Exception as error:  # of whatever kind: the parent reads the last line
        os.write(writes, f"{type(error).__name__}: {error}\n".replace("\n", " ").encode() + b"\n")
    finally:
        os._exit(code)


def described(launch: KernelLaunch) -> str:
    """Its symbol and numbers, on one line."""
    names = (each.name for each in RULES[launch.symbol].parameters)
    values = (p.value if isinstance(p, Scalar) else type(p).__name__ for p in launch.params)
    pairs = zip(names, values, strict=False)
    return f"{launch.symbol} {', '.join(f'{name} {value}' for name, value in pairs)}"
