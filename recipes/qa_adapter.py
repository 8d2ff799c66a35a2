"""Teach a model to answer questions from a text, with a small adapter (LoRA) on frozen weights.

    accelerate launch recipes/qa_adapter.py

trains on embedded data with the embedded BERT, without a network. Then:

    accelerate launch recipes/qa_adapter.py --preset squad
    accelerate launch recipes/qa_adapter.py --model openai-community/gpt2 --train_file mine.jsonl

Rows are {"question", "context", "answers": {"text": [...], "answer_start": [...]}}; empty lists mean that the
context has no answer. Papers: LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685; SQuAD, Rajpurkar et al. 2016
and 2018, https://arxiv.org/abs/1606.05250 and https://arxiv.org/abs/1806.03822.
"""

from tl_hub import base_model, cli, data, finish, launch, published_settings, training
from tl_hub.config import RunConfig
from tl_hub.experiment import Experiment
from tl_hub.methods.adapters import Adapter, Lora
from tl_hub.tasks.question_answering import QuestionAnswering

# Added weights start from nothing and take a larger rate than fine-tuning does.
RUN = RunConfig(output_dir="runs/qa_adapter", epochs=5, batch_size=16, learning_rate=2e-3)
TASK = QuestionAnswering(max_length=384, doc_stride=128)
METHOD: Adapter = Lora()  # of rank 16; --method takes other adapters

PRESETS = {
    "squad": {
        "model": "google-bert/bert-base-uncased",
        "dataset": "rajpurkar/squad",
        "output_dir": "runs/squad_adapter",
        "epochs": 2,
    },
    "squad_v2": {
        "model": "google-bert/bert-base-uncased",
        "dataset": "rajpurkar/squad_v2",
        "output_dir": "runs/squad_v2_adapter",
        "epochs": 2,
    },
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
