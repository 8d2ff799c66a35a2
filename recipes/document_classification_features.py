"""Teach a model what a document is about, with a linear head on its frozen vectors.

    accelerate launch recipes/document_classification_features.py

reads embedded data with the embedded BERT, without a network. Then:

    accelerate launch recipes/document_classification_features.py --preset ag_news
    accelerate launch recipes/document_classification_features.py --model xlnet/xlnet-base-cased --train_file mine.jsonl

Rows are {"text", "label"} with any number of classes. Documents longer than `--max_length` tokens are read in
overlapping windows whose vectors are averaged; nothing is cut off.

The strength of regularisation is chosen by cross-validation on the training rows; with `--layer sweep --pooling sweep`
the layer and how its vectors are pooled are, too. `--layer 4` names one, `--layer mix` learns a weighted sum of all
layers, `--head mlp` a hidden layer.

Papers: feature extraction, Peters et al. 2019, https://arxiv.org/abs/1903.05987;
AG News, Zhang et al. 2015, https://arxiv.org/abs/1509.01626.
"""

from tl_hub import base_model, cli, data, finish, launch
from tl_hub.config import RunConfig
from tl_hub.experiment import Experiment
from tl_hub.methods.feature_extraction import FeatureExtraction
from tl_hub.tasks.classification import DocumentClassification

# One pass over the texts fills every layer's vectors; a second run reads them from the disk.
RUN = RunConfig(output_dir="runs/document_classification_features", batch_size=16)
TASK = DocumentClassification(max_length=256, doc_stride=64)
# Test documents are about other things than training documents. Cross-validation, which sees training documents only,
# finds the embeddings good enough and chooses them; with the layers above, which know more, more of it carries over.
METHOD = FeatureExtraction(layer="last4", pooling="mean")

PRESETS = {
    "ag_news": {
        "model": "google-bert/bert-base-uncased",
        "dataset": "fancyzhx/ag_news",
        "output_dir": "runs/ag_news_features",
        "batch_size": 32,
        "max_length": 128,
        "doc_stride": 32,
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
