"""The `sample` dialect: what ends a program."""

from __future__ import annotations

from collections.abc import Mapping

from xdsl.dialects import builtin
from xdsl.ir import Dialect
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, traits_def
from xdsl.traits import Pure

from lostwax.ir.contract.masks import mask_words
from lostwax.ir.fields import F32, I32
from lostwax.ir.op import Cost, LostwaxOp, type_bytes
from lostwax.ir.size import Size


@irdl_op_definition
class PickOp(LostwaxOp):
    """One token a row: the largest logit at temperature 0, else Gumbel-max with counted noise.

    logits [R, V] f32, temperature [R] f32, seeds [R] i32, counters [R] i32 -> ids [R] i32, logprobs
    [R] f32 (of the picked id under the unscaled logits). The lowest index wins ties. The noise of
    (seed, counter, index) is defined bit for bit in `ir/reference/sample.py`.
    """

    name = "sample.pick"
    logits = operand_def(F32)
    temperature = operand_def(F32)
    seeds = operand_def(I32)
    counters = operand_def(I32)
    ids = result_def(I32)
    logprobs = result_def(F32)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        rows = self.shape(self.logits)[:1]
        for value in (self.temperature, self.seeds, self.counters, self.ids, self.logprobs):
            self.require(self.shape(value) == rows, f"{value.type} must be [{rows[0]}]")


@irdl_op_definition
class PenaliseOp(LostwaxOp):
    """Logits of ids that have come before, made smaller, or larger where a penalty is negative.

    logits [R, V] f32, counts [C, V] i32, count_rows [R] i32, recent [R, N] i32, repetition,
    frequency, presence [R] f32 -> [R, V] f32. An id has been an output of row r half as often as
    counts[count_rows[r]] says, rounded down, and once more for each of recent[r] that is it (-1 is
    none); it has been seen if it was an output or that number is odd. First the logit of an id that
    was seen is divided by repetition where it is above 0 and multiplied with it elsewhere (Keskar
    et al., arXiv:1909.05858), then frequency times its outputs is subtracted, and presence if there
    are any. A row whose count_rows is -1 passes bit for bit.
    """

    name = "sample.penalise"
    logits = operand_def(F32)
    counts = operand_def(I32)
    count_rows = operand_def(I32)
    recent = operand_def(I32)
    repetition = operand_def(F32)
    frequency = operand_def(F32)
    presence = operand_def(F32)
    out = result_def(F32)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        rows, vocab = self.shape(self.logits)
        for value in (self.count_rows, self.repetition, self.frequency, self.presence):
            self.require(self.shape(value) == (rows,), f"{value.type} must be [{rows}]")
        recent = self.shape(self.recent)
        self.require(
            len(recent) == 2 and recent[0] == rows,
            f"{self.recent.type} must have {rows} rows of ids",
        )
        self.require(
            len(self.shape(self.counts)) == 2 and self.shape(self.counts)[1] == vocab,
            f"{self.counts.type} must have rows of {vocab} numbers",
        )
        self.require(
            self.shape(self.out) == self.shape(self.logits),
            f"result {self.out.type} must have the shape of {self.logits.type}",
        )

    def cost(self, env: Mapping[str, int]) -> Cost:
        """Of the counts a row each at most, whatever the state holds."""
        numbers = self.shape(self.logits)[0].at(env) * self.shape(self.logits)[1].at(env)
        held = self.boundary_bytes(env) - type_bytes(self.counts.type, env)
        return Cost(held + 4 * numbers, 8 * numbers)


@irdl_op_definition
class BiasOp(LostwaxOp):
    """Logits with what their row's bias adds to each.

    logits [R, V] f32, biases [Q, V] f32, bias_rows [R] i32 -> [R, V] f32. Row r has the bias
    biases[bias_rows[r]], of which any number may be -inf. A row whose bias_rows is -1 passes bit
    for bit.
    """

    name = "sample.bias"
    logits = operand_def(F32)
    biases = operand_def(F32)
    bias_rows = operand_def(I32)
    out = result_def(F32)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        rows, vocab = self.shape(self.logits)
        self.require(
            self.shape(self.bias_rows) == (rows,), f"{self.bias_rows.type} must be [{rows}]"
        )
        self.require(
            len(self.shape(self.biases)) == 2 and self.shape(self.biases)[1] == vocab,
            f"{self.biases.type} must have rows of {vocab} numbers",
        )
        self.require(
            self.shape(self.out) == self.shape(self.logits),
            f"result {self.out.type} must have the shape of {self.logits.type}",
        )

    def cost(self, env: Mapping[str, int]) -> Cost:
        """Of the biases a row each at most, whatever the state holds."""
        numbers = self.shape(self.logits)[0].at(env) * self.shape(self.logits)[1].at(env)
        held = self.boundary_bytes(env) - type_bytes(self.biases.type, env)
        return Cost(held + 4 * numbers, numbers)


@irdl_op_definition
class MaskOp(LostwaxOp):
    """Logits with -inf for every id that its row's mask forbids.

    logits [R, V] f32, masks [M, ceil(V / 32)] i32, mask_rows [R] i32 -> [R, V] f32. Row r has the
    mask masks[mask_rows[r]], whose bit i % 32, the least significant first, of word i // 32 is 1
    where id i is allowed. A row whose mask_rows is -1 passes bit for bit. One whose mask allows no
    id is -inf everywhere: `sample.pick` then picks id 0, the lowest of equals.
    """

    name = "sample.mask"
    logits = operand_def(F32)
    masks = operand_def(I32)
    mask_rows = operand_def(I32)
    out = result_def(F32)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        rows, vocab = self.shape(self.logits)
        self.require(
            self.shape(self.mask_rows) == (rows,), f"{self.mask_rows.type} must be [{rows}]"
        )
        ids = vocab.constant
        self.require(ids is not None, f"{self.logits.type} must have a constant number of ids")
        words = Size.of(mask_words(ids or 0))
        self.require(
            len(self.shape(self.masks)) == 2 and self.shape(self.masks)[1] == words,
            f"{self.masks.type} must have rows of {words} words, a bit an id of {vocab}",
        )
        self.require(
            self.shape(self.out) == self.shape(self.logits),
            f"result {self.out.type} must have the shape of {self.logits.type}",
        )

    def cost(self, env: Mapping[str, int]) -> Cost:
        """Of the masks a row each at most, whatever the state holds."""
        rows, ids = self.shape(self.logits)
        _, words = self.shape(self.masks)
        held = self.boundary_bytes(env) - type_bytes(self.masks.type, env)
        return Cost(held + 4 * rows.at(env) * words.at(env), (rows * ids).at(env))


@irdl_op_definition
class NucleusOp(LostwaxOp):
    """Logits with -inf for every id that its row is not sampled from.

    logits [R, V] f32, temperature [R] f32, top_k [R] i32, top_p [R] f32, min_p [R] f32 -> [R, V]
    f32. Of a row's ids, the largest logit first and the lowest index first among equals, the first
    top_k stay (0: all). Of these, under p = softmax(their logits / temperature), those stay before
    which p has a mass below top_p (1: all; the nucleus of Holtzman et al., arXiv:1904.09751) and
    whose own p is min_p times the first's at least (0: all). The first always stays. Rows of
    temperature 0 pass as they are, and so does all of a row that asks for nothing. Where a mass is
    within `BORDER` of what it is compared with (`ir/reference/sample.py`), rounding may decide
    either way.
    """

    name = "sample.nucleus"
    logits = operand_def(F32)
    temperature = operand_def(F32)
    top_k = operand_def(I32)
    top_p = operand_def(F32)
    min_p = operand_def(F32)
    out = result_def(F32)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        rows = self.shape(self.logits)[:1]
        for value in (self.temperature, self.top_k, self.top_p, self.min_p):
            self.require(self.shape(value) == rows, f"{value.type} must be [{rows[0]}]")
        self.require(
            self.shape(self.out) == self.shape(self.logits),
            f"result {self.out.type} must have the shape of {self.logits.type}",
        )


@irdl_op_definition
class LogprobOp(LostwaxOp):
    """Log-probability of one given id a row.

    logits [R, V] f32, targets [R] i32 (-1: gives 0) -> logprobs [R] f32.
    """

    name = "sample.logprob"
    logits = operand_def(F32)
    targets = operand_def(I32)
    logprobs = result_def(F32)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        rows = self.shape(self.logits)[:1]
        for value in (self.targets, self.logprobs):
            self.require(self.shape(value) == rows, f"{value.type} must be [{rows[0]}]")


@irdl_op_definition
class ScoreOp(LostwaxOp):
    """Log-probabilities of given targets and of the n likeliest ids.

    logits [R, V] f32, targets [R] i32 (-1: gives 0) -> target_logprobs [R] f32, top_ids [R, n] i32
    (descending, lowest index first), top_logprobs [R, n] f32.
    """

    name = "sample.score"
    logits = operand_def(F32)
    targets = operand_def(I32)
    n = prop_def(builtin.IntegerAttr)
    target_logprobs = result_def(F32)
    top_ids = result_def(I32)
    top_logprobs = result_def(F32)
    traits = traits_def(Pure())

    def verify_(self) -> None:
        rows = self.shape(self.logits)[0]
        top = (rows, Size.of(self.n.value.data))
        self.require(
            self.shape(self.targets) == self.shape(self.target_logprobs) == (rows,)
            and self.shape(self.top_ids) == self.shape(self.top_logprobs) == top,
            f"results must be [{rows}] and [{top[0]}, {top[1]}]",
        )


SAMPLE = Dialect("sample", [PickOp, PenaliseOp, BiasOp, MaskOp, NucleusOp, LogprobOp, ScoreOp])
