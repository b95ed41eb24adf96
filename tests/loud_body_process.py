"""A body process whose tokenizer prints what it reads, on every way out, and takes much memory for
a text that says so: `python -m loud_body_process`, as `body_process.py`."""

from __future__ import annotations

import os

from tokenizers import Tokenizer

from lostwax.server.gateway import body_process
from lostwax.server.gateway.tokenizer import Codec, TextCodec

SAID, WRITTEN = "the codec says", "the codec writes"
MUCH = "take much memory"


class LoudCodec(TextCodec):
    """Prints."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        print(SAID, flush=True)
        os.write(1, WRITTEN.encode() + b"\n")
        if text.startswith(MUCH):
            # Of addresses alone: nothing is written there.
            _ = bytearray(body_process.MAX_MEMORY_BYTES)
        return super().encode(text)


def _loud(serialised: bytes) -> Codec:
    return LoudCodec(Tokenizer.from_str(serialised.decode()))


if __name__ == "__main__":
    body_process.codec_of = _loud  # pyright: ignore[reportPrivateImportUsage]
    body_process.run()
