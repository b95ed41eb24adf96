"""The small models with an MTP layer, loaded once a session; tests leave no request running."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lostwax.backends.runtime.load import Runtime


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """Hardly a draft is right."""
    from drafting_models import compiled

    return compiled(tmp_path_factory.mktemp("random"), None)


@pytest.fixture(scope="session")
def good_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `good_drafts` has its `checkpoint`."""
    return tmp_path_factory.mktemp("good")


@pytest.fixture(scope="session")
def good_drafts(good_folder: Path) -> Runtime:
    """Most drafts are right, not all."""
    from drafting_models import compiled, mostly_right

    return compiled(good_folder, mostly_right)
