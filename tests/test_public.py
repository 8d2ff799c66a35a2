"""What the package offers, against the modules it is in."""

import subprocess
import sys

import tl_hub


def test_what_is_offered_is_there_and_listed_without_importing_torch() -> None:
    program = "import sys, tl_hub; print(*dir(tl_hub)); sys.exit('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(tl_hub.__all__) <= set(found.stdout.split())
    for name in tl_hub.__all__:
        assert getattr(tl_hub, name).__name__ == name
