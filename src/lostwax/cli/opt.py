"""`lostwax opt`: runs passes over a module's text. Knows parsing and diagnostics, no checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path

from xdsl.parser import Parser
from xdsl.utils.exceptions import DiagnosticException, ParseError

from lostwax.ir.dialects import context
from lostwax.ir.passes import PASSES, UnknownPass, find_pass
from lostwax.ir.passes import pipeline as pipelines


def opt(
    file: str = "-",
    /,
    *,
    passes: str = "",
    list_passes: bool = False,
    dump_dir: Path | None = None,
) -> None:
    """Verify a module, run passes over it, print it.

    Parameters
    ----------
    file
        An .mlir file, or - for standard input.
    passes
        What to run, such as 'assign-formats{dtype=bf16},specialise{entry=decode},clean-up'.
        Empty: parse, verify and print.
    list_passes
        Print every pass with its options and its reason, and stop.
    dump_dir
        Write one .mlir file after each pass into this folder.
    """
    if list_passes:
        print(_pass_list())
        return
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
        pipeline = pipelines.parse(passes)
        module = Parser(context(), text, "<stdin>" if file == "-" else file).parse_module()
        print(pipelines.run(module, pipeline, dump_dir))
    except (DiagnosticException, ParseError, UnknownPass, ValueError, OSError) as error:
        print(f"lostwax opt: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def _pass_list() -> str:
    """A line a pass: name, options with defaults, reason."""
    from xdsl.passes import get_pass_option_infos

    lines: list[str] = []
    for name in PASSES:
        options = " ".join(
            f"{o.name}={o.default_value or '...'}" for o in get_pass_option_infos(find_pass(name))
        )
        lines.append(f"{name}{{{options}}}\n    {pipelines.REASONS[name]}")
    return "\n".join(lines)
