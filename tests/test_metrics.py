"""EM, F1 and intervals against the published rules, worked by hand, and closed forms."""

import numpy as np
import pytest
import sacrebleu
import scipy.stats
from sklearn.metrics import f1_score

from tl_hub.evaluate_metrics import SquadMetric
from tl_hub.metrics import (
    best_threshold,
    bootstrap_interval,
    expected_calibration_error,
    f1_interval,
    interval_by_error,
    mean_interval,
    rouge_scores,
    squad_scores,
    translation_scores,
    words,
)


@pytest.mark.parametrize(
    ("prediction", "references", "exact", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 100, 100),  # case, article, punctuation
        ("an apple  a day", ["apple day"], 100, 100),  # articles inside, repeated blanks
        ("Paris", ["London", "Paris, France"], 0, 200 / 3),  # best of several references
        ("New York City", ["New York"], 0, 80),  # 2 * (2/3 * 1) / (2/3 + 1)
        ("the the cat", ["cat cat"], 0, 200 / 3),  # repeated words count as often as they stand
        ("", [], 100, 100),  # unanswerable and silent
        ("Paris", [], 0, 0),  # unanswerable, answered
        ("", ["Paris"], 0, 0),  # answerable, silent
        ("a", ["the", "Paris"], 0, 0),  # a reference of articles alone is none, as in the official scorer
        ("theatre", ["atre"], 0, 0),  # an article is a word, not letters
        ("naïve café", ["Naïve Café."], 100, 100),
    ],
)
def test_squad_rules(prediction, references, exact, f1):
    computed = SquadMetric().compute(predictions=[prediction], references=[references])
    assert computed == pytest.approx({"exact_match": exact, "f1": f1})


@pytest.mark.parametrize(
    ("prediction", "reference", "exact", "f1"),
    [
        ("1804년에", "1804년", 0, 1000 / 11),  # 5 of 6 characters and 5 of 5: a particle costs one character
        ("4년에", "1804년", 0, 50),  # 2 of 3 and 2 of 5
        ("《노인과 바다》", "노인과 바다", 100, 100),
        ("서울(특별시)", "서울 특별시", 100, 100),  # a bracket is a blank
        ("서울.특별시", "서울 특별시", 0, 100),  # a full stop is nothing, and blanks count in an exact match only
        ("“바다”", "바다", 0, 200 / 3),  # its scorer knows no such quotes: 2 of 4 and 2 of 2
        ("THE 바다", "바다", 0, 400 / 7),  # nor articles: 2 of 5 and 2 of 2
    ],
)
def test_korean_answers_are_counted_as_korquad_does(prediction, reference, exact, f1):
    computed = SquadMetric().compute(predictions=[prediction], references=[reference])
    assert computed == pytest.approx({"exact_match": exact, "f1": f1})


@pytest.mark.parametrize(
    ("prediction", "reference", "exact", "f1"),
    [
        ("在北京。", "北京", 0, 80),  # 2 of 3 and 2 of 2
        ("“北京”，", "北京", 100, 100),  # punctuation of any script
        ("２００８年 8月", "２００８年8月", 100, 100),
        ("2008年", "2018年", 0, 50),  # a number is one
        ("北京大学 PKU", "北京大学", 0, 800 / 9),  # 4 of 5 and 4 of 4
        ("東京・タワー", "東京", 0, 400 / 7),  # 2 of 5 and 2 of 2
        ("กรุงเทพฯ", "กรุงเทพ", 0, 1400 / 15),  # 7 of 8 and 7 of 7
    ],
)
def test_answers_in_scripts_without_blanks_are_counted_as_mlqa_does_chinese(prediction, reference, exact, f1):
    computed = SquadMetric().compute(predictions=[prediction], references=[reference])
    assert computed == pytest.approx({"exact_match": exact, "f1": f1})


def test_most_references_decide_how_all_are_counted():
    """KorQuAD's scorer counts the characters of a year too; one Korean name leaves English answers as they are."""
    years = squad_scores(["1805", "1804", "바다"], [["1804"], [], ["바다"]])
    assert list(years["f1"]) == pytest.approx([75, 0, 100])
    english = squad_scores(["the sea", "the sea", "서울 시", "1805"], [["sea"], ["a sea"], ["서울시"], ["1804"]])
    assert list(english["f1"]) == list(english["exact_match"]) == [100, 100, 0, 0]
    no_letters = squad_scores(["the 1805", "The", "an 1804"], [["1805"], [], ["1805"]])
    assert list(no_letters["f1"]) == [100, 100, 0], "SQuAD's, which leaves articles out"


def test_marks_stay_in_the_words_of_rouge():
    """Vowel signs are no letters in Unicode. Two words of Hindi that differ in them are two words."""
    assert words("हिन्दी भाषा, Café_1") == ["हिन्दी", "भाषा", "café_1"]
    assert words("東京・タワー ที่ 서울에서") == [*"東京タワー", *"ที่", "서울에서"]
    scores = rouge_scores(["한강은 서해로 흐른다.", "हिन्दी"], [["한강은 서울을 지나 서해로 흐른다."], ["हन्दा"]])
    assert list(scores["rouge1"]) == pytest.approx([75, 0])


def test_the_metric_is_the_mean_of_the_rows():
    predictions, references = ["a b", "c", "d e f"], [["a b"], ["x"], ["d e"]]
    rows = squad_scores(predictions, references)
    computed = SquadMetric().compute(predictions=predictions, references=references)
    assert computed == pytest.approx({name: values.mean() for name, values in rows.items()})


def test_a_single_reference_may_be_a_text():
    flat = SquadMetric().compute(predictions=["Paris", "", "x"], references=["paris", "", ""])
    assert flat == SquadMetric().compute(predictions=["Paris", "", "x"], references=[["paris"], [], []])
    assert flat["exact_match"] == pytest.approx(200 / 3)


def test_interval_of_a_proportion_is_wilsons():
    for right, rows in ((700, 1000), (19, 20), (50, 50), (1, 1), (0, 1)):
        low, high = mean_interval(np.repeat([0.0, 100.0], [rows - right, right]))
        stock = scipy.stats.binomtest(right, rows).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((100 * stock.low, 100 * stock.high))


def test_rows_of_one_group_count_as_one():
    """Ten copies of each row say nothing new: the interval must be that of the rows without copies."""
    scores, groups = 100 * np.random.default_rng(0).random(100), np.repeat(np.arange(100), 10)
    for interval in (bootstrap_interval, mean_interval):
        copied = interval(np.repeat(scores, 10), groups=groups)
        assert copied == pytest.approx(interval(scores))
        naive = interval(np.repeat(scores, 10))
        assert copied[1] - copied[0] > 2.5 * (naive[1] - naive[0])


def test_an_interval_says_how_little_few_rows_say():
    assert mean_interval(np.array([40.0])) == (0, 100)
    assert mean_interval(np.full(20, 100.0))[0] < 85
    one_paragraph = mean_interval(np.array([0.0, 100.0] * 20), np.zeros(40))
    assert one_paragraph == mean_interval(np.array([0.0, 100.0] * 20)), "as of rows, where there is no other group"


@pytest.mark.slow
@pytest.mark.parametrize("rows", [20, 50, 350])
def test_95_of_100_intervals_of_an_accuracy_hold_the_true_one(rows):
    """Exactly, by the binomial distribution of the right answers; the bootstrap's hold 33 at 20 rows and 98 %."""
    counts = np.arange(rows + 1)
    intervals = [mean_interval(np.repeat([0.0, 100.0], [rows - right, right])) for right in counts]
    for true in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98):
        holds = np.array([low <= 100 * true <= high for low, high in intervals])
        assert 0.92 <= scipy.stats.binom.pmf(counts, rows, true) @ holds <= 0.98, true


def drawn_scores(random, kind, rows, level):
    """Scores of a sample with their groups, and what they are on the average of all samples, from 0 to 1."""
    if kind == "rouge":
        return random.beta(2, 5, rows), None, 2 / 7
    sizes = random.integers(1, 10, rows)  # questions of a paragraph, which succeed or fail together
    groups = np.repeat(np.arange(rows), sizes)[:rows] if kind == "grouped" else np.arange(rows)
    chance = random.beta(6 * level, 6 * (1 - level), rows)[groups] if kind == "grouped" else level
    overlap = np.where(random.random(rows) < 0.4, random.uniform(0.2, 0.9, rows), 0)
    return np.where(random.random(rows) < chance, 1, overlap), groups, level + (1 - level) * 0.4 * 0.55


@pytest.mark.slow
@pytest.mark.parametrize("rows", [20, 50, 350])
@pytest.mark.parametrize(
    ("kind", "level"),
    [("f1", 0.5), ("f1", 0.8), ("f1", 0.95), ("grouped", 0.5), ("grouped", 0.8), ("grouped", 0.95), ("rouge", 0)],
)
def test_95_of_100_intervals_of_a_mean_hold_the_true_one(kind, level, rows):
    random, repetitions = np.random.default_rng(3), 1000
    holds = 0
    for _ in range(repetitions):
        scores, groups, true = drawn_scores(random, kind, rows, level)
        low, high = mean_interval(100 * scores, groups)
        holds += low <= 100 * true <= high
    sampling = 2 * np.sqrt(0.95 * 0.05 / repetitions)
    assert 0.92 - sampling <= holds / repetitions <= 0.98 + sampling


@pytest.mark.slow
@pytest.mark.parametrize("rows", [20, 50, 350])
@pytest.mark.parametrize("accuracy", [0.5, 0.8, 0.95, 0.98])
@pytest.mark.parametrize("classes", [2, 3])
def test_95_of_100_intervals_of_a_macro_f1_hold_the_true_one(rows, accuracy, classes):
    random, repetitions = np.random.default_rng(4), 400
    cells = np.full((classes, classes), (1 - accuracy) / (classes - 1) / classes)
    np.fill_diagonal(cells, accuracy / classes)
    holds = 0
    for _ in range(repetitions):
        answer, given = np.divmod(random.choice(classes**2, size=rows, p=cells.ravel()), classes)
        low, high = f1_interval(np.eye(classes, dtype=bool)[answer], np.eye(classes, dtype=bool)[given], "macro",
                                resamples=300)  # fmt: skip
        holds += low <= accuracy <= high  # classes of equal size and equal mistakes: F1 is accuracy
    sampling = 2 * np.sqrt(0.95 * 0.05 / repetitions)
    assert 0.92 - sampling <= holds / repetitions <= 0.98 + sampling


def test_translations_with_nothing_right_have_an_interval_too():
    found = translation_scores(["xyz", "the house"], [["나는 집에 가요."], ["the house is big"]], resamples=200)
    assert all(0 <= score["low"] <= score["value"] <= score["high"] <= 100 for score in found.values())


def test_each_reference_counts_where_rows_have_different_numbers_of_them():
    predictions, references = (
        ["the cat sat here", "a dog ran over there"],
        [["the cat sat here"], ["one", "a dog ran over there"]],
    )
    found = translation_scores(predictions, references, resamples=0)
    assert {name: score["value"] for name, score in found.items()} == pytest.approx({"chrf": 100, "bleu": 100})


def test_interval_of_a_mean_over_tokens_divides_by_the_tokens_that_were_drawn():
    """Each token has a loss of 2, so every resample has, however many tokens its rows hold, if any."""
    sizes = np.random.default_rng(0).integers(1, 50, 30)
    assert bootstrap_interval(2.0 * sizes, sizes=sizes) == pytest.approx((2, 2))
    sizes[1:] = 0  # one in three resamples has no token
    assert bootstrap_interval(2.0 * sizes, sizes=sizes) == pytest.approx((2, 2))


def test_interval_of_f1_is_that_of_a_proportion_where_each_row_has_one_class():
    """Micro F1 is accuracy there: 70 % of 1,000 rows."""
    expected = np.eye(2, dtype=bool)[np.repeat([0, 1], 500)]
    predicted = np.where(np.arange(1000)[:, None] % 10 < 7, expected, ~expected)
    low, high = f1_interval(expected, predicted, "micro")
    half = 1.96 * np.sqrt(0.7 * 0.3 / 1000)
    assert low == pytest.approx(0.7 - half, abs=0.002) and high == pytest.approx(0.7 + half, abs=0.002)


def test_no_threshold_gives_a_higher_f1_than_the_best_one():
    """Against every one that can be told apart. With one digit many are equal, and no threshold lies between those."""
    random = np.random.default_rng(0)
    for _ in range(50):
        probabilities, expected = random.random((4, 2)).round(1), random.random((4, 2)) < 0.4
        expected[0, 0] = True
        every = [f1_score(expected, probabilities >= t, average="micro") for t in np.unique(probabilities)]
        chosen = probabilities >= best_threshold(probabilities, expected)
        assert f1_score(expected, chosen, average="micro") == pytest.approx(max(every))


def test_calibration_error_worked_by_hand():
    """Guo et al. 2017: bins are open on the left, so 0.5 lies in (0.25, 0.5] and 0.6 in (0.5, 0.75]."""
    confidence, right = np.array([0.5, 0.6, 0.9, 0.9]), np.array([True, False, True, False])
    assert expected_calibration_error(confidence, right, bins=4) == pytest.approx((0.5 + 0.6 + 0.8) / 4)


@pytest.mark.slow
def test_the_interval_of_translations_is_wilsons_by_the_error_of_resamples():
    """By sacreBLEU's own score of resampled sentences, drawn here in another order."""
    random = np.random.default_rng(7)
    references, predictions = drawn_translations(random, 30, 0.6)
    found = translation_scores(predictions, [[text] for text in references])
    for name, score in (("chrf", sacrebleu.corpus_chrf), ("bleu", sacrebleu.corpus_bleu)):
        values = []
        for _ in range(400):
            drawn = random.integers(30, size=30)
            values.append(score([predictions[i] for i in drawn], [[references[i] for i in drawn]]).score)
        low, high = (100 * end for end in interval_by_error(found[name]["value"] / 100, np.std(values) / 100, 30))
        # An interval of 90 % is a sixth narrower.
        assert (found[name]["low"], found[name]["high"]) == pytest.approx((low, high), abs=0.05 * (high - low))


def drawn_translations(random, count, chance):
    """Texts, and copies of them in each of which every word stays by a chance of its own."""
    words = "the river rises in hills and ends sea a boat leaves at noon".split()
    references = [" ".join(random.choice(words, size=random.integers(4, 16))) for _ in range(count)]
    shares = random.beta(6 * chance, 6 * (1 - chance), count)
    predictions = [
        " ".join(word if random.random() < share else "snow" for word in text.split())
        for text, share in zip(references, shares, strict=True)
    ]
    return references, predictions


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "chance"), [(20, 0.5), (20, 0.85), (50, 0.5), (50, 0.85), (350, 0.85)])
def test_95_of_100_intervals_of_a_translation_hold_the_true_one(rows, chance):
    random, repetitions = np.random.default_rng(5), 40 if rows == 350 else 120
    references, predictions = drawn_translations(random, 2000, chance)
    true = {
        "chrf": sacrebleu.corpus_chrf(predictions, [references]).score,
        "bleu": sacrebleu.corpus_bleu(predictions, [references]).score,
    }
    holds = dict.fromkeys(true, 0)
    for _ in range(repetitions):
        drawn = random.integers(2000, size=rows)
        found = translation_scores([predictions[i] for i in drawn], [[references[i]] for i in drawn], resamples=150)
        for name, score in found.items():
            holds[name] += score["low"] <= true[name] <= score["high"]
    sampling = 2 * np.sqrt(0.95 * 0.05 / repetitions)
    for name, count in holds.items():
        assert 0.92 - sampling <= count / repetitions <= 0.98 + sampling, (name, count / repetitions)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [20, 50, 350])
def test_95_of_100_intervals_of_a_loss_hold_the_true_one(rows):
    """Texts differ in length, and each text's tokens are easy or hard together."""
    random, repetitions = np.random.default_rng(5), 300

    def drawn(count):
        tokens = random.integers(10, 200, count)
        return tokens * random.gamma(20, 3.5 / 20, count), tokens

    sums, tokens = drawn(1_000_000)
    true, holds = sums.sum() / tokens.sum(), 0
    for _ in range(repetitions):
        sums, tokens = drawn(rows)
        low, high = bootstrap_interval(sums, resamples=300, sizes=tokens)
        holds += low <= true <= high
    sampling = 2 * np.sqrt(0.95 * 0.05 / repetitions)
    assert 0.92 - sampling <= holds / repetitions <= 0.98 + sampling
