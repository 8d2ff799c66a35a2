"""Start the Hub by hand, and say what to export so that clients use it."""

import sys

from .server import WRITE, HubServer

with HubServer(port=int(sys.argv[1]) if len(sys.argv) > 1 else 8765) as hub:
    print("export HF_HUB_DISABLE_XET=1 HF_HUB_OFFLINE=0 NO_PROXY=127.0.0.1")
    print(f"export HF_ENDPOINT={hub.url} HF_TOKEN={WRITE}", flush=True)
    try:
        hub.wait()
    except KeyboardInterrupt:
        pass
