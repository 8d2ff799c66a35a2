"""Teach a model to tell positive from negative texts, with a linear head on its frozen vectors.

    accelerate launch recipes/sentiment_features.py

reads embedded data with the embedded BERT, without a network. Expect little of it: frozen vectors of so small a model
hold words, and the embedded texts turn on what contrast makes of them. Then:

    accelerate launch recipes/sentiment_features.py --preset sst2
    accelerate launch recipes/sentiment_features.py --model xlnet/xlnet-base-cased --train_file mine.csv

Rows are {"text", "label"} with any number of classes; a list of labels makes it a multi-label task. A majority
baseline and a linear model of words are shown beside the result.

The layer, how its vectors are pooled and the strength of regularisation are chosen by cross-validation on the training
rows (of fewer than 500 the last four layers are read); `--layer 4 --pooling mean` names two of them. `--layer mix`
learns a weighted sum of all layers, `--head mlp` a hidden layer.

Papers: feature extraction, Peters et al. 2019, https://arxiv.org/abs/1903.05987;
SST-2, Socher et al. 2013, https://aclanthology.org/D13-1170.
"""

from tl_hub import base_model, cli, data, finish, launch
from tl_hub.config import RunConfig
from tl_hub.experiment import Experiment
from tl_hub.methods.feature_extraction import FeatureExtraction
from tl_hub.tasks.classification import SentimentAnalysis

# One pass over the texts fills every layer's vectors; a second run reads them from the disk.
RUN = RunConfig(output_dir="runs/sentiment_features", batch_size=32)
TASK = SentimentAnalysis(max_length=128)
METHOD = FeatureExtraction()

PRESETS = {
    "sst2": {
        "model": "google-bert/bert-base-uncased",
        "dataset": "stanfordnlp/sst2",
        "text_column": "sentence",
        "output_dir": "runs/sst2_features",
        "batch_size": 32,
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
