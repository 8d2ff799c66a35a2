"""Teach a model to tell positive from negative texts, with a small adapter (LoRA) on frozen weights.

    accelerate launch recipes/sentiment_adapter.py

trains on embedded data with the embedded BERT, without a network. Then:

    accelerate launch recipes/sentiment_adapter.py --preset sst2
    accelerate launch recipes/sentiment_adapter.py --model google-t5/t5-small --train_file mine.csv

Rows are {"text", "label"} with any number of classes; a list of labels makes it a multi-label task. A majority
baseline and a linear model of words are shown beside the result.

Papers: LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685;
SST-2, Socher et al. 2013, https://aclanthology.org/D13-1170.
"""

from tl_hub import base_model, cli, data, finish, launch, published_settings, training
from tl_hub.config import RunConfig
from tl_hub.experiment import Experiment
from tl_hub.methods.adapters import Adapter, Lora
from tl_hub.tasks.classification import SentimentAnalysis

# Added weights start from nothing and take a larger rate than fine-tuning does. The long warm-up is for tiny models:
# with a tenth of the steps, some seeds of BERT and XLNet stayed far below the others.
RUN = RunConfig(output_dir="runs/sentiment_adapter", epochs=14, batch_size=32, learning_rate=1e-3, warmup=0.3)
TASK = SentimentAnalysis(max_length=128)
# A tiny model must change much to learn what contrast does to a verdict: with rank 16 BERT came to 83 %.
METHOD: Adapter = Lora(rank=64, alpha=64)

PRESETS = {
    "sst2": {
        "model": "google-bert/bert-base-uncased",
        "dataset": "stanfordnlp/sst2",
        "text_column": "sentence",
        "output_dir": "runs/sst2_adapter",
        "batch_size": 32,
        "learning_rate": 4e-4,
        "warmup": 0.1,
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
