"""One answer on its way through a grammar: masks behind its tokens, and behind drafts of the next.

Knows no process. A mask is a row of 32-bit words as the runtime takes it: bit i % 32 of word
i // 32, the least significant first, says whether id i may come.
"""

from __future__ import annotations

from collections.abc import Sequence

import llguidance

from lostwax.server.formats.encoding_v32 import THINK_END
from lostwax.server.grammar.compile_grammar import shown
from lostwax.server.grammar.vocabulary import Vocabulary

_CLOSE = THINK_END.encode()
WORD_BITS = 32


class CannotGoOn(ValueError):
    """The answer left its grammar, or the grammar is too costly; the message says which."""


class Rows:
    """Masks in memory: `words` 32-bit words each, which begin at `address`."""

    def __init__(self, memory: memoryview, address: int, vocab_size: int) -> None:
        self.words = -(-vocab_size // WORD_BITS)
        self._memory = memory.cast("B").cast("I")
        self._address = address

    @property
    def count(self) -> int:
        """Masks that fit."""
        return len(self._memory) // self.words

    def fill(self, row: int, matcher: llguidance.LLMatcher) -> None:
        """What a matcher allows."""
        num_bytes = 4 * self.words
        matcher.unsafe_compute_mask_ptr(self._address + row * num_bytes, num_bytes)

    def allow_all(self, row: int) -> None:
        """Every id."""
        self._words(row)[:] = memoryview(b"\xff" * (4 * self.words)).cast("I")

    def put(self, row: int, tokens: Sequence[int], *, allowed: bool) -> None:
        """Allow or forbid some ids."""
        words = self._words(row)
        for token in tokens:
            bit = 1 << token % WORD_BITS
            before = words[token // WORD_BITS]
            words[token // WORD_BITS] = before | bit if allowed else before & ~bit

    def allows(self, row: int, token: int) -> bool:
        """Whether an id may come."""
        return bool(self._words(row)[token // WORD_BITS] >> token % WORD_BITS & 1)

    def as_number(self, row: int) -> int:
        """The mask as one number, whose bit i is that of id i."""
        return int.from_bytes(self._words(row).tobytes(), "little")

    def _words(self, row: int) -> memoryview:
        return self._memory[row * self.words : (row + 1) * self.words]


class Follower:
    """An answer that any of the `ends` ends, where the grammar lets it end and nowhere else.

    `matcher` is its own. With `after` the grammar begins behind that token: until it comes all may
    come but the ends, and text that spells out the token as readers of reasoning would take it.
    """

    def __init__(
        self,
        matcher: llguidance.LLMatcher,
        vocabulary: Vocabulary,
        ends: Sequence[int],
        after: int | None,
    ) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._ends = [token for token in ends if token < vocabulary.vocab_size]
        self._after = after
        self._waits = after is not None
        self._tail = b""
        self._spellings = vocabulary.closing

    def take(self, tokens: Sequence[int]) -> None:
        """Tokens that came. Raises CannotGoOn where the grammar has no place for one."""
        for token in tokens:
            if not self._waits:
                if not self._matcher.consume_token(token):
                    raise CannotGoOn(shown(self._matcher.get_error()))
            elif token == self._after:
                self._waits = False
            else:
                self._tail = (self._tail + self._vocabulary.bytes_of[token])[-len(_CLOSE) :]

    def masks(self, drafts: Sequence[int], rows: Rows, row: int) -> None:
        """Masks behind the tokens and behind each draft, from `row` on. Behind a draft that may
        not come every id is allowed: nobody looks at what is picked there. Raises CannotGoOn."""
        waits, tail, num_taken = self._waits, self._tail, 0
        self._mask(rows, row)
        for number, draft in enumerate(drafts, 1):
            is_end = draft in self._ends
            if is_end or not rows.allows(row + number - 1, draft):
                for left in range(row + number, row + len(drafts) + 1):
                    rows.allow_all(left)
                break
            num_taken += not self._waits
            self.take([draft])
            self._mask(rows, row + number)
        if num_taken and not self._matcher.rollback(num_taken):
            raise CannotGoOn(shown(self._matcher.get_error()))
        self._waits, self._tail = waits, tail

    def _mask(self, rows: Rows, row: int) -> None:
        if self._waits:
            rows.allow_all(row)
            rows.put(row, self._ends, allowed=False)
            rows.put(row, self._spellings, allowed=False)
            for length in range(1, len(_CLOSE)):
                if self._tail.endswith(_CLOSE[:length]):
                    found = self._vocabulary.beginning_with(_CLOSE[length:])
                    rows.put(row, found, allowed=False)
            return
        rows.fill(row, self._matcher)
        if self._matcher.is_error():
            raise CannotGoOn(shown(self._matcher.get_error()))
        rows.put(row, [self._vocabulary.eos], allowed=False)
        rows.put(row, self._ends, allowed=self._matcher.is_accepting())
        if not rows.as_number(row):
            raise CannotGoOn("no token of the model continues the answer")
