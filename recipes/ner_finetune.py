"""Teach a model to find entities such as persons and places in a text, by training all of its weights.

    accelerate launch recipes/ner_finetune.py

trains on embedded data with the embedded BERT, without a network; its test rows hold no name of the training rows.
Then:

    accelerate launch recipes/ner_finetune.py --preset conll2003
    accelerate launch recipes/ner_finetune.py --model google-t5/t5-small --train_file mine.jsonl

Rows are {"tokens": ["Ann", "lives", "in", "Bonn"], "tags": ["B-person", "O", "O", "B-place"]}; files of the kind .conll
or .txt hold a word and its tag a line, and a blank line between sentences. Tags are BIO or BIOES. F1 is that of whole
entities, by the rules of CoNLL and seqeval; giving each word its most frequent tag stands beside it.

Papers: BERT, Devlin et al. 2019, https://arxiv.org/abs/1810.04805;
CoNLL-2003, Tjong Kim Sang and De Meulder 2003, https://aclanthology.org/W03-0419.
"""

from tl_hub import base_model, cli, data, finish, launch, published_settings, training
from tl_hub.config import RunConfig
from tl_hub.experiment import Experiment
from tl_hub.methods.fine_tune import FineTune
from tl_hub.tasks.token_classification import TokenClassification

# The embedded model is small and takes a larger rate than the 2e-5 to 5e-5 that suit a base model.
RUN = RunConfig(output_dir="runs/ner_finetune", epochs=8, batch_size=16, learning_rate=1e-3)
TASK = TokenClassification(max_length=256)
METHOD = FineTune()

PRESETS = {
    "conll2003": {
        "model": "google-bert/bert-base-cased",
        "dataset": "eriktks/conll2003",
        "dataset_revision": "refs/convert/parquet",  # the main branch is a script, which is not run
        "tags_column": "ner_tags",
        "output_dir": "runs/conll2003_finetune",
        "batch_size": 32,
        "learning_rate": 5e-5,
    }
}


def main() -> None:
    run, task, method = cli.parse(RUN, TASK, METHOD, presets=PRESETS, doc=__doc__)
    launch.check(run, method)
    rows, task = data.load(run, task)
    accelerator = launch.start(run)
    model, tokenizer, base = base_model.load(run, task)
    run, method = published_settings.apply(run, task, method, model)
    model = method.wrap(model, base)
    data.encode(rows, task, tokenizer, model)
    experiment = Experiment(run, task, method, base, rows, model, tokenizer, accelerator)
    history = training.train(experiment, finish.push_under_way)
    score = training.evaluate(experiment, history.decision)
    finish.finish(experiment, history, score)


if __name__ == "__main__":
    cli.run(main)
