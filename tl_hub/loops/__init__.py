"""Run folders from training loops that are not tl_hub's, so that card, load-back and push work for their models too.

A `RunFolder` is made before training, and checks what can be checked by then. After it, a `RunFolderCallback` writes
the folder for transformers' Trainer and what is derived from it, and `RunFolder.write` for your own loop.
"""

from tl_hub.loops.folder import RunFolder
from tl_hub.loops.trainer import RunFolderCallback

__all__ = ["RunFolder", "RunFolderCallback"]
