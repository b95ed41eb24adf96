"""Artifacts that several folders of tests share, made once a session."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from body_processes import Begun

if TYPE_CHECKING:
    from harness import Models

pytest_plugins = (
    "drafting_fixtures",
    "small_fixtures",
    "trained_fixtures",
    "structured_fixtures",
    "report_fixtures",
)

# Jobs that a shell starts in the background ignore Ctrl-C, and so would the commands that tests
# start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the tests marked `load` go on."""
    parser.addoption("--load-seconds", type=float, help="seconds of each test marked load")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Tiny checkpoints, oracles and artifacts, each made when first asked for."""
    from harness import Models  # with transformers: only for the tests that ask

    return Models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def bodies() -> Begun:
    """The processes that read large bodies in this test."""
    return Begun()


@pytest.fixture(autouse=True, scope="module")
def _no_process_is_left(request: pytest.FixtureRequest) -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """A module's servers end the processes that read bodies for them: others would find them."""
    begun = Begun()
    yield
    assert begun.pids == [], f"{request.node.name} leaves processes that read bodies"
