"""Paired tests against enumeration, loops and simulations."""

import itertools

import numpy as np
import pytest
from sacrebleu.metrics import CHRF

from tl_hub import metrics
from tl_hub.study import paired
from tl_hub.study.paired import Difference


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (1, 0), (3, 7), (5, 5), (0, 9), (8, 1)])
def test_mcnemar_is_the_share_of_all_splits_that_are_as_rare(won, lost):
    """By all ways in which the rows of disagreement could have fallen."""
    falls = [sum(fall) for fall in itertools.product((0, 1), repeat=won + lost)]
    often = {count: falls.count(count) for count in falls}
    as_rare = sum(often[count] <= often[won] for count in falls)
    assert paired.mcnemar(won, lost) == pytest.approx(as_rare / len(falls))


def test_rows_that_are_right_or_wrong_take_mcnemar_and_an_interval_that_holds():
    ours, theirs = np.array([100.0] * 7 + [0.0] * 3), np.array([100.0] * 5 + [0.0] * 4 + [100.0])
    found = paired.compare(ours, theirs)
    assert (found.value, found.p, found.test) == (10.0, 1.0, "McNemar, exact")
    assert found.low < 10 < found.high
    alike = paired.compare(ours, ours)
    assert (alike.value, alike.p) == (0.0, 1.0) and alike.low < -10 and alike.high > 10, "ten rows tell little"

    random, held, shown = np.random.default_rng(0), 0, 0
    for _ in range(1000):
        hard = random.random(40) < 0.3  # both fail on hard rows, each on some of the others
        scores = [100.0 * ~(hard | (random.random(40) < wrong)) for wrong in (0.1, 0.2)]
        found = paired.compare(*scores)
        held += found.low <= 7.0 <= found.high  # 0.7 * (0.2 - 0.1)
        shown += paired.compare(*(100.0 * ~(hard | (random.random(40) < 0.2)) for _ in range(2))).p < 0.05
    assert 930 <= held <= 980 and shown <= 50


def test_other_rows_take_the_bootstrap_whole_groups_at_a_time():
    random = np.random.default_rng(1)
    groups = np.repeat(np.arange(12), 5)
    of_group = random.normal(4, 10, 12)[groups]
    ours = 50 + of_group + random.normal(0, 1, 60)
    theirs = np.full(60, 50.0)
    means = []
    for _ in range(4000):
        drawn = random.integers(12, size=12)
        means.append(np.concatenate([(ours - theirs)[groups == group] for group in drawn]).mean())
    found = paired.compare(ours, theirs, groups)
    assert found.test == "paired bootstrap" and found.value == pytest.approx((ours - theirs).mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.5)
    alone = paired.compare(ours, theirs)
    assert alone.high - alone.low < 0.7 * (found.high - found.low)
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0) and alone.p < found.p
    assert paired.compare(theirs + 1, theirs).p == pytest.approx(2 / 10_001)


def test_a_figure_of_a_corpus_takes_sentences_that_are_drawn_for_both():
    """Against sacreBLEU's own figure of each corpus that is drawn."""
    random = np.random.default_rng(2)
    words = ["Haus", "Garten", "Straße", "Hund", "läuft", "rote", "kleine", "Kinder"]
    truth = [" ".join(random.choice(words, 6)) for _ in range(40)]

    def translated(right):
        return [" ".join(w if random.random() < right else "und" for w in text.split()) for text in truth]

    good, bad = translated(0.8), translated(0.6)
    metric, apart = CHRF(), []
    for _ in range(400):
        drawn = random.integers(40, size=40)
        of = [metric.corpus_score([texts[i] for i in drawn], [[truth[i] for i in drawn]]) for texts in (good, bad)]
        apart.append(of[0].score - of[1].score)
    counts = [metrics.chrf_counts(texts, truth) for texts in (good, bad)]
    found = paired.compare_corpora(*counts, metrics.chrf_of)
    assert found.value == pytest.approx(
        metric.corpus_score(good, [truth]).score - metric.corpus_score(bad, [truth]).score
    )
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(apart, [0.025, 0.975])), abs=1.5)
    assert found.p < 0.05 and found.low > 0
    alike = paired.compare_corpora(counts[0], counts[0], metrics.chrf_of)
    assert (alike.value, alike.p, alike.verdict(True)) == (0.0, 1.0, "no difference shown")


def test_holm_multiplies_the_smallest_most_and_keeps_the_order():
    def of(*probabilities):
        return [each.p for each in paired.holm([Difference(0, 0, 0, p, "") for p in probabilities])]

    assert of(0.01, 0.04, 0.03) == pytest.approx([0.03, 0.06, 0.06])
    assert of(0.9, 0.6) == [1.0, 1.0] and of(0.04) == [0.04] and of() == []


def test_a_verdict_turns_with_what_is_better():
    def said(value, p, higher):
        return Difference(value, 0, 0, p, "").verdict(higher)

    assert said(1, 0.01, True) == said(-1, 0.01, False) == "better"
    assert said(-1, 0.049, True) == said(1, 0.01, False) == "worse"
    assert said(9, 0.05, True) == "no difference shown"
