"""Windows, spans, thresholds and scores, against brute force."""

import itertools

import numpy as np
import pytest
import torch
from datasets import Dataset

from tl_hub.errors import UserError
from tl_hub.tasks.question_answering import QuestionAnswering, answers_of, best_spans, best_threshold


def brute_force_spans(start, end, first, last, longest):
    """Every valid span of one window, best first."""
    spans = [
        (float(start[i] + end[j]), i, j)
        for i, j in itertools.product(range(first, last), repeat=2)
        if i <= j < i + longest
    ]
    return sorted(spans, key=lambda span: -span[0])


@pytest.mark.parametrize("longest", [1, 3, 30])
def test_best_spans_equals_brute_force(longest):
    random = torch.Generator().manual_seed(longest)
    start, end = torch.randn(40, 24, generator=random) * 3, torch.randn(40, 24, generator=random) * 3
    first = torch.randint(0, 12, (40,), generator=random)
    last = first + 1 + torch.randint(0, 12, (40,), generator=random)
    null = torch.zeros(40, dtype=torch.long)
    found = best_spans(start, end, first, last, null, longest)
    for row in range(40):
        spans = brute_force_spans(start[row], end[row], int(first[row]), int(last[row]), longest)
        assert (int(found["start"][row]), int(found["end"][row])) == spans[0][1:]
        assert float(found["span"][row]) == pytest.approx(spans[0][0], abs=1e-5)
        assert float(found["log_total"][row]) == pytest.approx(np.logaddexp.reduce([s for s, _, _ in spans]), abs=1e-4)
        assert float(found["null"][row]) == pytest.approx(float(start[row, 0] + end[row, 0]), abs=1e-5)


def test_a_top_20_search_would_miss_the_best_span():
    """Why the search is exact: the best starts and the best ends are too far apart to pair up."""
    start, end = torch.zeros(1, 200), torch.zeros(1, 200)
    start[0, :25], end[0, 100:125] = 5.0, 5.0  # never within ten tokens of each other
    start[0, 60], end[0, 62] = 4.9, 4.9
    found = best_spans(start, end, torch.tensor([0]), torch.tensor([200]), torch.tensor([0]), 10)
    assert (int(found["start"]), int(found["end"])) == (60, 62)


def test_best_threshold_equals_trying_them_all():
    random = np.random.default_rng(0)
    for _ in range(50):
        margin = random.normal(size=20)
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
        "The river Danube rises in the Black Forest. " * 20 + "It ends in the Black Sea, near 도나우 강 삼각주. " * 5
    )
    answers = [("Black Sea", context.index("Black Sea")), ("도나우 강", context.index("도나우 강")), ("The", 0)]
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
            assert answers[row][0] in context[start:end].strip() and end - start <= len(answers[row][0]) + 4
        assert feature["input_ids"][feature["null_position"]] in (tokenizer.cls_token_id, tokenizer.eos_token_id)
    assert all(held)
    letters = {i for i, letter in enumerate(context) if not letter.isspace()}
    assert all(letters <= places for places in covered)


def test_the_answer_comes_from_the_best_window():
    features = Dataset.from_dict(
        {"row": [0, 0, 1], "offsets": [[(0, 3), (4, 7)], [(8, 11), (12, 15)], [(0, 2), (3, 5)]]}
    )
    predictions = {
        "start": np.array([0, 1, 0]),
        "end": np.array([1, 1, 0]),
        "span": np.array([1.0, 3.0, 2.0]),
        "null": np.array([5.0, 0.5, 4.0]),
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
        ({"question": "", "context": "abc", "answers": {"text": [], "answer_start": []}}, "lack a question"),
    ],
)
def test_wrong_rows_are_counted_and_shown(row, message):
    good = {"question": "q", "context": "abc", "answers": {"text": ["b"], "answer_start": [1]}}
    with pytest.raises(UserError, match=message):
        QuestionAnswering().check(Dataset.from_list([good, row]))


def test_own_column_names():
    rows = Dataset.from_list([{"q": "?", "c": "abc", "a": {"text": ["b"], "answer_start": [1]}, "more": 1}])
    task = QuestionAnswering(question_column="q", context_column="c", answers_column="a")
    assert set(task.check(rows).column_names) == {"question", "context", "answers"}
    with pytest.raises(UserError, match="no column 'question'.*has q, c, a, more.*--question_column"):
        QuestionAnswering().check(rows)
