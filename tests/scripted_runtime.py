"""A runtime that says what a test wrote down, and a tokenizer of bytes with DeepSeek's marks.

Knows nothing of the engine but the step contract.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
from fake_runtime import FACTS, FakeLimits, Narrowed, narrowed
from run_at_once import RunsAtOnce
from step_oracle import Sequences, StepBatch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from lostwax.ir.contract.model import CHAT_V32, ModelFacts
from lostwax.ir.contract.step import StepResult
from lostwax.server.formats.encoding_v32 import ASSISTANT, BOS, EOS, THINK, THINK_END, USER
from lostwax.server.gateway.tokenizer import TextCodec

SPECIAL = (BOS, EOS)
MARKS = (USER, ASSISTANT, THINK, THINK_END, "<fim>")
VOCAB = 256 + len(SPECIAL) + len(MARKS)
LIMITS = FakeLimits(max_context=512, page_tokens=16, num_pages=129, vocab_size=VOCAB)


def chat_codec(leave_out: str = "", more: tuple[str, ...] = ()) -> TextCodec:
    """A token a byte, and one a mark, also of `more`; as DeepSeek's, only begin and end are
    `special`."""
    alphabet = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={piece: i for i, piece in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens([mark for mark in SPECIAL if mark != leave_out])
    tokenizer.add_tokens([mark for mark in (*MARKS, *more) if mark != leave_out])
    return TextCodec(tokenizer)


CODEC = chat_codec()
EOS_ID = CODEC.marks[EOS]


def spelt(text: str) -> list[int]:
    """A text in tokens of one byte each, its marks too."""
    return [CODEC.encode(chr(byte))[0] if byte < 128 else _high(byte) for byte in text.encode()]


def _high(byte: int) -> int:
    # No single high byte is text: take the tokens of a character that holds it.
    for code in (*range(0x80, 0x800), *range(0x800, 0xD800, 64), 0x10000, 0x40000, 0x100000):
        encoded = chr(code).encode()
        if byte in encoded:
            return CODEC.encode(chr(code))[encoded.index(byte)]
    raise ValueError(f"byte {byte} is in no text")


CHATTING = msgspec.structs.replace(
    FACTS, vocab_size=VOCAB, eos_token_ids=(EOS_ID,), chat_encoding=CHAT_V32
)


@dataclass
class ScriptedRuntime(RunsAtOnce):
    """Answers every request by `script`, then by the end of the sentence."""

    script: list[int] = field(default_factory=list[int])
    limits: FakeLimits = LIMITS
    facts: ModelFacts = CHATTING
    prompt: list[int] = field(default_factory=list[int])
    """The tokens of the last prompt."""
    narrowed: list[Narrowed] = field(default_factory=list[Narrowed])
    """What the last step's logit rows are sampled from."""
    bias: list[dict[int, float]] = field(default_factory=list[dict[int, float]])
    """What is added to their logits."""
    sequences: Sequences = field(init=False)

    def __post_init__(self) -> None:
        self.sequences = Sequences(self.limits.page_tokens)

    def run(self, batch: StepBatch) -> StepResult:
        """The scripted token of each logit row."""
        if batch.entry == "extend":
            self.prompt = self.prompt if batch.positions[0] else []
            self.prompt += batch.tokens
        self.bias = batch.bias
        self.narrowed = [narrowed(batch, row) for row in range(len(batch.logit_rows))]
        result = StepResult(ids=[], logprobs=[], program="scripted")
        for row, counter in enumerate(batch.counters):
            token = self.script[counter] if counter < len(self.script) else EOS_ID
            if batch.masks is not None and (mask := batch.mask_rows[row]) >= 0:
                word = int(batch.masks[mask][token // 32])
                assert word >> (token % 32) & 1, f"the script says {token}, its mask forbids it"
            result.ids.append(token)
            result.logprobs.append(-0.25)
            if batch.head == "score":
                result.target_logprobs.append(0.0)
                result.top_ids.append([token, 65, *range(18)])
                result.top_logprobs.append([-0.25 - rank for rank in range(20)])
        return result
