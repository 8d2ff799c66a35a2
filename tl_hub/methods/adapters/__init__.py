"""Adapters: the pretrained weights stay as they are, small added ones are trained."""

from tl_hub.methods.adapters.base import Adapter
from tl_hub.methods.adapters.bottleneck import Bottleneck
from tl_hub.methods.adapters.dora import Dora
from tl_hub.methods.adapters.ia3 import Ia3
from tl_hub.methods.adapters.lora import Lora
from tl_hub.methods.adapters.prefix import Prefix
from tl_hub.methods.adapters.prompt import Prompt
from tl_hub.methods.adapters.vera import Vera

METHODS: dict[str, type[Adapter]] = {kind.method: kind for kind in (Lora, Dora, Ia3, Prompt, Prefix, Bottleneck, Vera)}
"""What `--method` chooses from."""
Adapter.methods = METHODS  # so that one that is refused can name the others


def named(name: str) -> type[Adapter] | None:
    """The adapter that a run record calls so, in small letters or not; None for any other method."""
    return next((kind for kind in METHODS.values() if name.lower() in (kind.name, kind.method)), None)
