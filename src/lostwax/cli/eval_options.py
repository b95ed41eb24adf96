"""The options of `lostwax eval`, by what they are about. Runs nothing.

`Subject` is what is judged, `Asked` what is asked, `Changes` how it is sampled, `Course` the run.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from lostwax.cli.checked_model import require_used
from lostwax.cli.named_paths import Checkpoint, File, Model, OutFolder
from lostwax.cli.option_types import (
    Count,
    Drafts,
    Flag,
    Name,
    Pages,
    Seed,
    TargetName,
    Temperature,
    Threads,
    TopP,
    Url,
    above_zero,
    within,
)

if TYPE_CHECKING:
    from lostwax.evals.task import Sampling, Task


COMMON = Parameter(group="Parameters")
"""Shown by `--help`, which only names those of the other groups."""
SUBJECT = Parameter(group=Group("What is judged", sort_key=6))
ASKED = Parameter(group=Group("What is asked", sort_key=7))
SAMPLED = Group("How it is sampled (default: as the task says)", sort_key=8)
COURSE = Parameter(group=Group("How it is run", sort_key=9))


class NothingToAsk(ValueError):
    """Options do not go together; the message says which."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Subject:
    """The model: a server, or an artifact in this process (default: the default model).

    Parameters
    ----------
    url
        A server of OpenAI's interface, such as http://HOST:8000.
    model
        The model's name there, where it serves several.
    api_key_file
        A file with the server's API key.
    artifact
        The folder of an artifact or of a checkpoint. A checkpoint is compiled first, to
        PATH.TARGET-DTYPE.lostwax.
    checkpoint
        Where the artifact's checkpoint lies, if not where it was when compiled.
    cache
        Where the default model's artifact is kept.
    target
        What to compile a checkpoint for (default: cpu).
    dtype
        What to compile a checkpoint in (default: bf16; the default model on the CPU: fp32).
    drafts
        Tokens to draft between two decode steps.
    num_pages
        Pages of cache.
    threads
        Threads of a CPU engine (default: as in `lostwax serve`).
    disable_radix_cache
        Run every prompt whole, as in `lostwax serve`.
    """

    url: Annotated[Url | None, COMMON] = None
    model: Annotated[Name | None, COMMON] = None
    artifact: Annotated[Model | None, COMMON] = None
    api_key_file: Annotated[File | None, SUBJECT] = None
    checkpoint: Annotated[Checkpoint | None, SUBJECT] = None
    cache: Annotated[OutFolder | None, SUBJECT] = None
    target: Annotated[TargetName | None, SUBJECT] = None
    dtype: Annotated[Literal["fp32", "bf16"] | None, SUBJECT] = None
    drafts: Annotated[Drafts | None, SUBJECT] = None
    num_pages: Annotated[Pages | None, SUBJECT] = None
    threads: Annotated[Threads | None, SUBJECT] = None
    disable_radix_cache: Annotated[Flag, SUBJECT] = False

    def __post_init__(self) -> None:
        if self.url is not None:
            self._require_server()
            return
        if self.model is not None or self.api_key_file is not None:
            raise NothingToAsk("--model and --api-key-file go with --url")
        require_used(
            self.artifact,
            checkpoint=self.checkpoint,
            cache=self.cache,
            target=self.target,
            dtype=self.dtype,
        )

    def _require_server(self) -> None:
        """Options that say how a model is started mean nothing to a server that runs."""
        if self.artifact is not None:
            raise NothingToAsk("give --url or --artifact, not both")
        ours = ("checkpoint", "cache", "target", "dtype", "drafts", "num_pages", "threads")
        given = [f"--{n.replace('_', '-')}" for n in ours if getattr(self, n) is not None]
        given += ["--disable-radix-cache"] * self.disable_radix_cache
        if given:
            raise NothingToAsk(
                f"{' and '.join(given)} would change nothing of the server at {self.url}, which"
                " runs already; leave it out"
            )


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Asked:
    """The tasks' files and how much of them.

    Parameters
    ----------
    data
        The questions of gsm8k, gpqa or aime.
    train
        GSM8K's training file, which the shots come from.
    shots
        Solved questions before each question of gsm8k (default: 8).
    tasks
        Only these of the named tasks, with commas between.
    limit
        Only the first so many examples of each task.
    thinking
        Ask in thinking mode or not (gpqa and aime think; task files say it themselves).
    endpoint
        chat: /v1/chat/completions, with tools in their own field. completions: messages are
        rendered by V3.2's encoding. auto: chat where messages have neither tools nor a response
        format.
    """

    tasks: Annotated[str | None, COMMON] = None
    limit: Annotated[Count | None, COMMON] = None
    data: Annotated[File | None, COMMON] = None
    train: Annotated[File | None, ASKED] = None
    shots: Annotated[int | None, ASKED, Parameter(validator=within(0, 64))] = None
    thinking: Annotated[bool | None, ASKED] = None
    endpoint: Annotated[Literal["auto", "chat", "completions"], ASKED] = "auto"

    def __post_init__(self) -> None:
        if not all(self._only()):
            raise NothingToAsk(
                f"--tasks {self.tasks!r} has an empty name; give names with commas between, or"
                " leave it out to ask all"
            )

    def _only(self) -> list[str]:
        return [] if self.tasks is None else [name.strip() for name in self.tasks.split(",")]

    def _require_used(self, names: tuple[str, ...]) -> None:
        """Options of the benchmarks mean nothing to other tasks."""
        of_data = ("gsm8k", "gpqa", "aime")
        uses = {
            "data": of_data,
            "train": ("gsm8k",),
            "shots": ("gsm8k",),
            "thinking": of_data,
        }
        for option, tasks in uses.items():
            if getattr(self, option) is not None and not set(tasks) & set(names):
                raise NothingToAsk(
                    f"--{option} goes with {' or '.join(tasks)}, and {', '.join(names)} was named;"
                    " leave it out"
                )

    def find(self, names: tuple[str, ...]) -> list[Task]:
        """The tasks that are named."""
        self._require_used(names)
        import lostwax
        from lostwax.evals.suites.by_name import Sources, find_tasks

        sources = Sources(
            Path(lostwax.__file__).parent / "models" / "tiny" / "tasks",
            data=self.data,
            train=self.train,
            shots=8 if self.shots is None else self.shots,
            thinking=self.thinking,
            chat=self.endpoint == "chat",
        )
        return find_tasks(names, sources, self._only())


@Parameter(name="*", group=SAMPLED)
@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of the tasks' sampling.

    Parameters
    ----------
    temperature
        0 is greedy.
    top_p
        Draw from the likeliest tokens whose probabilities add up to this; 1 draws from all.
    max_tokens
        Tokens of an answer, at most.
    repeats
        How often each example is asked, each time with another seed.
    seed
        Of the first repeat, and of shuffled options.
    """

    temperature: Temperature | None = None
    top_p: TopP | None = None
    max_tokens: Annotated[int | None, Parameter(validator=within(1, 2**20))] = None
    repeats: Annotated[int | None, Parameter(validator=within(1, 1024))] = None
    seed: Seed | None = None

    def of(self, sampling: Sampling) -> Sampling:
        """A task's sampling with these changes."""
        given = {name: getattr(self, name) for name in self.__slots__}
        return replace(sampling, **{k: v for k, v in given.items() if v is not None})


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Course:
    """The run itself.

    Parameters
    ----------
    concurrency
        Requests at a time.
    timeout
        Seconds that one request may take.
    retries
        How often to try again after 429, 503 or where no connection can be made.
    out
        A folder that keeps the report and every sample. Default: the user's cache, which keeps
        them until the run is complete; one that was stopped goes on.
    restart
        Forget the samples of an earlier run.
    """

    out: Annotated[OutFolder | None, COMMON] = None
    concurrency: Annotated[int, COURSE, Parameter(validator=within(1, 4096))] = 8
    timeout: Annotated[float, COURSE, Parameter(validator=above_zero(86_400))] = 600.0
    retries: Annotated[int, COURSE, Parameter(validator=within(0, 100))] = 8
    restart: Annotated[Flag, COURSE] = False


_READ_BY_LIST = ("tasks", "data", "train", "shots", "thinking")
"""Options that say which examples there are, once a task is named."""


def require_listed(
    names: tuple[str, ...], *groups: Subject | Asked | Changes | Course, is_json: bool
) -> None:
    """NothingToAsk where an option changes nothing of what --list prints."""
    used = _READ_BY_LIST if names else ()
    given = [
        f"--{field.name.replace('_', '-')}"
        for group in groups
        for field in fields(group)
        if field.name not in used and getattr(group, field.name) != field.default
    ]
    given += ["--json"] * is_json
    if given:
        raise NothingToAsk(
            f"{' and '.join(given)} would change nothing of --list; leave one or the other out"
        )
