"""Takes CANN's operators away from this process, as another torch_npu or CANN would."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from lostwax.backends.ascend import installed
from lostwax.backends.ascend.contract.snapshot import read_snapshot
from lostwax.backends.ascend.kernels import operators


def forget() -> None:
    """What was decided of operators and told of versions: both are asked for again."""
    installed.told.cache_clear()
    operators.operator.cache_clear()
    operators.unfit.cache_clear()


def change(patch: pytest.MonkeyPatch, schemas: Mapping[str, str | None]) -> None:
    """Install operators of other schemas, None for none. Call `forget` behind the test, too."""
    found: dict[str, str | None] = dict(read_snapshot().schemas)
    found.update(schemas)
    patch.setattr(operators, "installed_schema", found.get)
    forget()
