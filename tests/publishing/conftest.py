"""A process that pushes to a Hub of our own."""

from collections.abc import Iterator

import pytest

from tests.hub_server import WRITE, HubServer
from tests.publishing.runs import Pusher


@pytest.fixture(scope="session")
def push(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pusher]:
    pusher = Pusher(hub.url, WRITE, tmp_path_factory.mktemp("home"))
    yield pusher
    pusher.close()
