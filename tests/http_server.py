"""Runs a gateway on a loopback port, in a thread, for tests that need real HTTP."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

from fastapi import FastAPI
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from lostwax.server.gateway.connection import HEAD_DEADLINE_S, UNREAD_DEADLINE_S, UNREAD_WAITS_S
from lostwax.server.gateway.http_server import HttpServer
from lostwax.server.gateway.room import MAX_CONNECTIONS
from lostwax.server.gateway.serve import listen
from lostwax.server.gateway.tls import Tls
from lostwax.server.gateway.tokenizer import TextCodec


@contextmanager
def running(
    app: FastAPI,
    max_connections: int = MAX_CONNECTIONS,
    head_deadline_s: float = HEAD_DEADLINE_S,
    unread_deadline_s: float = UNREAD_DEADLINE_S,
    unread_waits_s: float = UNREAD_WAITS_S,
    tls: Tls | None = None,
) -> Generator[str]:
    """The base URL of the application while it is served."""
    with listen("127.0.0.1", 0) as listener:
        server = HttpServer(
            app, max_connections, head_deadline_s, unread_deadline_s, unread_waits_s, tls
        )
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"{'http' if tls is None else 'https'}://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def small_tokenizer() -> Tokenizer:
    """A byte-level tokenizer of 59 single characters and one special end token, 60 ids.

    Ids 2 and 3 are the two halves of "é", so that text breaks inside a character.
    """
    alphabet = "!.Ã©" + "Ġ" + "abcdefghijklmnopqrstuvwxyz" + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "01"
    vocab = {piece: i for i, piece in enumerate(alphabet)}
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_tokens(["X9"])
    tokenizer.add_special_tokens(["<end>"])
    return tokenizer


def small_codec() -> TextCodec:
    """It reads and writes text with that tokenizer."""
    return TextCodec(small_tokenizer())
