"""The options of `lostwax eval`, by what they are about. Runs nothing.

`Subject` is what is judged, `Asked` what is asked, `Changes` how it is sampled, `Course` the run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from lostwax.evals.task import Sampling, Task

Flag = Annotated[bool, Parameter(negative=())]


class NothingToAsk(ValueError):
    """Options do not go together; the message says which."""


@Parameter(name="*", group="What is judged")
@dataclass(frozen=True, slots=True)
class Subject:
    """The model: a server, or an artifact in this process (default: the default model).

    Parameters
    ----------
    url
        An OpenAI-compatible server, such as http://127.0.0.1:8000.
    model
        The model's name on the server, where it serves several.
    api_key_file
        A file with the server's API key.
    artifact
        An artifact folder, or a checkpoint folder (compiled to PATH.TARGET-DTYPE.lostwax).
    checkpoint
        Where the artifact's checkpoint lies, if not where it was when compiled.
    cache
        Where the default model's artifact is kept.
    target
        What to compile a checkpoint for.
    dtype
        What to compile a checkpoint in.
    drafts
        Tokens to draft between two decode steps.
    num_pages
        Pages of cache.
    threads
        Threads of a CPU engine.
    """

    url: str | None = None
    model: str | None = None
    api_key_file: Path | None = None
    artifact: Path | None = None
    checkpoint: Path | None = None
    cache: Path | None = None
    target: str = "cpu"
    dtype: Literal["fp32", "bf16"] | None = None
    drafts: int | None = None
    num_pages: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.url is not None and self.artifact is not None:
            raise NothingToAsk("give --url or --artifact, not both")
        if self.url is None and (self.model is not None or self.api_key_file is not None):
            raise NothingToAsk("--model and --api-key-file go with --url")
        if self.artifact is None and self.checkpoint is not None:
            raise NothingToAsk(
                "--checkpoint goes with an artifact; to judge a checkpoint give its folder as"
                " --artifact"
            )


@Parameter(name="*", group="What is asked")
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
        Solved questions before each question of gsm8k.
    tasks
        Only these of the named tasks, with commas between.
    limit
        Only the first so many examples of each task.
    thinking
        Ask in thinking mode or not (gpqa and aime think; task files say it themselves).
    endpoint
        chat: /v1/chat/completions. completions: messages are rendered by V3.2's encoding. auto:
        chat where messages have neither tools nor a response format.
    """

    data: Path | None = None
    train: Path | None = None
    shots: int = 8
    tasks: str = ""
    limit: int | None = None
    thinking: bool | None = None
    endpoint: Literal["auto", "chat", "completions"] = "auto"

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise NothingToAsk("--limit must be at least 1")

    def find(self, names: tuple[str, ...]) -> list[Task]:
        """The tasks that are named."""
        import lostwax
        from lostwax.evals.suites.by_name import Sources, find_tasks

        sources = Sources(
            Path(lostwax.__file__).parent / "models" / "tiny" / "tasks",
            data=self.data,
            train=self.train,
            shots=self.shots,
            thinking=self.thinking,
            chat=self.endpoint == "chat",
        )
        return find_tasks(names, sources, [n for n in self.tasks.split(",") if n])


@Parameter(name="*", group="How it is sampled (default: as the task says)")
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

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    repeats: int | None = None
    seed: int | None = None

    def of(self, sampling: Sampling) -> Sampling:
        """A task's sampling with these changes."""
        given = {name: getattr(self, name) for name in self.__slots__}
        return replace(sampling, **{k: v for k, v in given.items() if v is not None})


@Parameter(name="*", group="How it is run")
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
        A folder that keeps every finished sample and the report; a run that was stopped goes on.
    restart
        Forget the samples that the folder holds.
    """

    concurrency: int = 8
    timeout: float = 600.0
    retries: int = 8
    out: Path | None = None
    restart: Flag = False
