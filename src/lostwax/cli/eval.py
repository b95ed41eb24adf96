"""`lostwax eval`: what a model answers to tasks, graded. Knows options and progress, no grader."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

if TYPE_CHECKING:
    from lostwax.evals.connect import Served
    from lostwax.evals.report import Report, TaskReport
    from lostwax.evals.run import Runner
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
        Share of the likeliest tokens to draw from.
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
        How often to try again after 429, 503 or a refused connection.
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


def eval(
    *names: Annotated[str, Parameter(name="TASK")],
    subject: Subject = Subject(),
    asked: Asked = Asked(),
    changes: Changes = Changes(),
    course: Course = Course(),
    list_: Annotated[bool, Parameter(name="--list", negative=())] = False,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Ask a model the examples of tasks and grade its answers.

    Exits with 1 if a request failed: such samples are counted as errors, never left out silently.

    Parameters
    ----------
    names
        tiny (the default), gsm8k, gpqa, aime, or a task file in JSON Lines.
    list_
        List what can be named, and the examples of what is.
    json_
        Print the report as JSON on standard output.
    """
    from lostwax.evals.report import table

    if list_:
        _list(asked.find(names) if names else [])
        return
    tasks = asked.find(names or ("tiny",))
    try:
        report = asyncio.run(_run(tasks, subject, asked, changes, course))
    except KeyboardInterrupt:
        if course.out is not None:
            print(f"stopped; {course.out} holds what is finished", file=sys.stderr)
        raise
    encoded = msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"
    if course.out is not None:
        (course.out / "report.json").write_bytes(encoded)
    print(encoded.decode() if json_ else table(report))
    if report.errors:
        raise SystemExit(1)


def _list(tasks: list[Task]) -> None:
    from lostwax.evals.suites.by_name import SUITES

    if not tasks:
        for name, text in SUITES.items():
            print(f"{name:<12} {text}")
    for task in tasks:
        kinds = sorted({example.kind for example in task.examples})
        print(f"{task.name:<20} {len(task.examples):>6} examples  {', '.join(kinds)}")


async def _run(
    tasks: list[Task], subject: Subject, asked: Asked, changes: Changes, course: Course
) -> Report:
    import lostwax
    from lostwax.cli.eval_progress import Progress
    from lostwax.evals.report import Report
    from lostwax.evals.run import Runner
    from lostwax.evals.send import Patience, Sender

    samplings = [changes.of(task.sampling) for task in tasks]
    patience = Patience(course.timeout, course.retries)
    async with _connected(subject) as (served, facts):
        print(f"asking {served.model} ({served.source})", file=sys.stderr)
        reports: list[TaskReport] = []
        with Progress() as progress:
            runner = Runner(
                Sender(served.http, patience),
                served.model,
                asked.endpoint,
                course.concurrency,
                progress.told,
            )
            for task, sampling in zip(tasks, samplings, strict=True):
                progress.begin(task.name, len(task.examples[: asked.limit]) * sampling.repeats)
                reports.append(await _run_task(runner, task, sampling, facts, asked, course))
        settings = {"endpoint": asked.endpoint, "limit": asked.limit, **facts}
        settings |= {"concurrency": course.concurrency, "timeout_s": course.timeout}
        return Report(
            lostwax=lostwax.__version__,
            model=served.model,
            source=served.source,
            settings=settings,
            tasks=reports,
        )


async def _run_task(
    runner: Runner,
    task: Task,
    sampling: Sampling,
    facts: dict[str, Any],
    asked: Asked,
    course: Course,
) -> TaskReport:
    """One task; with --out its samples are kept beside its settings."""
    from lostwax.evals.report import task_report
    from lostwax.evals.samples import open_samples

    if course.out is None:
        return task_report(task.name, sampling, await runner.run(task, sampling, asked.limit))
    settings: dict[str, Any] = msgspec.to_builtins(sampling)
    settings |= {"model": runner.model, "endpoint": runner.endpoint, **facts}
    path = course.out / f"{task.name}.samples.jsonl"
    with open_samples(path, settings, restart=course.restart) as file:
        outcome = await runner.run(task, sampling, asked.limit, file)
    return task_report(task.name, sampling, outcome)


@contextlib.asynccontextmanager
async def _connected(subject: Subject) -> AsyncGenerator[tuple[Served, dict[str, Any]]]:
    """What is judged, with the facts that decide its answers beside its name."""
    from lostwax.evals.connect import by_url, in_process, read_key

    if subject.url is not None:
        key = None if subject.api_key_file is None else read_key(subject.api_key_file)
        connecting = by_url(subject.url, model=subject.model, key=key)
        async with connecting as served:
            yield served, {}
        return
    from lostwax.backends.runtime.artifact_reader import ArtifactReader
    from lostwax.cli.default_model import NAME, default_artifact, default_checkpoint
    from lostwax.cli.named_artifact import named_artifact

    target, drafts = subject.target, subject.drafts or 0
    if is_default := subject.artifact is None:
        artifact = default_artifact(
            cache=subject.cache, target=target, dtype=subject.dtype, drafts=drafts
        )
    else:
        artifact = named_artifact(subject.artifact, target, subject.dtype or "bf16", drafts)
    digest = ArtifactReader(artifact).manifest.digest
    connecting = in_process(
        artifact,
        checkpoint=default_checkpoint() if is_default else subject.checkpoint,
        name=NAME if is_default else None,
        num_pages=subject.num_pages,
        threads=subject.threads,
        drafts=subject.drafts,
    )
    async with connecting as served:
        yield served, {"artifact": digest}
