"""The options of `lostwax bench serve`, by what they are about. Runs nothing.

`Server` is who is asked, `Load` how often, `Asked` what.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from lostwax.cli.named_paths import File
from lostwax.cli.option_types import (
    Count,
    Flag,
    Name,
    OptionRefused,
    Seed,
    Temperature,
    Url,
    above_zero,
    within,
)

if TYPE_CHECKING:
    from lostwax.evals.load.drive import Load as PointLoad
    from lostwax.evals.load.prompts import Prompt

COMMON = Parameter(group="Parameters")
"""Shown by `--help`, which only names those of the other groups."""
SERVER = Parameter(group=Group("Who is asked", sort_key=6))
LOAD = Parameter(group=Group("How often", sort_key=7))
ASKED = Parameter(group=Group("What is asked", sort_key=8))
NUM_PROMPTS, INPUT_LEN, OUTPUT_LEN, VOCAB_SIZE = 256, 256, 64, 1000
MAX_RATE = 100_000
MAX_CONCURRENCY = 4096
MAX_POINTS = 64
MAX_LEN = 2**20


def _rates(text: str) -> list[float]:
    found = [float(word) for word in text.split(",")]
    if not all(0 < rate <= MAX_RATE or rate == math.inf for rate in found):  # no NaN either
        raise ValueError
    return found


def _concurrencies(text: str) -> list[int]:
    found = [int(word) for word in text.split(",")]
    if not all(1 <= concurrency <= MAX_CONCURRENCY for concurrency in found):
        raise ValueError
    return found


def _require_rates(_: object, text: str) -> None:
    _require_list(_rates, text, f"rates above 0 and at most {MAX_RATE}, or inf")


def _require_concurrencies(_: object, text: str | None) -> None:
    if text is not None:
        _require_list(_concurrencies, text, f"numbers in 1..{MAX_CONCURRENCY}")


def _require_list(read: Callable[[str], Sequence[float]], text: str, what: str) -> None:
    found: Sequence[float]
    try:
        found = read(text)
    except ValueError:
        found = []
    if not found or len(found) > MAX_POINTS or len(set(found)) < len(found):
        raise ValueError(
            f"must be 1 to {MAX_POINTS} different {what}, with commas between, not {text[:64]!r}"
        )


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server of OpenAI's interface.

    Parameters
    ----------
    url
        The server, such as http://HOST:8000.
    model
        The model's name there, where it serves several.
    api_key_file
        A file with the server's API key.
    endpoint
        completions: /v1/completions. chat: /v1/chat/completions.
    timeout
        Seconds that one answer may take.
    """

    url: Annotated[Url, COMMON]
    model: Annotated[Name | None, COMMON] = None
    api_key_file: Annotated[File | None, SERVER] = None
    endpoint: Annotated[Literal["completions", "chat"], SERVER] = "completions"
    timeout: Annotated[float, SERVER, Parameter(validator=above_zero(86_400))] = 600.0


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The loads of a sweep: each rate with each concurrency.

    Parameters
    ----------
    request_rate
        Requests a second, which arrive at random (Poisson); inf: all at once. Several with commas
        between are a sweep.
    max_concurrency
        Requests under way at a time, at most (default: 4096, or what ulimit -n leaves room for).
        Several with commas between are a sweep.
    num_prompts
        Requests of each load (default: 256; with --duration any number).
    duration
        Seconds for which each load asks; what is under way then is waited for.
    warmups
        Requests before the first load that are not counted.
    seed
        Of arrivals and prompts: equal seeds ask the same.
    """

    request_rate: Annotated[str, COMMON, Parameter(validator=_require_rates)] = "inf"
    max_concurrency: Annotated[str | None, COMMON, Parameter(validator=_require_concurrencies)] = (
        None
    )
    num_prompts: Annotated[Count | None, COMMON] = None
    duration: Annotated[float | None, COMMON, Parameter(validator=above_zero(86_400))] = None
    warmups: Annotated[int, LOAD, Parameter(validator=within(0, MAX_CONCURRENCY))] = 4
    seed: Annotated[Seed, LOAD] = 0

    def __post_init__(self) -> None:
        if self.duration is None or self.num_prompts is not None:
            return
        if self.max_concurrency is None and math.inf in _rates(self.request_rate):
            raise OptionRefused(
                "--duration alone would ask without end at once; give --max-concurrency,"
                " --request-rate or --num-prompts, too"
            )

    @property
    def concurrencies(self) -> list[int | None]:
        """Of the sweep; None is any number."""
        return [None] if self.max_concurrency is None else [*_concurrencies(self.max_concurrency)]

    def points(self) -> list[PointLoad]:
        """The sweep's loads, in the order in which they are put on the server."""
        from lostwax.evals.load.drive import Load as PointLoad

        num_prompts = self.num_prompts
        if num_prompts is None and self.duration is None:
            num_prompts = NUM_PROMPTS
        return [
            PointLoad(rate, concurrency, num_prompts, self.duration, self.seed)
            for rate in _rates(self.request_rate)
            for concurrency in self.concurrencies
        ]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The prompts.

    Parameters
    ----------
    input_len
        Tokens of each random prompt, behind its prefix; words of a text (default: 256).
    output_len
        Tokens of an answer, at most (default: 64; of a dataset: as its answer).
    prefix_len
        Tokens before them that prompts share (default: none).
    num_prefixes
        Prefixes that take turns (default: 1).
    prompts
        Random token ids, or text of random words (default: ids; for --endpoint chat text).
    vocab_size
        Random ids are below it (default: 1000, which any model has).
    dataset
        Ask the conversations of this file in ShareGPT's form instead.
    ignore_eos
        Ask for answers of the full length (lostwax, vLLM and SGLang take it).
    temperature
        0 is greedy.
    """

    input_len: Annotated[int | None, COMMON, Parameter(validator=within(1, MAX_LEN))] = None
    output_len: Annotated[int | None, COMMON, Parameter(validator=within(1, MAX_LEN))] = None
    dataset: Annotated[File | None, COMMON] = None
    ignore_eos: Annotated[Flag, COMMON] = False
    prefix_len: Annotated[int | None, ASKED, Parameter(validator=within(1, MAX_LEN))] = None
    num_prefixes: Annotated[int | None, ASKED, Parameter(validator=within(1, 4096))] = None
    prompts: Annotated[Literal["ids", "text"] | None, ASKED] = None
    vocab_size: Annotated[int | None, ASKED, Parameter(validator=within(4, 2**31 - 1))] = None
    temperature: Annotated[Temperature, ASKED] = 0.0

    def __post_init__(self) -> None:
        if self.dataset is not None:
            names = ("input_len", "prefix_len", "num_prefixes", "prompts", "vocab_size")
            if given := [_option(name) for name in names if getattr(self, name) is not None]:
                raise OptionRefused(
                    f"{' and '.join(given)} would change nothing of the prompts of --dataset;"
                    " leave one or the other out"
                )
        if self.num_prefixes is not None and self.prefix_len is None:
            raise OptionRefused("--num-prefixes goes with --prefix-len; give both or neither")

    def require_fits(self, endpoint: str) -> None:
        """OptionRefused where an endpoint cannot take the prompts, or an option means nothing."""
        if self.prompts == "ids" and endpoint == "chat":
            raise OptionRefused(
                "--prompts ids goes with --endpoint completions: messages of a chat are text"
            )
        if self.vocab_size is not None and self._kind(endpoint) == "text":
            raise OptionRefused("--vocab-size would change nothing of a text; leave it out")

    def _kind(self, endpoint: str) -> Literal["ids", "text"]:
        return self.prompts or ("text" if endpoint == "chat" else "ids")

    def make(self, endpoint: str, seed: int) -> Iterator[Prompt]:
        """Prompts without end. Reads the dataset, and raises TaskError where that is none."""
        from lostwax.backends.runtime.say import say
        from lostwax.evals.load.conversations import read_conversations
        from lostwax.evals.load.prompts import RandomPrompts

        if self.dataset is not None:
            found = read_conversations(self.dataset, self.output_len, seed)
            say(f"{self.dataset}: {len(found.prompts)} prompts, {found.left_out} left out")
            return iter(found)
        random = RandomPrompts(
            kind=self._kind(endpoint),
            input_len=self.input_len or INPUT_LEN,
            output_len=self.output_len or OUTPUT_LEN,
            prefix_len=self.prefix_len or 0,
            num_prefixes=self.num_prefixes or 1,
            vocab_size=self.vocab_size or VOCAB_SIZE,
            seed=seed,
        )
        return iter(random)


def command_line(*groups: Server | Load | Asked) -> str:
    """The command that asks the same again: options that were not given are left out."""
    words = ["lostwax", "bench", "serve"]
    for group in groups:
        for field in fields(group):
            value = getattr(group, field.name)
            if value != field.default:
                words += [_option(field.name)] + ([] if value is True else [str(value)])
    return shlex.join(words)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
