"""Teach a model to continue texts in the manner of yours, with a small adapter (LoRA) on frozen weights.

    accelerate launch recipes/text_generation_adapter.py

trains on embedded data with the embedded GPT-2, without a network. Then:

    accelerate launch recipes/text_generation_adapter.py --preset wikitext2
    accelerate launch recipes/text_generation_adapter.py --model xlnet/xlnet-base-cased --train_file mine.jsonl

Rows are {"text": ...}. Papers: LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685; GPT-2, Radford et al. 2019;
WikiText, Merity et al. 2017, https://arxiv.org/abs/1609.07843; top-p sampling, Holtzman et al. 2020,
https://arxiv.org/abs/1904.09751.
"""

from tl_hub import base_model, cli, data, finish, launch, published_settings, training
from tl_hub.config import RunConfig
from tl_hub.experiment import Experiment
from tl_hub.methods.adapters import Adapter, Lora
from tl_hub.tasks.text_generation import TextGeneration

# Added weights start from nothing: they take a higher rate than fine-tuning and, of 436 blocks, many steps.
RUN = RunConfig(
    output_dir="runs/text_generation_adapter", model="tiny:gpt2", epochs=3, batch_size=4, learning_rate=3e-3
)
TASK = TextGeneration(max_length=256)
METHOD: Adapter = Lora()  # of rank 16; --method takes other adapters

PRESETS = {
    "wikitext2": {
        "model": "openai-community/gpt2",
        "dataset": "Salesforce/wikitext",
        "dataset_config": "wikitext-2-raw-v1",
        "output_dir": "runs/wikitext2_adapter",
        "max_length": 1024,
        "learning_rate": 5e-4,
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
