"""Whether the packages that an artifact's lowerings call are installed. Imports none of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, requires, version

from lostwax.ir.contract.one_line import one_line


class MissingPackage(RuntimeError):
    """A package that a chosen lowering calls is not installed; the message says what to do."""


def installed_version(package: str) -> str | None:
    """The version of an installed distribution, None where it is not installed."""
    try:
        return version(package)
    except (PackageNotFoundError, ValueError):  # ValueError: no name at all
        return None


def remedy_of(package: str) -> str:
    """How the package is installed: by the extra of lostwax that has it, else by its name."""
    try:
        lines = requires("lostwax") or ()
    except PackageNotFoundError:  # it runs from its sources
        lines = ()
    for line in lines:
        extra = re.fullmatch(
            rf"{re.escape(package)}(?![\w.-]).*; *extra == ['\"]([\w-]+)['\"]", line
        )
        if extra is not None:
            return f"install it with `pip install 'lostwax[{extra[1]}]'`"
    return f"install it with `pip install {package}`"


def require_version(package: str, found: str | None, wanted: str, lowering: str) -> str:
    """The version `found` of a package, which must be `wanted` or begin with it and a dot.

    Raises MissingPackage, which says to compile without the `lowering` that calls it.
    """
    if found is not None and f"{found}.".startswith(f"{wanted}."):
        return found
    said = "is not installed" if found is None else f"is {found}"
    raise MissingPackage(
        f"the artifact calls {package} {wanted}.x, which {said}: {remedy_of(package)}, or"
        f" compile without {lowering} in --lowering"
    )


def require_fit(package: str, version: str, misfit: str | None) -> None:
    """Raise MissingPackage where what is installed takes other calls, for the reason `misfit`."""
    if misfit is not None:
        raise MissingPackage(
            f"{package} {version} is not what lostwax calls: {misfit}; {remedy_of(package)}"
        )


def require_packages(requires: Mapping[str, Iterable[str]]) -> None:
    """Raise MissingPackage unless each package is installed; `requires` gives who calls it."""
    for package, lowerings in sorted(requires.items()):
        if installed_version(package) is None:
            raise MissingPackage(
                f"{one_line(', '.join(sorted(lowerings)))} calls the package {package}, as the"
                f" artifact's manifest.json says, which is not installed: {remedy_of(package)} if"
                " you trust who made the artifact, or compile here without it"
            )
