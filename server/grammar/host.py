"""The process from which those that follow a grammar are forked. It knows the model's vocabulary,
which takes a second to load and which all of them share; it looks at no grammar. It ends with the
engine, and they with it, so that nobody is left who cannot hear.

Run as `python -m lostwax.server.grammar.host` by `grammars.py`. It has one thread, so that it
can fork.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import mmap
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lostwax.server.gateway.tokenizer_file import load_codec
from lostwax.server.grammar.follower import Rows
from lostwax.server.grammar.messages import Refused, Reply, encode
from lostwax.server.grammar.parent_death import end_with_parent
from lostwax.server.grammar.process import follow
from lostwax.server.grammar.vocabulary import NoVocabulary, Vocabulary
from lostwax.server.told_fault import fault_of


def main(argv: Sequence[str] | None = None) -> None:
    """Fork a process for every socket that comes, until none can come any more."""
    parser = argparse.ArgumentParser(prog="lostwax.server.grammar.host")
    parser.add_argument("--control", type=int, required=True, help="socket that brings sockets")
    parser.add_argument("--masks", type=int, required=True, help="file of the masks")
    parser.add_argument("--vocab-size", type=int, required=True)
    parser.add_argument("--eos", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True, help="the process that starts this")
    parser.add_argument("--tokenizer", type=Path, action="append", default=[])
    options = parser.parse_args(argv)
    end_with_parent(options.parent)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    control = socket.socket(fileno=options.control)
    masks = mmap.mmap(options.masks, 0)
    address = ctypes.addressof(ctypes.c_char.from_buffer(masks))
    rows = Rows(memoryview(masks), address, options.vocab_size)
    found = _vocabulary(options)
    gc.collect()
    host = os.getpid()
    gc.freeze()  # a look for garbage in a fork would copy what is shared
    while True:
        _, files, _, _ = socket.recv_fds(control, 16, 1)
        if not files:
            return
        with socket.socket(fileno=files[0]) as engine:
            if not isinstance(found, Vocabulary):
                _say(engine, found)
                continue
            try:
                pid = os.fork()
            except OSError as error:  # there are too many processes, and this one's go on
                _say(engine, fault_of(error))
                continue
            if pid == 0:
                end_with_parent(host)
                control.close()
                _follow(engine, found, rows)


def _vocabulary(options: argparse.Namespace) -> Vocabulary | Reply:
    """What all forks share, or what is said to whoever asks for one."""
    try:
        return Vocabulary(load_codec(*options.tokenizer), options.vocab_size, options.eos)
    except NoVocabulary as error:
        return Refused(str(error))
    except Exception as error:
        return fault_of(error)


def _follow(engine: socket.socket, vocabulary: Vocabulary, rows: Rows) -> None:
    """In the new process, which ends here."""
    try:
        follow(engine, vocabulary, rows)
    except (OSError, MemoryError):
        pass  # the engine has gone, or the bound of memory was met
    except BaseException as error:  # a panic of a library's is no Exception
        _say(engine, fault_of(error))
    finally:
        os._exit(0)  # and not through the host's own end


def _say(engine: socket.socket, reply: Reply) -> None:
    with suppress(OSError):  # it has gone
        engine.send(encode(reply))


if __name__ == "__main__":
    main()
