"""AITER, if what is installed takes the calls that were written for it. Imported without it, too.

Nothing of it has run on a device here.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import torch

from lostwax.backends.rocm.aiter_calls import PACKAGE, VERSION, misfit
from lostwax.backends.runtime.error_causes import with_causes
from lostwax.backends.runtime.library_loading import loading
from lostwax.backends.runtime.require_packages import (
    MissingPackage,
    installed_version,
    remedy_of,
    require_fit,
    require_version,
)


def require_calls(*calls: str) -> None:
    """MissingPackage unless the package is there and takes these calls as they were written."""
    version = require_version(PACKAGE, installed_version(PACKAGE), VERSION, "aiter*")
    require_fit(PACKAGE, version, misfit(*calls))


@cache
def function(call: str) -> Any:
    """One of CALLS, imported. Raises MissingPackage."""
    require_calls(call)
    file, name = call.split(":")
    return getattr(_loaded(file.removesuffix(".py").replace("/", ".")), name)


def scales_in_blocks() -> Any:
    """What tells its experts that rows have a scale for 128 columns. Raises MissingPackage."""
    return _loaded("aiter").QuantType.per_1x128


def _loaded(module: str) -> Any:
    """A module of the package, imported. Raises MissingPackage where it does not load."""
    try:
        with loading(module):
            return import_module(module)
    except Exception as error:  # a library may raise anything
        raise MissingPackage(
            f"{PACKAGE} does not load beside torch {torch.__version__}: {with_causes(error)};"
            f" {remedy_of(PACKAGE)} for that torch, or compile without aiter* in --lowering"
        ) from error
