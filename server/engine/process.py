"""The engine process: loads a runtime, warms it up, then steps for ever. Knows no HTTP.

Run as `python -m lostwax.server.engine`; the gateway starts it and reads its events. `launch.py`
starts one such process a rank: rank 0 talks to the gateway, the others run what it tells.
"""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from lostwax.backends.runtime.error_sentence import described, sentence_of
from lostwax.backends.runtime.phases import Phases
from lostwax.backends.runtime.torch_extensions import torch_loading
from lostwax.ir.contract.masks import num_masks
from lostwax.server.engine.failure_log import FailureLog
from lostwax.server.engine.log_lines import LogFormat, LogLines
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Event, Phase
from lostwax.server.engine.options import SERVED, EngineOptions
from lostwax.server.engine.parent import end_with_parent
from lostwax.server.engine.runtime import Runtime
from lostwax.server.engine.stats import StatsClock
from lostwax.server.engine.wire import EngineWire
from lostwax.server.grammar.grammars import Grammars

if TYPE_CHECKING:
    from lostwax.backends.runtime.load import Runtime as LoadedRuntime

TOKENIZER = "tokenizer.json"


def run_engine(
    load: Callable[[Callable[[str], None]], Runtime],
    address: str,
    options: EngineOptions = SERVED,
    log: LogLines | None = None,
    tokenizers: Sequence[Path] = (),
) -> None:
    """Serve the runtime that `load` gives to the gateway at `address`, until the process ends.

    The tokenizer, which grammars need, is looked for in the folders `tokenizers`.

    `load` tells the function that it is given when each of its phases begins; the gateway hears of
    them, and `log`, if there is one, of how long they took.
    """
    lines = log or LogLines(source="engine")
    phases = Phases(write=lines.say)
    with EngineWire(address, lines.say) as wire:

        def begin(phase: str) -> None:
            if log:
                phases(phase)
            wire.send([Phase(phase)])

        runtime = load(begin)
        log_failure, depth = FailureLog(lines.failure), int(runtime.overlaps and options.overlap)
        grammars = _grammars(runtime, tokenizers, log_failure)
        core = EngineCore(runtime, options, log_failure, depth, grammars=grammars)
        begin("warm up")
        core.warm_up()
        phases.end()
        if log:
            log.say(core.capacity)
        wire.send([core.info])
        report = StatsClock() if options.reports else None
        if report is not None and report.is_due(is_busy=False):
            wire.send([core.stats])
        while True:
            events: list[Event] = []
            for command in wire.receive(wait=not (core.has_work or core.is_settling)):
                events += core.handle(command)
            wire.step_begins()
            events += core.step()
            wire.step_ends()
            is_busy, is_settling = core.has_work, core.is_settling
            if report is not None and report.is_due(is_busy=is_busy, is_settling=is_settling):
                events.append(core.stats)
            if events:
                wire.send(events)


def _grammars(runtime: Runtime, folders: Sequence[Path], log: FailureLog) -> Grammars | None:
    """Who follows grammars, where the model has a tokenizer and a token that ends answers."""
    limits, ends = runtime.limits, runtime.facts.eos_token_ids
    if not ends or not any(os.path.lexists(folder / TOKENIZER) for folder in folders):
        return None
    most = num_masks(limits.max_reqs, limits.max_drafts)
    return Grammars(folders, limits.vocab_size, ends[0], most, log=log)


def main(argv: Sequence[str] | None = None) -> None:
    """Serve a compiled artifact."""
    parser = argparse.ArgumentParser(prog="lostwax.server.engine")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--address", required=True, help="ZeroMQ address that the gateway binds")
    parser.add_argument("--parent", type=int, required=True, help="pid of who started this process")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--meeting", type=Path, help="file over which the ranks meet")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--num-pages", type=int)
    parser.add_argument("--host-pages", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--certificates", type=Path)
    parser.add_argument("--allow-compiled", action="store_true")
    parser.add_argument("--log-format", choices=get_args(LogFormat), default="text")
    EngineOptions.add_to(parser)
    options = parser.parse_args(argv)
    end_with_parent(options.parent)
    rank: int = options.rank
    log = LogLines(options.log_format, "engine")
    try:
        if rank == 0:
            run_engine(
                lambda begin: _load(options, log, begin),
                options.address,
                EngineOptions.of(options),
                log,
                [folder for folder in (options.artifact, options.checkpoint) if folder],
            )
        else:
            _follow(options, log)
    except Exception as error:
        if sentence_of(error) is None:
            raise
        if rank > 0:
            log.say(f"engine rank {rank}: {described(error)}")
        raise SystemExit(1) from None  # the gateway has its sentence, nobody needs a traceback


def _follow(options: argparse.Namespace, log: LogLines) -> None:
    """Run what rank 0 tells, as long as it lives."""
    with torch_loading():
        from lostwax.backends.runtime.gloo import part

    try:
        _load(options, log).follow()
    finally:
        part()


def _load(
    options: argparse.Namespace, log: LogLines, phases: Callable[[str], None] = lambda _: None
) -> LoadedRuntime:
    # Imported here: heartbeats already run meanwhile.
    phases("import runtime")
    with _no_collection(), torch_loading():  # torch only where the artifact calls its operators
        from lostwax.backends.runtime.boot_check import Admission
        from lostwax.backends.runtime.load import load

        if options.ranks > 1:
            _join_ranks(options)
        runtime = load(
            options.artifact,
            admission=Admission(options.certificates, options.allow_compiled, log.say),
            checkpoint=options.checkpoint,
            num_pages=options.num_pages,
            num_host_pages=options.host_pages,
            threads=options.threads,
            phases=phases,
            warn=log.say,
        )
    if options.threads is None:
        phases("choose threads")
        chosen = runtime.choose_threads()
        if chosen is not None and chosen.timed:
            log.say(chosen)
    return runtime


def _join_ranks(options: argparse.Namespace) -> None:
    from lostwax.backends.runtime.gloo import gather
    from lostwax.backends.runtime.require_target import collectives_of
    from lostwax.backends.runtime.usable_cores import usable_threads

    options.threads = options.threads or max(usable_threads() // options.ranks, 1)
    gather(options.meeting, options.rank, options.ranks, collectives_of(options.artifact))


@contextmanager
def _no_collection() -> Generator[None]:
    """Imports and programs make objects by the hundred thousand, all of which stay: do not look for
    garbage.

    It saves a tenth of torch's import, and every later collection the walk over them.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
