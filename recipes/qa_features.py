"""Teach a model to answer questions from a text by training a new head only, on frozen weights.

    accelerate launch recipes/qa_features.py

trains on embedded data with the embedded BERT, without a network. Then:

    accelerate launch recipes/qa_features.py --preset squad
    accelerate launch recipes/qa_features.py --model xlnet/xlnet-base-cased --train_file mine.jsonl

The frozen model reads every window once; its vectors of all tokens are kept on the disk, where all epochs and later
runs take them from (2 bytes a number: SQuAD with BERT-base takes about 21 GiB).

Expect little: a linear head on fixed vectors hardly relates a question to a text. The run shows how much of the other
recipes' result comes from training the model. Layers in the middle do better than the top one: all are compared on
some of the training contexts first, and those above the best one are cut off, so that the model that is saved is
smaller. `--layer 4` names one.

Rows are those of recipes/qa_finetune.py. Papers: feature extraction and fine-tuning, Peters et al. 2019,
https://arxiv.org/abs/1903.05987; SQuAD, Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250.
"""

from tl_hub import base_model, cli, data, finish, launch
from tl_hub.config import RunConfig
from tl_hub.experiment import Experiment
from tl_hub.methods.head_only import HeadOnly
from tl_hub.tasks.question_answering import QuestionAnswering

# One pass over the texts gives every token's vector; a head alone is then quickly trained, and takes a large rate.
RUN = RunConfig(output_dir="runs/qa_features", epochs=3, batch_size=16, learning_rate=1e-2)
TASK = QuestionAnswering(max_length=384, doc_stride=128)
METHOD = HeadOnly()

PRESETS = {
    "squad": {
        "model": "google-bert/bert-base-uncased",
        "dataset": "rajpurkar/squad",
        "output_dir": "runs/squad_features",
        "epochs": 2,
        "learning_rate": 1e-3,
    },
    "squad_v2": {
        "model": "google-bert/bert-base-uncased",
        "dataset": "rajpurkar/squad_v2",
        "output_dir": "runs/squad_v2_features",
        "epochs": 2,
        "learning_rate": 1e-3,
    },
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
