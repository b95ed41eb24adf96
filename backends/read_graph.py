"""Reads a graph of an artifact as a module of our dialects. Runs no pass."""

from __future__ import annotations

from xdsl.dialects import builtin
from xdsl.parser import Parser
from xdsl.utils.exceptions import ParseError, VerifyException

from lostwax.backends.runtime.artifact_reader import ArtifactError, ArtifactReader
from lostwax.ir.contract.one_line import one_line
from lostwax.ir.dialects import context


def read_graph(reader: ArtifactReader, name: str) -> builtin.ModuleOp:
    """The verified module of `graphs/NAME.mlir`; ArtifactError where it is none of ours."""
    file = f"graphs/{name}.mlir"

    def parse(text: str) -> builtin.ModuleOp:
        module = Parser(context(), text, file).parse_module()
        module.verify()
        return module

    try:
        return reader.text(file, parse)
    except (ParseError, VerifyException) as error:
        raise ArtifactError(
            f"{reader.folder / file} is damaged or foreign ({one_line(str(error))}): recompile the"
            " artifact"
        ) from error
