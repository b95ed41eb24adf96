"""Asks a task's examples, some at a time, and grades what comes back. Knows no command line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from lostwax.evals.answer import InvalidAnswer, read_answer
from lostwax.evals.request import Endpoint, Request, build_request
from lostwax.evals.samples import Sample, SampleFile
from lostwax.evals.send import RequestFailed, RequestRefused, Sender
from lostwax.evals.task import Example, Sampling, Task, TaskError

MAX_CONCURRENCY = 4096
MAX_FAILED_IN_ROW = 32
"""So many failures without any answer between, and the server is taken to be gone."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample that got no answer."""

    id: str
    repeat: int
    fault: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """All samples of a task, those of earlier runs included, and what failed in this one."""

    samples: list[Sample]
    failures: list[Failure]
    resumed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Job:
    """One request to make."""

    example: Example
    repeat: int
    request: Request
    digest: str


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs tasks against one server. `told` hears of every sample and failure."""

    sender: Sender
    model: str
    endpoint: Endpoint = "auto"
    concurrency: int = 8
    told: Callable[[Sample | Failure], None] = lambda _: None
    _grading: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    def __post_init__(self) -> None:
        if not 1 <= self.concurrency <= MAX_CONCURRENCY:
            raise TaskError(f"concurrency must lie in 1..{MAX_CONCURRENCY}")

    async def run(
        self, task: Task, sampling: Sampling, limit: int | None, file: SampleFile | None = None
    ) -> Outcome:
        """Ask everything of a task that the file does not hold yet."""
        start = time.perf_counter()
        examples = task.examples[:limit]
        done: list[Sample] = []
        waiting: list[Job] = []
        for job in self.jobs(task, examples, sampling):
            found = file.found.get((job.example.id, job.repeat)) if file else None
            if found is None:
                waiting.append(job)
            elif found.digest == job.digest:
                done.append(found)
                self.told(found)
            else:
                raise TaskError(
                    f"{task.name}: {job.example.id} was asked otherwise when its sample was kept;"
                    " give --restart to forget the samples, or another --out"
                )
        resumed = len(done)
        failures = await self._ask_all(task, waiting, done, file)
        return Outcome(done, failures, resumed, time.perf_counter() - start)

    async def _ask_all(
        self, task: Task, jobs: list[Job], done: list[Sample], file: SampleFile | None
    ) -> list[Failure]:
        """Add the jobs' samples to `done`; the failures are the result."""
        failures: list[Failure] = []
        in_row = 0
        queue = iter(jobs)

        def failed(job: Job, fault: str) -> None:
            failures.append(Failure(job.example.id, job.repeat, fault))
            self.told(failures[-1])

        async def work() -> None:
            nonlocal in_row
            for job in queue:
                if in_row >= MAX_FAILED_IN_ROW:
                    failed(job, f"not asked: {MAX_FAILED_IN_ROW} requests in a row had failed")
                    continue
                try:
                    sample = await self._ask(task, job)
                except (RequestFailed, InvalidAnswer) as error:
                    in_row = 0 if isinstance(error, RequestRefused) else in_row + 1
                    failed(job, str(error))
                    continue
                in_row = 0
                if file is not None:
                    file.append(sample)
                done.append(sample)
                self.told(sample)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.concurrency, len(jobs))):
                    group.create_task(work())
        except ExceptionGroup as errors:
            # A request that fails because it was cancelled must not hide that the run was.
            if (asking := asyncio.current_task()) is not None and asking.cancelling():
                raise asyncio.CancelledError from errors
            raise errors.exceptions[0] from None
        return failures

    def jobs(self, task: Task, examples: tuple[Example, ...], sampling: Sampling) -> Iterator[Job]:
        """Every repeat of every example; all of an example's repeats before the next."""
        for original in examples:
            for repeat in range(sampling.repeats):
                example = task.vary(original, repeat, sampling.seed)
                request = build_request(example, sampling, self.model, repeat, self.endpoint)
                yield Job(example, repeat, request, request.digest(example))

    async def _ask(self, task: Task, job: Job) -> Sample:
        start = time.perf_counter()
        body, retries = await self.sender.post(job.request.path, job.request.body)
        seconds = time.perf_counter() - start
        answer, usage = read_answer(job.request, body)
        # In a thread, as other answers come meanwhile; one at a time, so that Ctrl-C waits for one.
        async with self._grading:
            grade = await asyncio.to_thread(task.grade, job.example, answer)
        best = job.example.completion
        return Sample(
            id=job.example.id,
            repeat=job.repeat,
            digest=job.digest,
            answer=answer,
            grade=grade,
            reference=msgspec.to_builtins(job.example.reference),
            is_exact=None if best is None else answer.text == best,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            seconds=round(seconds, 4),
            retries=retries,
        )
