"""A Hub of our own, and a process that pushes to it."""

from collections.abc import Iterator

import pytest

from tests.forks import STACK, Forks
from tests.hub_server import WRITE, HubServer
from tests.publishing.runs import Pusher, environment


@pytest.fixture(scope="session")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture(autouse=True)
def no_faults(request: pytest.FixtureRequest) -> None:
    if "hub" in request.fixturenames:
        request.getfixturevalue("hub").faults.clear()


@pytest.fixture(scope="session")
def run_script(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Run a recipe, or a script of a test, in a fork that knows the Hub."""
    folder = tmp_path_factory.mktemp("forks")
    forks = Forks(folder, STACK, **environment(hub.url, WRITE, folder / "home"))
    yield forks
    forks.close()


@pytest.fixture(scope="session")
def push(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pusher]:
    pusher = Pusher(hub.url, WRITE, tmp_path_factory.mktemp("home"))
    yield pusher
    pusher.close()
