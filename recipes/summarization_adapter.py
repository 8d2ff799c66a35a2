"""Teach a model to summarize texts, with a small adapter (LoRA) on frozen weights.

    accelerate launch recipes/summarization_adapter.py

trains on embedded data with the embedded T5, without a network. Then:

    accelerate launch recipes/summarization_adapter.py --preset xsum
    accelerate launch recipes/summarization_adapter.py --model openai-community/gpt2 --train_file mine.jsonl

Rows are {"text": ..., "summary": ...}; the summary may be a list of several, of which the first is trained on. Papers:
LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685; T5, Raffel et al. 2020, https://arxiv.org/abs/1910.10683; XSum,
Narayan et al. 2018, https://arxiv.org/abs/1808.08745; ROUGE, Lin 2004, https://aclanthology.org/W04-1013.
"""

from tl_hub import base_model, cli, data, finish, launch, published_settings, training
from tl_hub.config import RunConfig
from tl_hub.experiment import Experiment
from tl_hub.methods.adapters import Adapter, Lora
from tl_hub.tasks.sequence_to_sequence import Summarization

# Added weights start from nothing and take a higher rate than fine-tuning.
RUN = RunConfig(output_dir="runs/summarization_adapter", model="tiny:t5", epochs=5, batch_size=16, learning_rate=3e-3)
TASK = Summarization(max_source_length=384, max_target_length=48)
METHOD: Adapter = Lora()  # of rank 16; --method takes other adapters

PRESETS = {
    "xsum": {
        "model": "google-t5/t5-small",
        "dataset": "EdinburghNLP/xsum",
        "text_column": "document",
        "output_dir": "runs/xsum_adapter",
        "max_source_length": 512,
        "max_target_length": 64,
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
