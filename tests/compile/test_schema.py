"""A file of an artifact does not change its form under the number of the old one."""

from __future__ import annotations

import hashlib
import json

import msgspec

from lostwax.ir.contract.artifact import SCHEMA, CheckpointNote, Manifest
from lostwax.ir.contract.choice import Choices
from lostwax.ir.contract.kernel import KernelNote
from lostwax.ir.contract.probe import Probes
from lostwax.ir.contract.program import Program
from lostwax.ir.contract.weights import WeightPlan

FORMS = {11: "e0aebf52f778638f"}
"""The digest of all structures by the schema's number. Where this fails: raise SCHEMA, say there
what changed, and put the new digest here; an older artifact is then refused as what it is."""


def forms() -> str:
    """Names, types, bounds and defaults of every field that an artifact's files have."""
    kinds = (Manifest, CheckpointNote, Choices, KernelNote, Probes, Program, WeightPlan)
    _, components = msgspec.json.schema_components(kinds)
    plain = {name: _without_words(each) for name, each in components.items()}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def _without_words(node: object) -> object:
    if isinstance(node, dict):
        return {k: _without_words(v) for k, v in node.items() if k not in ("description", "title")}
    return [_without_words(each) for each in node] if isinstance(node, list) else node


def test_the_forms_are_those_of_the_schema() -> None:
    assert FORMS[SCHEMA] == forms()
