"""Answers with a blank or invisible character at an edge are trained as answers, whatever the tokenizer drops."""

import unicodedata

import pytest
from datasets import Dataset

from tl_hub.tasks.question_answering import QuestionAnswering
from tl_hub.tasks.question_answering.windows import windows

FAMILIES = ("bert", "gpt2", "t5", "xlnet")
BODY = "The river Danube flows into the Black Sea near Sulina"


def edges():
    for odd in ("\u200b", "\ufeff", "\u00a0", "\n", " ", "\u2060", "\u3000"):
        yield odd + BODY, odd + "The river", 0
        yield BODY + odd, "Sulina" + odd, len(BODY) - len("Sulina")
        yield odd * 2 + BODY + odd, odd * 2 + BODY + odd, 0
        yield f"{BODY}{odd}{BODY}", f"{odd}The river", len(BODY)
    for word in ("cafe\u0301", "\u0301cafe"):
        yield f"{BODY} {word}", word, len(BODY) + 1
        yield word, word, 0
    yield BODY, "anub", BODY.index("anub")  # within a word


def seen(text: str) -> str:
    """What of a text all tokenizers keep."""
    kept = unicodedata.normalize("NFD", text)
    return "".join(c for c in kept if unicodedata.category(c)[0] not in "ZCM")


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_with_an_odd_edge_is_trained_as_an_answer(family, checkpoints):
    model, tokenizer = checkpoints(family, "AutoModelForQuestionAnswering")
    task = QuestionAnswering(max_length=128, doc_stride=32)
    task.adapt(tokenizer, model)
    settings = task.window_settings(tokenizer, model)
    for context, answer, start in edges():
        assert context[start : start + len(answer)] == answer
        gold = {"text": [answer], "answer_start": [start]}
        out = windows(tokenizer, ["Where?"], [context], [gold], [0], **settings)
        first, last, null = out["start_positions"][0], out["end_positions"][0], out["null_position"][0]
        assert first != null, (context, answer)
        covered = context[out["offsets"][0][first][0] : out["offsets"][0][last][1]]
        assert seen(answer) in seen(covered), (answer, covered)


def test_answers_that_cannot_be_trained_are_counted_by_their_reason(checkpoints):
    """Of seven rows: no answer (2), nothing visible in it (2, one context of many windows), cut by windows (1)."""
    model, tokenizer = checkpoints("bert", "AutoModelForQuestionAnswering")
    task = QuestionAnswering(max_length=96, doc_stride=8)
    task.adapt(tokenizer, model)
    long = " ".join([BODY] * 20)
    found = [
        (BODY, "Sulina"),
        (BODY, "The river"),
        (BODY, None),
        (long, None),
        (f"{BODY} \u200b {BODY}", "\u200b"),
        (f"{long} \u200b\u200b", "\u200b\u200b"),
        (long, long[10:-10]),
    ]
    rows = [
        {"question": "Where?", "context": context, "answers": {"text": [], "answer_start": []}}
        if answer is None
        else {
            "question": "Where?",
            "context": context,
            "answers": {"text": [answer], "answer_start": [context.index(answer)]},
        }
        for context, answer in found
    ]
    notes = task.notes(task.encode(task.check(Dataset.from_list(rows)), tokenizer, model))
    assert "2 of 7 questions have no answer in their context" in notes
    assert any(note.startswith("1 of 5 answers stand whole in no window") for note in notes)
    assert "2 of 5 answers have no character that the tokenizer reads and count as no answer in training" in notes
