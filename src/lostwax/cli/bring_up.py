"""`lostwax bring-up`: all that can be known of a device in one run, kept in a folder to send back.

Doctor, compile, certify and bench in a row; each is a command of its own. Measures nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from lostwax.backends.runtime.say import result, result_lines, say
from lostwax.backends.runtime.whole_file import write_whole
from lostwax.cli.named_paths import REPORT, Artifact, Checkpoint, EmptyFolder
from lostwax.cli.option_types import OptionRefused, TargetName
from lostwax.cli.wrapped import wrapped

if TYPE_CHECKING:
    from lostwax.backends.proof.certify import Certified
    from lostwax.backends.records.report import ReportWriter
    from lostwax.cli.doctor import Findings

DOCTOR, SITES, BENCH, EVIDENCE = "doctor.json", "certify.jsonl", "bench", "certificates"
"""What the machine has, what became of each lowering, loads of the server, what was proven here."""
AT_ONCE, NUM_PROMPTS, INPUT_LEN, OUTPUT_LEN = "1,8", 8, 64, 32
"""The loads: small, so that they end in minutes on whatever comes."""


class NotBroughtUp(RuntimeError):
    """The device did not come through; the message says where, and what to send all the same."""


def bring_up(
    target: TargetName,
    /,
    *,
    out: Annotated[EmptyFolder, Parameter(name=["-o", "--out"])],
    artifact: Artifact | None = None,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Check a device and write a report to send back.

    Says what the machine has, compiles the model that comes with lostwax for the target, runs every
    lowering beside the fp64 reference, serves the model and measures it. Exits with 1 if anything
    is lacking or wrong; the report then says what.

    Parameters
    ----------
    target
        What the device is, such as rocm-gfx942.
    out
        The folder of the report; it must not exist or be empty.
    artifact
        An artifact of this target to run in place of the model that comes with lostwax.
    checkpoint
        Where its checkpoint lies, if not where it was when compiled.
    """
    if checkpoint is not None and artifact is None:
        raise OptionRefused("--checkpoint goes with --artifact; give both or neither")
    if artifact is not None:
        _require_made_for(artifact, target)
    out.mkdir(parents=True, exist_ok=True)
    _examine(target, out, compiles=artifact is None)
    if artifact is None:
        from lostwax.cli.default_model import default_artifact, default_checkpoint

        artifact, checkpoint = default_artifact(target=target), default_checkpoint()
    wrong = _certify(artifact, out, executes=_executes(target))
    if wrong:
        raise NotBroughtUp(
            f"{wrong} lowerings are wrong on this device, so nothing was served; {out / SITES} says"
            f" which. Send {out} back as it is"
        )
    _bench(artifact, checkpoint, out)
    result(f"{out}: the report; send it back: tar czf {out.name}.tar.gz {out}")


def _require_made_for(artifact: Path, target: str) -> None:
    from lostwax.backends.runtime.artifact_reader import ArtifactReader

    made_for = ArtifactReader(artifact).manifest.target.name
    if made_for != target:
        raise OptionRefused(
            f"{artifact} was compiled for {made_for}, and {target} was named; give an artifact of"
            f" it, or bring up {made_for}"
        )


def _examine(target: str, out: Path, *, compiles: bool) -> None:
    """Raises NotBroughtUp where the device is not here, or what compiles for it."""
    from lostwax.cli.doctor import device_not_opened, device_opened, examine

    known = examine(target, device_not_opened, loads_torch=False)  # both may end the process
    _write(out / DOCTOR, known)
    found = examine(target, device_opened)
    for line in found.lines():
        result_lines(wrapped(line))
    _write(out / DOCTOR, found)
    (health,) = found.targets
    checks = [*found.machine, *([health.compile] if compiles else []), health.run]
    lacking = [check for check in checks if not check.ok]
    if lacking:
        raise NotBroughtUp(
            f"{target} cannot be brought up here: {lacking[0].text}. {out / DOCTOR} says all that"
            " is lacking"
        )


def _write(path: Path, found: Findings) -> None:
    """In one step, which replaces a link that another has put there and does not follow it."""
    content = msgspec.json.format(msgspec.json.encode(found), indent=1)
    write_whole(path, content + b"\n")


def _executes(target: str) -> bool:
    from lostwax.backends.registry import find_target

    return find_target(target)[0].executes


def _certify(artifact: Path, out: Path, *, executes: bool) -> int:
    """Write the report; how many lowerings are wrong. Where nothing runs, what was chosen."""
    from lostwax.backends.records.report import ReportWriter

    report = ReportWriter(out / REPORT)
    if not executes:
        from lostwax.backends.proof.planned_records import planned_records

        records = 0
        for record in planned_records(artifact):
            report.add(record)
            records += 1
        result(f"{records} sites compiled, none ran: the target computes nothing")
        return 0
    from lostwax.backends.proof.certify import keep_evidence

    found = list(_certified(artifact, out, report))
    wrong = sum(each.certificate is None for each in found)
    result(f"{len(found)} sites, {wrong} wrong")
    if not wrong:
        (out / EVIDENCE).mkdir()
        say(str(keep_evidence(artifact, found, out / EVIDENCE)))
    return wrong


def _certified(artifact: Path, out: Path, report: ReportWriter) -> Iterator[Certified]:
    """Every site, once it is on the disk what became of it: its record first, then its line.

    So a kill between leaves no line of a right site without a record.
    """
    from lostwax.backends.proof.certify import certify_artifact
    from lostwax.backends.proof.chosen_candidates import count_sites
    from lostwax.cli.certify import certified_line
    from lostwax.cli.site_lines import site_lines

    with site_lines(out / SITES, count_sites(artifact)) as lines:
        for each in certify_artifact(artifact):
            if each.record is not None:
                report.add(each.record)
            lines.add(certified_line(each))
            if each.error is not None:
                say(f"WRONG {each.error}")
            yield each


def _bench(artifact: Path, checkpoint: Path | None, out: Path) -> None:
    """Serve the artifact and put the loads on it."""
    from lostwax.backends.runtime.artifact_reader import ArtifactReader
    from lostwax.cli.bench_options import Asked, Load, Server
    from lostwax.cli.bench_serve import bench_serve
    from lostwax.cli.served_child import served_child

    limits = ArtifactReader(artifact).manifest.limits
    asked = Asked(
        input_len=min(INPUT_LEN, limits.max_context // 4),
        output_len=min(OUTPUT_LEN, limits.max_context // 4),
        vocab_size=limits.vocab_size,
        ignore_eos=True,
    )
    load = Load(max_concurrency=AT_ONCE, num_prompts=NUM_PROMPTS)
    (out / EVIDENCE).mkdir(exist_ok=True)
    arguments = [str(artifact), "--certificates", str(out / EVIDENCE)]
    if checkpoint is not None:
        arguments += ["--checkpoint", str(checkpoint)]
    say("starting a server")
    with served_child(arguments) as url:
        bench_serve(server=Server(url=url), load=load, asked=asked, out=out / BENCH)
