"""Teach a model to translate, with a small adapter (LoRA) on frozen weights.

    accelerate launch recipes/translation_adapter.py

trains on embedded data, English to German, with the embedded T5, without a network. Then:

    accelerate launch recipes/translation_adapter.py --dataset sample:translation-korean --target_language ko
    accelerate launch recipes/translation_adapter.py --preset wmt16
    accelerate launch recipes/translation_adapter.py --model openai-community/gpt2 --train_file mine.jsonl

Rows are {"translation": {"en": ..., "de": ...}}, or have a column a language (--source_column, --target_column).
Papers: LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685; T5, Raffel et al. 2020,
https://arxiv.org/abs/1910.10683; chrF, Popović 2015, https://aclanthology.org/W15-3049; sacreBLEU, Post 2018,
https://aclanthology.org/W18-6319.
"""

from tl_hub import base_model, cli, data, finish, launch, published_settings, training
from tl_hub.config import RunConfig
from tl_hub.experiment import Experiment
from tl_hub.methods.adapters import Adapter, Lora
from tl_hub.tasks.sequence_to_sequence import Translation

# Added weights start from nothing: they take a higher rate and an epoch more than fine-tuning.
RUN = RunConfig(output_dir="runs/translation_adapter", model="tiny:t5", epochs=6, batch_size=16, learning_rate=2.5e-3)
TASK = Translation(source_language="en", target_language="de", max_source_length=128, max_target_length=64)
# A language the model hardly knows takes a high rank in a model this small. --method takes other adapters.
METHOD: Adapter = Lora(rank=64, alpha=64)

PRESETS = {
    "wmt16": {
        "model": "google-t5/t5-small",
        "dataset": "wmt/wmt16",
        "dataset_config": "de-en",
        "output_dir": "runs/wmt16_adapter",
        "max_source_length": 128,
        "max_target_length": 128,
        "train_rows": 200_000,
        "epochs": 1,
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
