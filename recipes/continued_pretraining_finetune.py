"""Go on pretraining a model on the texts of your own domain, all of its weights.

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
from tl_hub.methods.fine_tune import FineTune
from tl_hub.tasks.language_modeling import Pretraining

# The embedded models are small and take a larger rate than the 5e-5 to 1e-4 that suit a base model.
RUN = RunConfig(output_dir="runs/continued_pretraining_finetune", epochs=5, batch_size=16, learning_rate=5e-4)
OBJECTIVE = Pretraining(max_length=256, random_length=False)
METHOD = FineTune()

PRESETS = {
    "imdb": {
        "model": "google-bert/bert-base-uncased",
        "dataset": "stanfordnlp/imdb",
        "output_dir": "runs/imdb_continued_pretraining_finetune",
        "epochs": 3,
        "learning_rate": 5e-5,
    }
}


def main() -> None:
    run, objective, method = cli.parse(RUN, OBJECTIVE, METHOD, presets=PRESETS, doc=__doc__)
    accelerator = launch.start(run, method)
    task = objective.objective(base_model.family_of(run))
    rows = data.load(run, task)
    model, tokenizer, base = base_model.load(run, task)
    published_settings.apply(run, objective, method, model, accelerator.is_main_process)
    model = method.wrap(model, base)
    data.encode(rows, task, tokenizer, model)
    before = training.evaluate_base(model, rows.splits[rows.final], task, tokenizer, run, accelerator)
    push = finish.pusher(run, task, method, base, rows, model, tokenizer, accelerator)
    history = training.train(model, rows, task, tokenizer, run, accelerator, push)
    score = training.evaluate(model, rows.splits[rows.final], task, tokenizer, run, accelerator, history.decision)
    finish.finish(run, task, method, base, rows, history, score, model, tokenizer, accelerator, before)


if __name__ == "__main__":
    cli.run(main)
