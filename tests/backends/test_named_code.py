"""A name from a file leads to functions that the allowed packages define, and nowhere else."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from lostwax.backends.portable.kernels import norms
from lostwax.backends.runtime.artifact_reader import ArtifactError
from lostwax.backends.runtime.named_code import named_code

PACKAGE = "lostwax.backends.portable.kernels"
ALLOWED = ("lostwax.backends.cpu.kernels", PACKAGE)


def test_a_function_of_an_allowed_package_is_found() -> None:
    assert named_code(f"{PACKAGE}.norms", "rms_norm", ALLOWED) is norms.rms_norm


OUTSIDE = {
    "another module": ("os", "system"),
    "the package itself": (PACKAGE, "rms_norm"),
    "its parent": ("lostwax.backends.portable", "rms_norm"),
    "what begins alike": (f"{PACKAGE}_of_others.norms", "rms_norm"),
    "what begins alike, one level": (f"{PACKAGE}_of_others", "rms_norm"),
    "another target's": ("lostwax.backends.cuda.kernels.topk", "topk"),
    "no package": ("", "rms_norm"),
    "an attribute of an attribute": (f"{PACKAGE}.norms", "torch.load"),
    "a private function": (f"{PACKAGE}.norms", "_normed"),
    "a special attribute": (f"{PACKAGE}.norms", "__builtins__"),
    "a private module": (f"{PACKAGE}._norms", "rms_norm"),
    "a path": (f"{PACKAGE}.../norms", "rms_norm"),
    "no name": (f"{PACKAGE}.norms", ""),
}


@pytest.mark.parametrize("way", OUTSIDE)
def test_a_name_that_leads_out_is_refused_before_anything_is_imported(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name = OUTSIDE[way]

    def imported(module: str) -> ModuleType:
        raise AssertionError(f"{module} was imported")

    monkeypatch.setattr("lostwax.backends.runtime.named_code.import_module", imported)
    with pytest.raises(ArtifactError, match="lies outside this target's kernels"):
        named_code(module, name, ALLOWED)


@pytest.mark.parametrize("module", [f"{PACKAGE}_of_others", f"{PACKAGE}_of_others.norms"])
def test_a_loaded_module_whose_name_begins_alike_is_outside(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evil() -> None:
        raise AssertionError("it ran")

    made = ModuleType(module)
    evil.__module__ = module
    vars(made)["evil"] = evil
    monkeypatch.setitem(sys.modules, module, made)
    with pytest.raises(ArtifactError, match=f"'{module}:evil' lies outside"):
        named_code(module, "evil", ALLOWED)


@pytest.mark.parametrize(
    ("module", "name", "owner"),
    [
        (f"{PACKAGE}.norms", "cast", "typing"),
        (f"{PACKAGE}.linear", "dequantise", None),  # imported from an allowed module
    ],
)
def test_what_a_module_imports_counts_by_where_it_was_defined(
    module: str, name: str, owner: str | None
) -> None:
    if owner is None:
        assert named_code(module, name, ALLOWED).__module__ == f"{PACKAGE}.blocks"
        return
    with pytest.raises(ArtifactError, match=f"is a function of {owner}, outside"):
        named_code(module, name, ALLOWED)


def test_a_function_from_a_package_that_begins_alike_is_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lent() -> None: ...

    lent.__module__ = f"{PACKAGE}_of_others.norms"
    monkeypatch.setattr(norms, "lent", lent, raising=False)
    with pytest.raises(ArtifactError, match=f"is a function of {PACKAGE}_of_others.norms, outside"):
        named_code(f"{PACKAGE}.norms", "lent", ALLOWED)


@pytest.mark.parametrize(("module", "name"), [("norms", "torch"), ("norms", "none"), ("no", "f")])
def test_what_is_no_function_says_that_there_is_none(module: str, name: str) -> None:
    with pytest.raises(ArtifactError, match="this lostwax has no kernel function"):
        named_code(f"{PACKAGE}.{module}", name, ALLOWED)
