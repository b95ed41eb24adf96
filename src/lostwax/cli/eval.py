"""`lostwax eval`: what a model answers to tasks, graded. Knows options and progress, no grader."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from lostwax.cli.eval_options import Asked, Changes, Course, Subject

if TYPE_CHECKING:
    from lostwax.evals.connect import Served
    from lostwax.evals.report import Report, TaskReport
    from lostwax.evals.run import Runner
    from lostwax.evals.send import Patience
    from lostwax.evals.task import Sampling, Task


def eval(
    *names: Annotated[str, Parameter(name="TASK")],
    subject: Subject = Subject(),  # noqa: B008  (they are frozen)
    asked: Asked = Asked(),  # noqa: B008
    changes: Changes = Changes(),  # noqa: B008
    course: Course = Course(),  # noqa: B008
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
    from lostwax.evals.send import Patience

    if list_:
        _list(asked.find(names) if names else [])
        return
    tasks = asked.find(names or ("tiny",))
    samplings = [changes.of(task.sampling) for task in tasks]
    patience = Patience(course.timeout, course.retries)
    try:
        connecting, facts = _connecting(subject)
        asking = _run(tasks, samplings, connecting, facts, patience, asked, course)
        report = asyncio.run(asking)
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
    tasks: list[Task],
    samplings: list[Sampling],
    connecting: AbstractAsyncContextManager[Served],
    facts: dict[str, Any],
    patience: Patience,
    asked: Asked,
    course: Course,
) -> Report:
    import lostwax
    from lostwax.cli.eval_progress import Progress
    from lostwax.evals.report import Report
    from lostwax.evals.run import Runner
    from lostwax.evals.send import Sender

    async with connecting as served:
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


def _connecting(subject: Subject) -> tuple[AbstractAsyncContextManager[Served], dict[str, Any]]:
    """What is judged, with the facts that decide its answers beside its name.

    Compiles and loads before any loop runs: asyncio.run keeps Ctrl-C until the next await.
    """
    from lostwax.evals.connect import artifact_facts, by_url, in_process, read_key

    if subject.url is not None:
        key = None if subject.api_key_file is None else read_key(subject.api_key_file)
        return by_url(subject.url, model=subject.model, key=key), {}
    from lostwax.cli.default_model import NAME, default_artifact, default_checkpoint
    from lostwax.cli.named_artifact import named_artifact

    target, drafts = subject.target, subject.drafts or 0
    if is_default := subject.artifact is None:
        artifact = default_artifact(
            cache=subject.cache, target=target, dtype=subject.dtype, drafts=drafts
        )
    else:
        artifact = named_artifact(subject.artifact, target, subject.dtype or "bf16", drafts)
    checkpoint = default_checkpoint() if is_default else subject.checkpoint
    connecting = in_process(
        artifact,
        checkpoint=checkpoint,
        name=NAME if is_default else None,
        num_pages=subject.num_pages,
        threads=subject.threads,
        drafts=subject.drafts,
    )
    return connecting, artifact_facts(artifact, checkpoint)
