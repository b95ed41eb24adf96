"""Applies JSON Schemas to values in a process of its own. Knows lines of JSON, no task.

A line holds [schema, value]; the answer is {"fault": text or null}, or {"refused": text} where the
schema is the culprit. Whoever takes longer than the limit is ended by the system's clock, which
needs no interpreter, and so holds also where nobody is left to end this process.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from typing import Any

from jsonschema.exceptions import SchemaError
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from lostwax.ir.contract.one_line import one_line

MAX_MEMORY_BYTES = 2 * 2**30
"""Of addresses; a schema and a value of the longest line take a tenth."""
MAX_FAULT = 200


def run(limit_s: float) -> None:
    """Answer lines until there are no more."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = MAX_MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MAX_MEMORY_BYTES, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        answer = json.dumps(_answer(line)).encode()
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.buffer.write(answer + b"\n")
        sys.stdout.buffer.flush()


def _answer(line: bytes) -> dict[str, str | None]:
    try:
        schema, value = json.loads(line)
        made = validator_for(schema)
        made.check_schema(schema)
        # An empty registry: a $ref reaches no network.
        return {"fault": _fault(made(schema, registry=Registry()), value)}
    except SchemaError as error:
        return {"refused": _said(f"the schema is no JSON Schema: {error.message}")}
    except Unresolvable as error:
        missing = error.ref or error  # an anchor is named by the error alone
        return {"refused": _said(f"the schema refers to what it does not hold: {missing}")}
    except RecursionError:
        return {"refused": "the schema or the value is nested too deeply to be looked at"}
    except MemoryError:
        return {"refused": "it takes too much memory to be looked at"}
    except Exception as error:  # a $ref to what is no schema meets code that expects one
        name = type(error).__name__
        return {"refused": _said(f"the schema cannot be applied ({name}: {error})")}


def _fault(validator: Validator, value: Any) -> str | None:
    try:
        for error in validator.iter_errors(value):
            return _said(f"{error.json_path}: {error.message}")
    except OverflowError as error:  # multipleOf divides integers of any size as floats
        return _said(f"a number cannot be looked at: {error}")
    return None


def _said(text: str) -> str:
    return one_line(text, MAX_FAULT)


if __name__ == "__main__":
    run(float(sys.argv[1]))
