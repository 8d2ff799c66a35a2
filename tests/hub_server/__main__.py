"""Start the Hub by hand, and say what to export so that clients use it."""

import argparse

from .server import WRITE, HubServer

parser = argparse.ArgumentParser("python -m tests.hub_server", description=__doc__)
parser.add_argument("port", nargs="?", type=int, default=8765)

with HubServer(port=parser.parse_args().port) as hub:
    print("export HF_HUB_DISABLE_XET=1 HF_HUB_OFFLINE=0 NO_PROXY=127.0.0.1")
    print(f"export HF_ENDPOINT={hub.url} HF_TOKEN={WRITE}", flush=True)
    try:
        hub.wait()
    except KeyboardInterrupt:
        pass
