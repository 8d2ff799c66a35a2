"""Pretrain a small BERT from scratch, tokenizer included, by masked language modelling.

    accelerate launch recipes/pretraining.py --train_file my_texts.jsonl

reads the column `text`; `--layers`, `--hidden_size` and `--vocab_size` shape the model. The embedded checkpoint
`tiny:bert` was made by this recipe: settings, cost and loss are in model_cards/tiny_bert.json

Paper: Devlin et al. 2019, https://arxiv.org/abs/1810.04805
"""

from tl_hub import cli, data, finish, training
from tl_hub.config import RunConfig
from tl_hub.methods.from_scratch import FromScratch
from tl_hub.tasks.language_modeling import MaskedLanguageModeling

# A new, narrow model takes, and needs, a rate far above that of fine-tuning.
RUN = RunConfig(output_dir="runs/pretraining", epochs=5, batch_size=32, learning_rate=2e-3)
TASK = MaskedLanguageModeling(max_length=256)
METHOD = FromScratch(layers=4, hidden_size=128, intermediate_size=512, vocab_size=4096)


def main() -> None:
    run, task, method = cli.parse(RUN, TASK, METHOD, doc=__doc__)
    accelerator = training.start(run)
    rows = data.load(run, task)
    model, tokenizer, base = method.build(rows.splits["train"].rows["text"])
    data.encode(rows, task, tokenizer, model)
    history = training.train(model, rows, task, tokenizer, run, accelerator)
    score = training.evaluate(model, rows.splits[rows.final], task, tokenizer, run, accelerator)
    finish.finish(run, task, method, base, rows, history, score, model, tokenizer, accelerator)


if __name__ == "__main__":
    cli.run(main)
