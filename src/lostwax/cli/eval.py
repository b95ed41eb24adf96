"""`lostwax eval`: what a model answers to tasks, graded. Knows options and progress, no grader."""

from __future__ import annotations

import asyncio
import os
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from lostwax.backends.runtime.say import result, result_json, say
from lostwax.cli.default_model import cache_folder
from lostwax.cli.eval_options import Asked, Changes, Course, Subject, require_listed
from lostwax.cli.option_types import Flag, Json

if TYPE_CHECKING:
    from lostwax.cli.eval_results import Results
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
    list_: Annotated[Flag, Parameter(name="--list")] = False,
    json_: Json = False,
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
    from lostwax.cli.eval_results import Results
    from lostwax.evals.report import table
    from lostwax.evals.send import Patience

    if list_:
        require_listed(names, subject, asked, changes, course, is_json=json_)
        _list(asked.find(names) if names else [])
        return
    tasks = asked.find(names or ("tiny",))
    samplings = [changes.of(task.sampling) for task in tasks]
    patience = Patience(course.timeout, course.retries)
    results = Results(course.out, cache_folder(subject.cache, os.environ))
    try:
        connecting, facts = _connecting(subject)
        asking = _run(tasks, samplings, connecting, facts, patience, asked, course, results)
        report = asyncio.run(asking)
    except KeyboardInterrupt:
        say(results.kept)
        raise
    encoded = msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"
    results.close(encoded, is_complete=not report.errors)
    if json_:
        result_json(msgspec.to_builtins(report), indent=1)
    else:
        for line in table(report):
            result(line)
    if report.errors:
        raise SystemExit(1)


def _list(tasks: list[Task]) -> None:
    from lostwax.evals.suites.by_name import SUITES

    if not tasks:
        for name, text in SUITES.items():
            result(f"{name:<12} {text}")
    for task in tasks:
        kinds = sorted({example.kind for example in task.examples})
        result(f"{task.name:<20} {len(task.examples):>6} examples  {', '.join(kinds)}")


async def _run(
    tasks: list[Task],
    samplings: list[Sampling],
    connecting: AbstractAsyncContextManager[Served],
    facts: dict[str, Any],
    patience: Patience,
    asked: Asked,
    course: Course,
    results: Results,
) -> Report:
    import lostwax
    from lostwax.cli.eval_progress import Progress
    from lostwax.evals.report import Report
    from lostwax.evals.run import Runner
    from lostwax.evals.send import Sender

    async with connecting as served:
        say(f"asking {served.model} ({served.source})")
        settings = {"model": served.model, "endpoint": asked.endpoint, **facts}
        # A server's address is no setting of a sample, but two servers are never taken for one.
        results.open(tasks, samplings, settings | {"of": str(served.http.base_url)})
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
                kept = _Kept(results.folder, settings, restart=course.restart)
                reports.append(await _run_task(runner, task, sampling, asked.limit, kept))
        said = {"endpoint": asked.endpoint, "limit": asked.limit, **facts}
        said |= {"concurrency": course.concurrency, "timeout_s": course.timeout}
        return Report(
            lostwax=lostwax.__version__,
            model=served.model,
            source=served.source,
            settings=said,
            tasks=reports,
        )


@dataclass(frozen=True, slots=True)
class _Kept:
    """Where samples are kept, if anywhere, under which settings."""

    folder: Path | None
    settings: dict[str, Any]
    restart: bool


async def _run_task(
    runner: Runner, task: Task, sampling: Sampling, limit: int | None, kept: _Kept
) -> TaskReport:
    """One task; its samples are kept beside its settings."""
    from lostwax.evals.report import task_report
    from lostwax.evals.samples import open_samples

    if kept.folder is None:
        return task_report(task.name, sampling, await runner.run(task, sampling, limit))
    settings: dict[str, Any] = msgspec.to_builtins(sampling) | kept.settings
    path = kept.folder / f"{task.name}.samples.jsonl"
    with open_samples(path, settings, restart=kept.restart) as file:
        if file.found:
            say(
                f"{task.name}: going on with {len(file.found)} samples of {kept.folder}"
                " (--restart forgets them)"
            )
        outcome = await runner.run(task, sampling, limit, file)
    return task_report(task.name, sampling, outcome)


def _connecting(subject: Subject) -> tuple[AbstractAsyncContextManager[Served], dict[str, Any]]:
    """What is judged, with the facts that decide its answers beside its name.

    Compiles and loads before any loop runs: asyncio.run keeps Ctrl-C until the next await.
    """
    from lostwax.evals.connect import artifact_facts, by_url, in_process, read_key

    if subject.url is not None:
        key = None if subject.api_key_file is None else read_key(subject.api_key_file)
        return by_url(subject.url, model=subject.model, key=key), {}
    from lostwax.backends.runtime.artifact_reader import ArtifactReader
    from lostwax.cli.checked_model import require_checkpoint, require_fits, require_runnable
    from lostwax.cli.default_model import NAME, default_artifact, default_checkpoint
    from lostwax.cli.default_target import DEFAULT_TARGET
    from lostwax.cli.named_artifact import named_artifact

    require_runnable(subject.artifact, subject.target)
    target, drafts = subject.target or DEFAULT_TARGET, subject.drafts or 0
    if is_default := subject.artifact is None:
        artifact = default_artifact(
            cache=subject.cache, target=target, dtype=subject.dtype, drafts=drafts
        )
    else:
        artifact = named_artifact(subject.artifact, target, subject.dtype or "bf16", drafts)
    require_fits(artifact, drafts=subject.drafts, num_pages=subject.num_pages)
    checkpoint = default_checkpoint() if is_default else subject.checkpoint
    require_checkpoint(ArtifactReader(artifact), checkpoint)
    say(f"loading {artifact}")
    connecting = in_process(
        artifact,
        checkpoint=checkpoint,
        name=NAME if is_default else None,
        num_pages=subject.num_pages,
        threads=subject.threads,
        drafts=subject.drafts,
        prefix_cache=not subject.disable_radix_cache,
    )
    return connecting, artifact_facts(artifact, checkpoint)
