"""Continue pretraining a model on texts of your own domain, with all of its weights.

    accelerate launch recipes/continued_pretraining_finetune.py

adapts the embedded BERT to the embedded texts. The family's own objective is used: masked tokens (BERT), the next
token (GPT-2), spans that were taken out (T5), tokens in a random order (XLNet). Then:

    accelerate launch recipes/continued_pretraining_finetune.py --preset imdb
    accelerate launch recipes/continued_pretraining_finetune.py --model tiny:gpt2 --train_file my_texts.jsonl

The result is a checkpoint to give as `--model` to the other recipes. The card compares the loss with the one before.
Paper: Gururangan et al. 2020, https://arxiv.org/abs/2004.10964 (domain-adaptive pretraining).
"""

from tl_hub import base_model, cli, data, finish, launch, published_settings, training
from tl_hub.config import RunConfig
from tl_hub.experiment import Experiment
from tl_hub.methods.fine_tune import FineTune
from tl_hub.tasks.language_modeling import Pretraining

# The embedded models are small and take a larger rate than the 5e-5 to 1e-4 that suit a base model.
RUN = RunConfig(output_dir="runs/continued_pretraining_finetune", epochs=5, batch_size=16, learning_rate=5e-4)
TASK = Pretraining(max_length=256, random_length=False)
METHOD = FineTune()

PRESETS = {
    "imdb": {
        "model": "google-bert/bert-base-uncased",
        "dataset": "stanfordnlp/imdb",
        "output_dir": "runs/imdb_continued_pretraining_finetune",
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
    before = training.evaluate_base(experiment)
    history = training.train(experiment, finish.push_under_way)
    score = training.evaluate(experiment, history.decision)
    finish.finish(experiment, history, score, before)


if __name__ == "__main__":
    cli.run(main)
