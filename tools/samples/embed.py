"""Make a run folder of `recipes/pretraining.py` an embedded checkpoint: `python -m tools.samples.embed RUN FAMILY`.

Weights are stored in half precision (recipes load them in float32). The card and the record go to `model_cards/`.
"""

import shutil
import sys
from pathlib import Path

import torch
import transformers

from tl_hub import card, samples
from tl_hub.record import RunRecord
from tools.samples.corpus import SOURCES


def main() -> None:
    run, family = Path(sys.argv[1]), sys.argv[2]
    here = Path(samples.__file__).parent
    cards = here.parent.parent / "model_cards"
    record = RunRecord.load(run)
    record.data.notes += SOURCES
    record.name = f"tiny_{family}"
    # Loaded as half precision, T5 would keep a part of itself in full.
    model = getattr(transformers, record.auto_class).from_pretrained(run, dtype=torch.float32).half()
    model.save_pretrained(here / family)
    # What is stored in half precision is to be loaded in float32, by stock loaders too.
    config = here / family / "config.json"
    config.write_text(config.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))
    transformers.AutoTokenizer.from_pretrained(run).save_pretrained(here / family)
    cards.mkdir(exist_ok=True)
    record.save(cards).rename(cards / f"tiny_{family}.json")
    text = card.render(record, curves=True).replace("curves.png", f"tiny_{family}.png")
    (cards / f"tiny_{family}.md").write_text(text, encoding="utf-8")
    shutil.copy(run / "curves.png", cards / f"tiny_{family}.png")


if __name__ == "__main__":
    main()
