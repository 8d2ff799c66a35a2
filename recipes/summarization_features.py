"""Teach a model to pick the sentences that summarize a text, with a linear head on frozen vectors of sentences.

    accelerate launch recipes/summarization_features.py

reads embedded data with the embedded BERT, without a network. Then:

    accelerate launch recipes/summarization_features.py --preset xsum
    accelerate launch recipes/summarization_features.py --model openai-community/gpt2 --train_file mine.jsonl

A summary is made of the text's own sentences, so that models can do it that cannot write. The text's first sentences
and the best choice of sentences are shown beside the result. Rows are those of recipes/summarization_finetune.py.

The layer, how its vectors are pooled and the strength of regularisation are chosen by cross-validation on the training
rows; `--layer 4 --pooling mean` names two of them. `--layer mix` learns a weighted sum of all layers, `--head mlp` a
hidden layer.

Papers: feature extraction, Peters et al. 2019, https://arxiv.org/abs/1903.05987; sentences as summaries, Nallapati et
al. 2017, https://arxiv.org/abs/1611.04230; ROUGE, Lin 2004, https://aclanthology.org/W04-1013.
"""

from tl_hub import base_model, cli, data, finish, launch
from tl_hub.config import RunConfig
from tl_hub.experiment import Experiment
from tl_hub.methods.feature_extraction import FeatureExtraction
from tl_hub.tasks.extractive_summarization import ExtractiveSummarization

# One pass over the sentences fills every layer's vectors; a second run reads them from the disk.
RUN = RunConfig(output_dir="runs/summarization_features", batch_size=32)
TASK = ExtractiveSummarization(max_length=128)
METHOD = FeatureExtraction()

PRESETS = {
    "xsum": {
        "model": "google-bert/bert-base-uncased",
        "dataset": "EdinburghNLP/xsum",
        "text_column": "document",
        "output_dir": "runs/xsum_features",
        "train_rows": 10000,
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
