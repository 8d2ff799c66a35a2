"""Teach a model to tell positive from negative texts, by training all of its weights.

    accelerate launch recipes/sentiment_finetune.py

trains on embedded data with the embedded BERT, without a network. Then:

    accelerate launch recipes/sentiment_finetune.py --preset sst2
    accelerate launch recipes/sentiment_finetune.py --model openai-community/gpt2 --train_file mine.csv

Rows are {"text", "label"} with any number of classes; a list of labels makes it a multi-label task. A majority
baseline and a linear model of words are shown beside the result.

Papers: BERT, Devlin et al. 2019, https://arxiv.org/abs/1810.04805;
SST-2, Socher et al. 2013, https://aclanthology.org/D13-1170.
"""

from tl_hub import base_model, cli, data, finish, launch, published_settings, training
from tl_hub.config import RunConfig
from tl_hub.experiment import Experiment
from tl_hub.methods.fine_tune import FineTune
from tl_hub.tasks.classification import SentimentAnalysis

# The embedded model is small: it takes a larger rate than the 2e-5 to 5e-5 of a base model, and a longer warm-up.
RUN = RunConfig(output_dir="runs/sentiment_finetune", epochs=14, batch_size=32, learning_rate=5e-4, warmup=0.3)
TASK = SentimentAnalysis(max_length=128)
METHOD = FineTune()

PRESETS = {
    "sst2": {
        "model": "google-bert/bert-base-uncased",
        "dataset": "stanfordnlp/sst2",
        "text_column": "sentence",
        "output_dir": "runs/sst2_finetune",
        "batch_size": 32,
        "learning_rate": 2e-5,
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
