"""Pretrain a small BERT, GPT-2, T5 or XLNet from scratch, tokenizer included, by the family's own objective.

    accelerate launch recipes/pretraining.py
    accelerate launch recipes/pretraining.py --model_type gpt2 --train_file my_texts.jsonl

Masked tokens (BERT), the next token (GPT-2), spans that were taken out (T5) or tokens in a random order (XLNet) are
predicted. Files hold a column `text`; `--layers`, `--hidden_size` and `--vocab_size` shape the model. The embedded
checkpoints were made by this recipe: settings, cost and loss are in model_cards/tiny_bert.json and its siblings.

Papers: https://arxiv.org/abs/1810.04805 (BERT), https://arxiv.org/abs/1910.10683 (T5), https://arxiv.org/abs/1906.08237
(XLNet), and Radford et al. 2019 (GPT-2).
"""

from tl_hub import cli, data, finish, launch, training
from tl_hub.config import RunConfig
from tl_hub.experiment import Experiment
from tl_hub.methods.from_scratch import FromScratch
from tl_hub.tasks.language_modeling import Pretraining

# A new, narrow model takes, and needs, a rate far above that of fine-tuning.
RUN = RunConfig(output_dir="runs/pretraining", epochs=5, batch_size=16, learning_rate=1.5e-3)
TASK = Pretraining(max_length=256)
METHOD = FromScratch(layers=4, hidden_size=256, intermediate_size=768, vocab_size=4096)


def main() -> None:
    run, settings, method = cli.parse(RUN, TASK, METHOD, doc=__doc__)
    launch.check(run, method)
    rows, task = data.load(run, settings.objective(method.model_type))
    accelerator = launch.start(run)
    model, tokenizer, base = method.build(rows.splits["train"].rows["text"], run)
    data.encode(rows, task, tokenizer, model)
    experiment = Experiment(run, task, method, base, rows, model, tokenizer, accelerator)
    history = training.train(experiment, finish.push_under_way)
    score = training.evaluate(experiment, history.decision)
    finish.finish(experiment, history, score)


if __name__ == "__main__":
    cli.run(main)
