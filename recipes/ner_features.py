"""Teach a model to find entities such as persons and places in a text, by training a new head only, on frozen weights.

    accelerate launch recipes/ner_features.py

trains on embedded data with the embedded BERT, without a network; its test rows hold no name of the training rows.
Then:

    accelerate launch recipes/ner_features.py --preset conll2003
    accelerate launch recipes/ner_features.py --model openai-community/gpt2 --train_file mine.jsonl

The frozen model reads every sentence once; its vectors of all tokens are kept on the disk, where all epochs and later
runs take them from. All layers are compared on some of the training sentences first, and those above the best one are
cut off, so that the model that is saved is smaller. `--layer 4` names one.

Rows are {"tokens": ["Ann", "lives", "in", "Bonn"], "tags": ["B-person", "O", "O", "B-place"]}; files of the kind .conll
or .txt hold a word and its tag a line, and a blank line between sentences. Tags are BIO or BIOES. F1 is that of whole
entities, by the rules of CoNLL and seqeval; giving each word its most frequent tag stands beside it.

Papers: feature extraction and fine-tuning, Peters et al. 2019, https://arxiv.org/abs/1903.05987;
CoNLL-2003, Tjong Kim Sang and De Meulder 2003, https://aclanthology.org/W03-0419.
"""

from tl_hub import base_model, cli, data, finish, launch
from tl_hub.config import RunConfig
from tl_hub.experiment import Experiment
from tl_hub.methods.head_only import HeadOnly
from tl_hub.tasks.token_classification import TokenClassification

# One pass over the texts gives every token's vector; a head alone is then quickly trained, and takes a large rate.
RUN = RunConfig(output_dir="runs/ner_features", epochs=10, batch_size=16, learning_rate=1e-2)
TASK = TokenClassification(max_length=256)
METHOD = HeadOnly()

PRESETS = {
    "conll2003": {
        "model": "google-bert/bert-base-cased",
        "dataset": "eriktks/conll2003",
        "dataset_revision": "refs/convert/parquet",  # the main branch is a script, which is not run
        "tags_column": "ner_tags",
        "output_dir": "runs/conll2003_features",
        "epochs": 3,
        "batch_size": 32,
        "learning_rate": 1e-3,
    }
}


def main() -> None:
    run, task, method = cli.parse(RUN, TASK, METHOD, presets=PRESETS, doc=__doc__)
    launch.check(run, method)
    rows, task = data.load(run, task)
    accelerator = launch.start(run)
    model, tokenizer, base = base_model.load(run, task)
    data.encode(rows, task, tokenizer, model)
    experiment = Experiment(run, task, method, base, rows, model, tokenizer, accelerator)
    experiment, history, score = method.fit_head(experiment)
    finish.finish(experiment, history, score)


if __name__ == "__main__":
    cli.run(main)
