"""`tl-hub curve` against laws that are known, the same runs one by one, and the rows that are drawn."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.test_picture import figure_of
from tl_hub import data, samples
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.held_out import in_proportion
from tl_hub.record import RunRecord, SeedsMetric
from tl_hub.study import curve, learning_curve, pictures
from tl_hub.study.learning_curve import Point
from tl_hub.tasks.classification import SentimentAnalysis

SIZES = (8, 16, 32, 64, 128, 256, 512)


def law(rows, exponent=0.5):
    return 90 - 120 * rows**-exponent


def points(values, half=1.0):
    return [Point(rows, value, value - half, value + half) for rows, value in zip(SIZES, values, strict=False)]


@pytest.mark.slow
def test_twice_the_rows_bring_what_the_law_says():
    """Exactly where the points lie on it, and within the interval where they lie about it."""
    found = learning_curve.outlook(points([law(rows) for rows in SIZES], 0.5))
    assert found.rows == 1024 and found.gain == pytest.approx(law(1024) - law(512), abs=0.01)
    assert found.low < found.gain < found.high and found.missed == pytest.approx(0, abs=0.01)
    falling = learning_curve.outlook(points([100 - law(rows, 0.3) for rows in SIZES], 0.5))
    assert falling.gain == pytest.approx(law(512, 0.3) - law(1024, 0.3), abs=0.01)


@pytest.mark.slow
def test_the_interval_of_the_gain_holds(monkeypatch):
    monkeypatch.setattr(learning_curve, "_REFITS", 40)
    random, told, held = np.random.default_rng(0), 0, 0
    for _ in range(20):
        found = learning_curve.outlook(points([law(rows) + random.normal(0, 0.5) for rows in SIZES], 1.96 * 0.5))
        if found.gain is not None:
            told += 1
            held += found.low <= law(1024) - law(512) <= found.high
    assert told >= 10 and held >= 0.9 * told


@pytest.mark.parametrize(
    ("values", "half", "why"),
    [
        ([law(rows) for rows in SIZES[:4]], 1.0, "4 sizes are too few"),
        ([*(law(rows) for rows in SIZES[:6]), law(512) + 9], 1.0, "the law misses it by"),
        ([law(rows) + (-1) ** i for i, rows in enumerate(SIZES)], 0.2, ""),
    ],
)
def test_too_little_is_known_where_the_law_fails(values, half, why):
    found = learning_curve.outlook(points(values, half))
    assert found.gain is None and why in found.why


def test_drawn_rows_are_in_proportion_and_few_are_among_many():
    def drawn(rows, number):
        run = RunConfig(train_rows=rows, train_draw=number)
        return data.load(run, SentimentAnalysis())[0].splits["train"].rows

    every = data.load(RunConfig(), SentimentAnalysis())[0].splits["train"].rows
    few, many, other = (drawn(rows, number)["text"][:] for rows, number in ((16, 1), (40, 1), (16, 2)))
    assert few == many[:16] and len({*few} & {*other}) < 8 and {*many} <= {*every["text"][:]}
    assert few != every["text"][:16] and drawn(16, 1)["text"][:] == few
    shares = {label: count / len(every) for label, count in Counter(every["label"][:]).items()}
    for rows in (8, 17, 40):
        counts = Counter(drawn(rows, 3)["label"][:])
        assert all(abs(counts[label] - rows * share) <= 1 for label, share in shares.items())
    with pytest.raises(UserError, match="--train_draw is -1; it must be a number from 0"):
        RunConfig(train_draw=-1)


@pytest.fixture
def common(checkpoint_folders):
    return (
        "--model", str(checkpoint_folders("bert")), "--validation_rows", "20", "--test_rows", "30", "--no_examples",
        "--precision", "fp32", "--max_length", "64",
    )  # fmt: skip


def test_a_curve_is_of_ordinary_runs_that_are_made_once(command, recipe_here, begun, tmp_path, common):
    place = tmp_path / "curve"
    words = ("curve", "sentiment_features", *common, "--train_rows", "24", "--draws", "2", "--output_dir", place)
    ended = command(*words, "--sizes", "8,all")
    assert ended.returncode == 0, ended.stderr
    assert len(begun) == 4 and "24" in ended.stdout and "too little data to tell" in ended.stdout
    answer = json.loads(command(*words, "--sizes", "8,16,all", "--json").stdout)
    assert [Path(words[words.index("--output_dir") + 1]).name for words in begun[4:]] == [
        "rows=16,draw=1", "rows=16,draw=2"
    ]  # fmt: skip
    assert answer == json.loads((place / "curve.json").read_text()) and (place / "curve.png").exists()
    for point in answer["curves"][0]["points"]:
        folders = [place / "sentiment_features" / f"rows={point['train_rows']},draw={draw}" for draw in (1, 2)]
        records = [RunRecord.load(folder) for folder in folders]
        assert point["value"] == pytest.approx(np.mean([record.metrics[0].value for record in records]))
        assert [record.data.splits["train"].rows for record in records] == 2 * [point["train_rows"]]
        assert [record.settings["train_draw"] for record in records] == [1, 2]
    alone = ("--train_rows", "8", "--train_draw", "2", "--seed", "2", "--output_dir", tmp_path / "alone")
    assert recipe_here("sentiment_features", *common, *alone).returncode == 0
    record = RunRecord.load(place / "sentiment_features" / "rows=8,draw=2")
    assert record.metrics == RunRecord.load(tmp_path / "alone").metrics


def test_a_quick_curve_has_the_figures_of_the_recipe_on_the_same_rows(
    command, recipe_here, load_back_here, tmp_path, common, monkeypatch
):
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path / "cache"))
    rows = samples.load("sentiment")["train"][:30]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split in ("validation", "test"):
        lines = [json.dumps(row) + "\n" for row in samples.load("sentiment")[split][:30]]
        (tmp_path / f"{split}.jsonl").write_text("".join(lines))
    others = [word for split in ("validation", "test") for word in (f"--{split}_file", tmp_path / f"{split}.jsonl")]
    words = ("--train_file", tmp_path / "train.jsonl", *others, *common)
    ended = command(
        "curve", "sentiment", "--quick", "--json", "--sizes", "12,all", "--draws", "2", *words, "--output_dir",
        tmp_path / "curve",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    (line,) = json.loads(ended.stdout)["curves"]
    run = RunConfig(train_file=str(tmp_path / "train.jsonl"), validation_file=str(others[1]), train_draw=0)
    pool = data.load(run, SentimentAnalysis())[0].splits["train"].rows
    figures = []
    for draw in (0, 1):
        few = pool.select(np.sort(in_proportion(pool, draw + 1)[:12]))
        (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in few))
        own = ("--layer", "last4", "--pooling", "mean", "--seed", draw, "--output_dir", tmp_path / f"run{draw}")
        ended = recipe_here("sentiment_features", "--train_file", tmp_path / "few.jsonl", *others, *common, *own)
        assert ended.returncode == 0, ended.stderr
        figures.append(RunRecord.load(tmp_path / f"run{draw}").metrics[0].value)
    point = line["points"][0]
    assert [point["train_rows"], point["value"]] == [12, pytest.approx(np.mean(figures))]
    assert [point["least"], point["most"]] == pytest.approx(sorted(figures))
    assert not (tmp_path / "runs").exists() and (tmp_path / "curve" / "quick.png").exists()


def line(label, values, half=2.0, kind="adapter"):
    def figure(value):
        return SeedsMetric(
            name="accuracy", value=value, low=value - half, high=value + half, split="test", rows=100, unit="%",
            seeds=3, deviation=1.0, least=value - 1, most=value + 1,
        )  # fmt: skip

    return curve.Line(label, kind, {rows: figure(value) for rows, value in zip(SIZES, values, strict=False)})


def test_lines_cross_where_the_logarithm_says_and_it_is_shown_only_if_intervals_lie_apart(tmp_path):
    early, late = line("early", [60, 60, 60, 60], kind="feature-extraction"), line("late", [50, 50, 70, 80])
    answer = curve.drawn([early, late])
    assert answer["crossings"] == [
        {"technique": "late", "passes": "early", "train_rows": 23, "between": [16, 32], "shown": True}
    ]  # half way between 16 and 32 on the axis
    wide = curve.drawn([line("early", [60] * 4, 20.0), line("late", [50, 50, 70, 80], 20.0)])
    assert [crossing["shown"] for crossing in wide["crossings"]] == [False]
    assert not curve.drawn([early, line("above", [61] * 4)])["crossings"]
    text = curve.text_of(
        curve.drawn([early, late, line("third", [1] * 4), line("a long name of a technique", [2] * 4)])
    )
    assert text.count("too little data to tell") == 1
    assert "late passes early at about 23 rows." in text and max(map(len, text.splitlines())) <= 80
    assert text.count("\nrows ") == 2 and "60.0 (58.0 to 62.0)" in text
    pictures.draw_curves(tmp_path / "it.png", answer)
    assert (tmp_path / "it.png").stat().st_size > 5000


@pytest.mark.parametrize("doublings", [3, 8, 14])
def test_numbers_of_rows_do_not_touch_each_other_in_the_picture(tmp_path, monkeypatch, doublings):
    monkeypatch.setattr("tests.study.test_curve.SIZES", [8 * 2**i for i in range(doublings + 1)])
    answer = curve.drawn([line("features", [60.0] * (doublings + 1))])
    figure = figure_of(monkeypatch, lambda: pictures.draw_curves(tmp_path / "it.png", answer))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    labels = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
    places = [label.get_window_extent() for label in labels if label.get_text()]
    assert len(places) >= 3 and all(one.x1 + 4 < two.x0 for one, two in pairwise(places))


def test_sizes_double_up_to_all_rows():
    assert curve.sizes(None, 100) == [8, 16, 32, 64, 100] and curve.sizes(None, 70) == [8, 16, 32, 70]
    assert curve.sizes("64,8,all", 100) == [8, 64, 100]
    for asked in ("8,101", "1,8", "x", "8"):
        with pytest.raises(UserError, match="--sizes"):
            curve.sizes(asked, 100)
    with pytest.raises(UserError, match="1 size makes no curve; there are 7 training rows"):
        curve.sizes(None, 7)


def test_what_makes_no_curve_is_refused_in_a_line(command, tmp_path):
    (tmp_path / "mine.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in samples.load("sentiment")["train"][:30])
    )
    for words, says in [
        (("sentiment", "--draws", "1"), "--draws is 1; it must be at least 2"),
        (("sentiment", "--quick", "--check"), "--check is for training"),
        (("sentiment_adapter", "--quick"), "--quick fits heads on frozen vectors, which adapter does not"),
        (("sentiment", "--sizes", "8,9000"), "'9000' is none of 2 to"),
        (
            ("sentiment", "--train_file", tmp_path / "mine.jsonl"),
            "has training rows only; a curve needs rows that stay",
        ),
        (("sentiment_features", "--train_file", "none.csv"), "none.csv: no such file"),
    ]:
        ended = command("curve", *words, "--output_dir", tmp_path / "curve")
        assert ended.returncode == 2 and says in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr
    assert not (tmp_path / "curve").exists()
