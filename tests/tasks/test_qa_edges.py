"""Answers with a blank or invisible character at an edge are trained as answers, whatever the tokenizer drops."""

import unicodedata

import pytest

from tl_hub.tasks.question_answering import QuestionAnswering, windows

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
