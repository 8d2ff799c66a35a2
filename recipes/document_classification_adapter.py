"""Teach a model what a document is about, with a small adapter (LoRA) on frozen weights.

    accelerate launch recipes/document_classification_adapter.py

trains on embedded data with the embedded BERT, without a network. Then:

    accelerate launch recipes/document_classification_adapter.py --preset ag_news
    accelerate launch recipes/document_classification_adapter.py --model xlnet/xlnet-base-cased --train_file mine.jsonl

Rows are {"text", "label"} with any number of classes. Documents longer than `--max_length` tokens are read in
overlapping windows whose scores are averaged; nothing is cut off.

Papers: LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685;
AG News, Zhang et al. 2015, https://arxiv.org/abs/1509.01626.
"""

from tl_hub import base_model, cli, data, finish, launch, published_settings, training
from tl_hub.config import RunConfig
from tl_hub.experiment import Experiment
from tl_hub.methods.adapters import Adapter, Lora
from tl_hub.tasks.classification import DocumentClassification

# Added weights start from nothing and take a larger rate than fine-tuning does.
RUN = RunConfig(output_dir="runs/document_classification_adapter", epochs=3, batch_size=16, learning_rate=2e-3)
TASK = DocumentClassification(max_length=256, doc_stride=64)
METHOD: Adapter = Lora()  # of rank 16; --method takes other adapters

PRESETS = {
    "ag_news": {
        "model": "google-bert/bert-base-uncased",
        "dataset": "fancyzhx/ag_news",
        "output_dir": "runs/ag_news_adapter",
        "epochs": 2,
        "batch_size": 32,
        "max_length": 128,
        "doc_stride": 32,
        "learning_rate": 4e-4,
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
