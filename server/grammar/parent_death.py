"""The kernel ends this process when its parent ends, even where it is stopped. Knows no grammar.

A process that was stopped hears nothing, so it does not see that the other end of its socket is
gone; only a signal of the kernel's reaches it.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
"""<linux/prctl.h>"""
_LIBRARY = ctypes.CDLL(None, use_errno=True)


def end_with_parent(parent: int) -> None:
    """End this process when `parent`, the process that started it, ends; at once if it has.

    The kernel counts the end of the thread that started it as the parent's. A fork does not
    inherit it. Raises OSError where the kernel refuses.
    """
    if _LIBRARY.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    if os.getppid() != parent:  # it ended before the kernel knew
        os._exit(1)
