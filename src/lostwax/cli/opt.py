"""`lostwax opt`: runs passes over a module's text. Knows parsing and diagnostics, no checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path

from xdsl.parser import Parser
from xdsl.passes import get_pass_option_infos
from xdsl.utils.exceptions import DiagnosticException, ParseError

from lostwax.backends.runtime.say import result_lines, say_lines
from lostwax.cli.named_paths import STDIN, ModuleFile, OutFolder
from lostwax.cli.option_types import Flag, OptionRefused
from lostwax.ir.dialects import context
from lostwax.ir.passes import PASSES, find_pass
from lostwax.ir.passes import pipeline as pipelines

SPLIT = "// -----\n"
DIAGNOSTICS = (DiagnosticException, ParseError, ValueError, OSError)


def opt(
    file: ModuleFile = STDIN,
    /,
    *,
    passes: str = "",
    list_passes: Flag = False,
    dump_dir: OutFolder | None = None,
    verify_diagnostics: Flag = False,
) -> None:
    """Verify a module, run passes over it, print it.

    Parameters
    ----------
    file
        An .mlir file, or - for standard input.
    passes
        What to run, with commas between, such as 'specialise{segment=decode},clean-up'.
        Empty: parse, verify and print.
    list_passes
        Print every pass with its options and its reason, and stop.
    dump_dir
        Write one .mlir file after each pass into this folder.
    verify_diagnostics
        Split the input at `// -----` lines and print each part's module or error, never failing.
    """
    if list_passes:
        given = (file != STDIN, bool(passes), dump_dir is not None, verify_diagnostics)
        if any(given):
            raise OptionRefused("--list-passes reads nothing: leave out the file and other options")
        result_lines(_pass_list())
        return
    try:
        text = sys.stdin.read() if file == STDIN else file.read_text()
        if not verify_diagnostics:
            result_lines(_transform(text, str(file), passes, dump_dir))
            return
    except DIAGNOSTICS as error:
        say_lines(f"lostwax opt: {error}")
        raise SystemExit(1) from None
    for part in text.split(SPLIT):
        try:
            result_lines(_transform(part, str(file), passes, dump_dir))
        except DIAGNOSTICS as error:
            result_lines(str(error))


def _transform(text: str, file: str, passes: str, dump_dir: Path | None) -> str:
    """The text of the module after the passes."""
    pipeline = pipelines.parse(passes)
    module = Parser(context(), text, "<stdin>" if file == "-" else file).parse_module()
    return str(pipelines.run(module, pipeline, dump_dir))


def _pass_list() -> str:
    """A line a pass: name, options with defaults, reason."""
    lines: list[str] = []
    for name in PASSES:
        infos = get_pass_option_infos(find_pass(name))
        options = " ".join(f"{o.name}={o.default_value or '...'}" for o in infos)
        shown = f"{name}{{{options}}}" if options else name
        lines.append(f"{shown}\n    {pipelines.REASONS[name]}")
    return "\n".join(lines)
