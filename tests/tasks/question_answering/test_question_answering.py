"""Windows, spans, thresholds and scores, against brute force."""

import dataclasses
import itertools
import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from hypothesis import strategies as st

import tl_hub
from tl_hub import base_model, card, data, finish, launch, training
from tl_hub.errors import UserError
from tl_hub.evaluation import remeasure
from tl_hub.experiment import Experiment
from tl_hub.inference.question_answering import QuestionAnsweringPipeline
from tl_hub.record import BaseModel, DataFacts, RunRecord
from tl_hub.tasks.base import give_separator
from tl_hub.tasks.question_answering import QuestionAnswering
from tl_hub.tasks.question_answering.answers import answers_of, best_spans, best_threshold


def brute_force_spans(start, end, first, last, longest):
    """Every valid span of one window, best first."""
    spans = [
        (float(start[i] + end[j]), i, j)
        for i, j in itertools.product(range(first, last), repeat=2)
        if i <= j < i + longest
    ]
    return sorted(spans, key=lambda span: -span[0])


@st.composite
def windows_of_scores(draw):
    """Scores of a window's tokens, equal and extreme ones among them, and where its context lies."""
    length = draw(st.integers(2, 12))
    score = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e4, 1e4, width=32))
    start, end = (draw(st.lists(score, min_size=length, max_size=length)) for _ in range(2))
    first = draw(st.integers(0, length - 1))
    return start, end, first, draw(st.integers(first + 1, length)), draw(st.integers(0, length - 1))


@hypothesis.given(windows_of_scores(), st.integers(1, 14))
def test_best_spans_equals_brute_force(window, longest):
    start, end, first, last, null = window
    start, end = torch.tensor([start]), torch.tensor([end])
    given = (torch.tensor([place]) for place in (first, last, null))
    found = {name: value.item() for name, value in best_spans(start, end, *given, longest).items()}
    spans = brute_force_spans(start[0], end[0], first, last, longest)
    chosen = {(i, j): score for score, i, j in spans}[found["start"], found["end"]]  # of equal ones any will do
    assert chosen == spans[0][0]
    assert found["span"] == pytest.approx(chosen, rel=1e-5, abs=1e-5)
    assert found["log_total"] == pytest.approx(np.logaddexp.reduce([s for s, _, _ in spans]), rel=1e-5, abs=1e-4)
    assert found["null"] == pytest.approx(float(start[0, null] + end[0, null]), rel=1e-5, abs=1e-5)


def test_a_top_20_search_would_miss_the_best_span():
    """Why the search is exact: the best starts and the best ends are too far apart to pair up."""
    start, end = torch.zeros(1, 200), torch.zeros(1, 200)
    start[0, :25], end[0, 100:125] = 5.0, 5.0  # never within ten tokens of each other
    start[0, 60], end[0, 62] = 4.9, 4.9
    found = best_spans(start, end, torch.tensor([0]), torch.tensor([200]), torch.tensor([0]), 10)
    assert (int(found["start"]), int(found["end"])) == (60, 62)


def test_best_threshold_equals_trying_them_all():
    random = np.random.default_rng(0)
    for step in range(50):
        margin = random.normal(size=20) if step % 2 else random.integers(0, 6, size=20).astype(float)  # with equal ones
        unanswerable = random.random(20) < 0.4
        answered, silent = np.where(unanswerable, 0.0, random.random(20) * 100), 100.0 * unanswerable
        chosen = np.where(margin > best_threshold(margin, answered, silent), silent, answered).mean()
        tried = [
            np.where(margin > t, silent, answered).mean() for t in [*margin - 1e-9, *margin + 1e-9, margin.max() + 1]
        ]
        assert chosen == pytest.approx(max(tried))


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "xlnet"])
def test_windows_cover_the_context_and_hold_the_answer(family, checkpoints):
    """In each family's own token order (XLNet pads left and ends with its class token) every gold span decodes back."""
    model, tokenizer = checkpoints(family, "AutoModelForQuestionAnswering")
    context = (
        "The river Danube rises in the Black Forest. " * 20
        + "It ends in the Black Sea, near 도나우 강 삼각주, and a boat takes é or 5 € or 三. " * 5
    )
    answers = [(text, context.index(text)) for text in ("Black Sea", "도나우 강", "The", "강", "€", "é", "三", "5")]
    rows = Dataset.from_list(
        [{"question": "Where?", "context": context, "answers": {"text": [t], "answer_start": [s]}} for t, s in answers]
    )
    task = QuestionAnswering(max_length=128, doc_stride=32)
    task.adapt(tokenizer, model)
    features = task.encode(rows, tokenizer, model)
    covered = [set() for _ in answers]
    held = [0] * len(answers)
    for feature in features:
        row = feature["row"]
        assert len(feature["input_ids"]) <= 128
        for start, end in feature["offsets"][feature["context_start"] : feature["context_end"]]:
            covered[row].update(range(start, end))
        if feature["start_positions"] != feature["null_position"]:
            held[row] += 1
            start = feature["offsets"][feature["start_positions"]][0]
            end = feature["offsets"][feature["end_positions"]][1]
            assert answers[row][0] in context[start:end] and end - start <= len(answers[row][0]) + 4
        assert feature["input_ids"][feature["null_position"]] in (tokenizer.cls_token_id, tokenizer.eos_token_id)
    assert all(held)
    letters = {i for i, letter in enumerate(context) if not letter.isspace()}
    assert all(letters <= places for places in covered)


def questions(texts: list[tuple[str, str, str]]) -> Dataset:
    """Rows of question, context and answer; "" is no answer."""
    return Dataset.from_list(
        [
            {
                "question": question,
                "context": context,
                "answers": {"text": [a] if a else [], "answer_start": [context.index(a)] if a else []},
            }
            for question, context, a in texts
        ]
    )


def test_answers_are_as_long_as_those_of_the_training_rows(checkpoints):
    """Of 99 % of them: a start and an end of two different answers make no span."""
    model, tokenizer = checkpoints("bert", "AutoModelForQuestionAnswering")
    context = "the boat leaves at ten and the train leaves at noon and nobody knows why it is so"
    answers = ["ten"] * 120 + ["the boat leaves"] * 79 + [context, ""]
    trained = questions([("when does it leave", context, answer) for answer in answers])
    lengths = [len(tokenizer(answer, add_special_tokens=False)["input_ids"]) for answer in answers[:-1]]
    usual = sorted(lengths)[-2]
    assert usual < max(lengths)

    task = QuestionAnswering(max_length=128, doc_stride=32)
    task.encode(trained, tokenizer, model)
    assert task.max_answer_length == usual
    features = task.encode(trained.select([199]), tokenizer, model)
    assert task.max_answer_length == usual, "other rows change nothing"
    (feature,) = features
    logits = torch.zeros(2, 1, len(feature["input_ids"]))
    logits[0, 0, feature["context_start"]] = 9.0  # the answer begins there, and each later end is better
    logits[1, 0] = 0.1 * torch.arange(logits.size(2))
    batch = {name: torch.tensor([feature[name]]) for name in ("context_start", "context_end", "null_position")}
    found = task.predict(SimpleNamespace(start_logits=logits[0], end_logits=logits[1]), batch)
    assert found["start"] == feature["context_start"] and found["end"] - found["start"] + 1 == usual

    given = QuestionAnswering(max_length=128, doc_stride=32, max_answer_length=7)
    given.encode(trained, tokenizer, model)
    assert given.max_answer_length == 7


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "xlnet"])
@torch.no_grad()
def test_a_row_alone_gives_what_it_gives_in_a_padded_batch(family, checkpoints):
    """Logits, best span and the gold span of each row, against the row without padding, mask and collator."""
    model, tokenizer = checkpoints(family, "AutoModelForQuestionAnswering")
    task = QuestionAnswering(max_length=128, doc_stride=32)
    task.adapt(tokenizer, model)
    rows = questions(
        [
            ("Where does it end?", "The river ends in the Black Sea, near 도나우 강 삼각주.", "Black Sea"),
            ("Who?", "A baker sells bread. " * 4 + "Her brother mills the flour.", "brother"),
            ("What fell?", "Snow.", ""),
        ]
    )
    features = task.encode(rows, tokenizer, model)
    kept = features.select_columns([name for name in task.batched if name in features.column_names]).to_list()
    batch = task.collator(tokenizer, training=True)(kept)
    unread = {*task.scoring_only, "start_positions", "end_positions"}
    together = model(**{name: value for name, value in batch.items() if name not in unread})
    spans = task.predict(together, batch)
    for place, feature in enumerate(features):
        length = len(feature["input_ids"])
        inputs = {n: torch.tensor([feature[n]]) for n in ("input_ids", "token_type_ids") if n in feature}
        alone = model(**inputs)
        for name in ("start_logits", "end_logits"):
            assert torch.allclose(alone[name][0], together[name][place, :length], atol=2e-6)
        row = {name: torch.tensor([feature[name]]) for name in task.scoring_only}
        for name, value in task.predict(alone, row).items():
            assert torch.allclose(value[0].float(), spans[name][place].float(), atol=1e-5), name
        gold = slice(int(batch["start_positions"][place]), int(batch["end_positions"][place]) + 1)
        assert batch["input_ids"][place, gold].tolist() == feature["input_ids"][gold]
        answer = "".join(rows[feature["row"]]["answers"]["text"]).lower()
        assert answer in tokenizer.decode(batch["input_ids"][place, gold]).lower()
        assert bool(answer) or gold.start == feature["null_position"]


@pytest.mark.parametrize(("family", "mark"), [("bert", "[CLS]"), ("gpt2", "<|endoftext|>"), ("t5", "</s>")])
def test_no_answer_stands_at_the_models_own_token_and_not_at_one_in_a_text(family, mark, checkpoints):
    model, tokenizer = checkpoints(family, "AutoModelForQuestionAnswering")
    task = QuestionAnswering()
    task.adapt(tokenizer, model)
    (feature,) = task.encode(questions([("What?", f"The token {mark} is special.", "")]), tokenizer, model)
    assert feature["null_position"] == (0 if family == "bert" else len(feature["input_ids"]) - 1)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "xlnet"])
@torch.no_grad()
def test_the_stock_calls_on_the_card_answer_as_the_pipeline_does(family, checkpoints):
    """Also where a token of the question has the highest logits, in windows of long contexts, and in silence."""
    model, tokenizer = checkpoints(family, "AutoModelForQuestionAnswering")
    task = QuestionAnswering(max_length=128, doc_stride=32, max_answer_length=4)
    task.adapt(tokenizer, model)
    short = "The river ends in the Black Sea, near 도나우 강 삼각주. A baker, Éva, sells bread there in winter."
    question = "Where does Éva, the baker, sell what she bakes?"
    long = " ".join([short, *(f"In {year} the bakery of Éva moved to No. {year % 97}." for year in range(1804, 1834))])
    margins: dict[str, list[float]] = {short: [], long: []}
    of_question, answers, windows_of, late = 0, set(), {}, 0
    for threshold, context, seed in itertools.product((None, 1e9, "middle"), (short, long), range(8)):
        torch.nn.init.normal_(model.qa_outputs.weight, generator=torch.Generator().manual_seed(seed))
        decision = {} if threshold is None else {"null_threshold": threshold}
        if threshold == "middle":
            decision = {"null_threshold": sum(sorted(margins[context])[3:5]) / 2}
        record = RunRecord(
            name="x",
            kind="full",
            pipeline_tag=task.name,
            auto_class=task.auto_class,
            method={"name": "fine-tuning"},
            data=DataFacts(id="texts", source="local"),
            metrics=[],
            base=BaseModel(id="x", source="local", model_type=family),
            settings={"max_length": 128, "doc_stride": 32, "max_answer_length": 4},
            decision=decision,
            examples=[{"question": question, "context": context}],
        )
        namespace = {"model": model, "tokenizer": tokenizer}
        exec(card.call_snippet(record), namespace)
        ours = QuestionAnsweringPipeline(model, tokenizer, task, decision)(question, context)
        assert namespace["result"] == ours["answer"]
        answers.add(namespace["result"])
        outputs, parts = namespace["outputs"], namespace["windows"].sequence_ids(len(namespace["answers"]) - 1)
        of_question += parts[int(outputs.start_logits.argmax())] != 1
        if threshold == 1e9:
            margins[context].append(min(namespace["silence"]) - namespace["best"])
        windows_of[context] = len(namespace["answers"])
        late += namespace["answers"].index(max(namespace["answers"])) > 0
    assert of_question and "" in answers and len(answers) > 2
    assert windows_of[short] == 1 and windows_of[long] > 3 and late


def test_long_contexts_and_cut_questions_are_counted(checkpoints):
    model, tokenizer = checkpoints("bert", "AutoModelForQuestionAnswering")
    task = QuestionAnswering(max_length=128, doc_stride=32)
    rows = questions([("Where? " * 50, "Here.", ""), ("Where?", "It rains. " * 60, ""), (" Who? ", "She.", "She")])
    assert task.notes(task.encode(rows, tokenizer, model)) == [
        "1 of 3 contexts were read in overlapping windows",
        "1 of 3 questions were longer than 64 tokens and were cut",
        "2 of 3 questions have no answer in their context",
    ]


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "xlnet"])
def test_answers_that_are_too_long_are_counted(family, checkpoints):
    model, tokenizer = checkpoints(family, "AutoModelForQuestionAnswering")
    task = QuestionAnswering(max_length=128, doc_stride=32, max_answer_length=10)
    task.adapt(tokenizer, model)
    context = "It rains, and it rains. " * 40
    some = len(tokenizer("It rains, and it rains. " * 2, add_special_tokens=False)["input_ids"])
    assert 10 < some < 128 - 64, "a window holds them, and they are longer than what is looked for"
    long, longest = (("It rains, and it rains. " * times).strip() for times in (2, 39))
    rows = questions([("What?", context, answer) for answer in ("", "It", long, longest, longest)])
    notes = task.notes(task.encode(rows, tokenizer, model))
    assert notes[1:] == [
        "1 of 5 questions have no answer in their context",
        "2 of 4 answers stand whole in no window and count as no answer in training; a larger --doc_stride would help",
        "1 of 4 answers have more than 10 tokens, the most that is looked for; a larger --max_answer_length finds them",
    ]


def test_silence_is_right_where_there_is_no_answer():
    """SQuAD 2.0: the threshold that suits the validation rows is used as it is on others."""
    rows = questions([("?", "one two", "one"), ("?", "ab cd", ""), ("?", "six ten", "ten"), ("?", "x y", "")])
    features = Dataset.from_dict({"row": [0, 1, 2, 3], "offsets": [[(0, 3), (4, 7)]] * 4})
    predictions = {
        "start": np.array([0, 0, 0, 0]),
        "end": np.array([0, 0, 1, 0]),
        "span": np.array([3.0, 1.0, 2.0, 5.0]),
        "null": np.array([1.0, 4.0, 1.0, 1.0]),
        "log_total": np.array([3.5, 2.0, 2.5, 5.5]),
    }
    task = QuestionAnswering()
    score = task.score(predictions, rows, features, None)
    # Margins are -2, 3, -1 and -4: silent on the second row alone is the best a threshold can do.
    assert -1 < score.decision["null_threshold"] < 3
    assert [shown["predicted"] for shown in score.predictions] == ["one", "", "six ten", "x y"]
    assert score.metrics["exact_match"].tolist() == [100, 100, 0, 0]
    assert score.metrics["f1"].tolist() == pytest.approx([100, 100, 200 / 3, 0])
    assert np.nanmean(score.metrics["f1_answerable"]) == pytest.approx((100 + 200 / 3) / 2)
    assert score.metrics["no_answer_accuracy"].tolist() == [100, 100, 100, 0]
    model, silent = score.tables["Baselines"]
    assert model == {"system": "this model", "F1": pytest.approx(800 / 12), "exact match": 50}
    assert silent == {"system": 'always "no answer"', "F1": 50, "exact match": 50}
    again = task.score(predictions, rows, features, {"null_threshold": -10.0})
    assert again.decision == {"null_threshold": -10.0}
    assert again.metrics["exact_match"].tolist() == [0, 100, 0, 100]
    answerable = [0, 2]
    kept = {name: values[answerable] for name, values in predictions.items()}
    score = task.score(kept, rows.select(answerable), features.select([0, 1]), None)
    assert not score.tables, "saying nothing scores 0 where every question has an answer"


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "xlnet"])
def test_a_fine_tuned_model_loads_back_and_answers_as_evaluated(
    family, checkpoint_folders, tmp_path, load_back_here, capsys
):
    """From a folder of files; contexts of several windows, beside short ones in a batch."""
    context = "The river Danube rises in the Black Forest. " * 12 + "It ends in the Black Sea."
    rows = questions(
        [("Where does it end?", context, "the Black Sea"), ("Who?", "A baker.", "baker"), ("What fell?", "Snow.", "")]
    )
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) * 2)
    recipe = runpy.run_path(str(Path(__file__).parents[3] / "recipes" / "qa_finetune.py"))
    run = dataclasses.replace(
        recipe["RUN"], output_dir=str(tmp_path / "run"), model=str(checkpoint_folders(family)), dataset=str(tmp_path),
        max_steps=2, epochs=1, batch_size=6, learning_rate=1e-2, precision="fp32",
    )  # fmt: skip
    task = dataclasses.replace(recipe["TASK"], max_length=128, doc_stride=32)
    accelerator = launch.start(run)
    split, task = data.load(run, task)
    model, tokenizer, base = base_model.load(run, task)
    data.encode(split, task, tokenizer, model)
    model = recipe["METHOD"].wrap(model, base)
    experiment = Experiment(run, task, recipe["METHOD"], base, split, model, tokenizer, accelerator)
    history = training.train(experiment)
    score = training.evaluate(experiment, history.decision, split="validation")
    finish.finish(experiment, history, score)
    record = RunRecord.load(tmp_path / "run")
    assert record.verification["max_difference"] <= 1e-5
    assert any("overlapping windows" in note for note in record.data.notes)
    third = pytest.approx(100 / 3)  # two of the six rows measured have no answer
    assert record.tables["Baselines"][1] == {"system": 'always "no answer"', "F1": third, "exact match": third}
    assert 'always "no answer": F1 33.3, exact match 33.3' in capsys.readouterr().out
    assert '| always "no answer" | 33.33 | 33.33 |' in (tmp_path / "run" / "README.md").read_text()
    assert isinstance(record.verification["result"], str), "by the card's stock calls"
    answers = tl_hub.pipeline(tmp_path / "run")(rows["question"][:] * 2, rows["context"][:] * 2, batch_size=2)
    assert [answer["answer"] for answer in answers] == [shown["predicted"] for shown in score.predictions]
    # Who loads the published tokenizer asks the model what it was trained on, segment ids included.
    given = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")("Who?", "A baker.")
    short = split.splits["validation"].encoded[split.splits["validation"].encoded["row"].index(1)]
    assert ("token_type_ids" in short) == (family in ("bert", "xlnet"))
    for name in {"input_ids", "token_type_ids"} & short.keys():
        assert given[name] == short[name], name
    # Measured anew, the threshold is the one on record, and not the best for these rows.
    record.decision = {"null_threshold": -1e6}
    record.save(tmp_path / "run")
    (tmp_path / "test.jsonl").write_text(json.dumps(rows[1]) + "\n")  # of which nothing is claimed
    anew = {found["name"]: found for found in remeasure(tmp_path / "run", dataset=str(tmp_path))["metrics"]}
    assert anew["f1"]["found"] == anew["exact_match"]["found"] == third, "of a model that never answers"


@pytest.mark.parametrize("last", [False, True])
def test_an_end_of_text_stands_between_two_texts_of_gpt2(checkpoints, last):
    model, tokenizer = checkpoints("gpt2", "AutoModel")
    one, other = (tokenizer(text)["input_ids"] for text in ("Who?", "A baker."))
    give_separator(tokenizer, model, last=last)
    end = [tokenizer.eos_token_id]
    assert tokenizer("Who?", "A baker.")["input_ids"] == [*one, *end, *other, *end * last]
    assert tokenizer("Who?")["input_ids"] == one


def test_the_answer_comes_from_the_best_window():
    features = Dataset.from_dict(
        {"row": [0, 0, 1], "offsets": [[(0, 3), (4, 7)], [(8, 11), (12, 15)], [(0, 2), (3, 5)]]}
    )
    predictions = {
        "start": np.array([0, 1, 0]),
        "end": np.array([1, 1, 0]),
        "span": np.array([1.0, 3.0, 2.0]),
        "null": np.array([0.5, 5.0, 4.0]),
        "log_total": np.array([2.0, 3.5, 2.5]),
    }
    first, second = answers_of(predictions, features, ["one two six ten", "ab cd"])
    assert (first["answer"], first["start"], first["end"]) == ("ten", 12, 15)
    assert first["score"] == pytest.approx(np.exp(3.0) / (np.exp(2.0) + np.exp(3.5)))
    assert first["null_margin"] == pytest.approx(0.5 - 3.0)  # the lowest null score over the windows
    assert second["answer"] == "ab"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"question": "q", "context": "abc", "answers": {"text": ["c"], "answer_start": [0]}},
            "1 of 2 rows.*row 1.*'c'",
        ),
        (
            {"question": "q", "context": "abc", "answers": {"text": ["b"], "answer_start": []}},
            "row 1: answers is .*of equal length",
        ),
    ],
)
def test_wrong_rows_are_counted_and_shown(row, message):
    good = {"question": "q", "context": "abc", "answers": {"text": ["b"], "answer_start": [1]}}
    with pytest.raises(UserError, match=message):
        QuestionAnswering().check(Dataset.from_list([good, row]))


def test_blank_rows_are_left_out_and_others_refused():
    no_answer = {"text": [], "answer_start": []}
    rows = [{"question": q, "context": c, "answers": no_answer} for q, c in [("q", "c"), (" ", "c"), ("q", None)]]
    assert QuestionAnswering().check(Dataset.from_list(rows))["question"][:] == ["q"]
    with pytest.raises(UserError, match="none of the 2 rows has both a question and a context"):
        QuestionAnswering().check(Dataset.from_list(rows[1:]))
    with pytest.raises(UserError, match="row 0: context is 3; it must be a text"):
        QuestionAnswering().check(Dataset.from_list([{"question": "q", "context": 3, "answers": no_answer}]))


def test_own_column_names():
    rows = Dataset.from_list([{"q": "?", "c": "abc", "a": {"text": ["b"], "answer_start": [1]}, "more": 1}])
    task = QuestionAnswering(question_column="q", context_column="c", answers_column="a")
    assert set(task.check(rows).column_names) == {"question", "context", "answers"}
    with pytest.raises(UserError, match="no column 'question'.*has q, c, a, more.*--question_column"):
        QuestionAnswering().check(rows)


def test_a_model_that_reads_little_is_told_of_with_what_would_do(checkpoints):
    """Windows end where the model's positions do, and the record says so; the overlap must leave room in them."""
    model, tokenizer = checkpoints("bert", "AutoModelForQuestionAnswering")
    model.config.max_position_embeddings = 128
    task = QuestionAnswering(max_length=384, doc_stride=32)
    assert task.window_settings(tokenizer, model)["max_length"] == task.max_length == 128
    with pytest.raises(UserError, match="reads 128 tokens at most; --doc_stride 96 is too large"):
        QuestionAnswering(max_length=384, doc_stride=96).window_settings(tokenizer, model)
