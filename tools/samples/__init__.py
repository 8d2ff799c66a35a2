"""How what `tl_hub.samples` embeds was made, and the study of what its checkpoints are worth. Not in the package."""
