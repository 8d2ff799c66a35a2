"""Pictures of cards: under a style of the user's, and what their axes show."""

import io
import json

import matplotlib.figure
import matplotlib.style
import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from PIL import Image

from tl_hub import curves, picture, risk_coverage
from tl_hub.methods import layer_choice
from tl_hub.metrics import mean_interval
from tl_hub.record import DataFacts, Metric, RunRecord
from tl_hub.tasks.base import Score


def recorded(folder, metric, course):
    """A record of a run of four steps an epoch, with its log."""
    steps = [{"step": step, "loss": 3 / step} for step in range(1, 1 + 4 * len(course))]
    (folder / "log.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    return RunRecord(
        name="a run",
        kind="fine-tuned",
        pipeline_tag="text-classification",
        auto_class="AutoModelForSequenceClassification",
        method={"name": "fine-tuning"},
        data=DataFacts(id="rows.csv", source="local"),
        metrics=[metric],
        history=[{"epoch": i, "step": 4 * i, metric.name: value} for i, value in enumerate(course, start=1)],
        best_epoch=1,
    )


def figure_of(monkeypatch, draw):
    """What `draw` drew, as matplotlib has it."""
    figures = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda *a, **k: (figures.append(a[0]), save(*a, **k)))
    draw()
    return figures[0]


def test_a_picture_is_readable_on_a_dark_page_whatever_the_users_style(tmp_path):
    """That style would draw white text on a plate that is not there."""
    record = recorded(tmp_path, Metric(name="f1", value=50.0, split="test", rows=9), [50.0, 49.0])
    drawn = []
    for transparent in (False, True):
        with matplotlib.style.context("dark_background" if transparent else "default"):
            matplotlib.rcParams["savefig.transparent"] = transparent
            curves.draw(tmp_path, record)
        drawn.append((tmp_path / "curves.png").read_bytes())
    assert drawn[0] == drawn[1]
    pixels = np.asarray(Image.open(io.BytesIO(drawn[0])).convert("RGBA"))
    assert (pixels[..., 3] == 255).all() and (pixels[0, :, :3] == 255).all()
    assert (pixels[..., :3].max(-1) < 40).sum() > 200, "letters and axes are dark"


def test_curves_show_the_result_with_its_interval_and_do_not_stretch_a_small_difference(tmp_path, monkeypatch):
    metric = Metric(name="f1", value=90.0, low=86.0, high=93.5, split="test", rows=9, unit="%")
    record = recorded(tmp_path, metric, [89.6, 89.4])
    axes = figure_of(monkeypatch, lambda: curves.draw(tmp_path, record)).axes[1]
    bottom, top = axes.get_ylim()
    assert bottom < 86.0 and top > 93.5 and top - bottom >= 10
    assert axes.get_ylabel() == "F1, %"
    (bars,) = (part for part in axes.containers if isinstance(part, ErrorbarContainer))
    (segments,) = (lines.get_segments() for lines in bars[2])
    np.testing.assert_allclose(segments, [[[4, 86.0], [4, 93.5]]])  # at the kept epoch
    assert bars.get_label() == "result: test F1, 95 % interval"


def test_an_end_of_an_interval_may_be_rounded_past_the_result(tmp_path):
    """As where all rows have the same score."""
    metric = Metric(name="f1", value=100 / 3, low=np.nextafter(100 / 3, 100), high=60.0, split="test", rows=9, unit="%")
    curves.draw(tmp_path, recorded(tmp_path, metric, [30.0]))
    assert (tmp_path / "curves.png").is_file()


def test_a_result_without_an_interval_or_without_a_course(tmp_path, monkeypatch):
    loss = Metric(name="perplexity", value=20.0, split="validation", rows=9)
    axes = figure_of(monkeypatch, lambda: curves.draw(tmp_path, recorded(tmp_path, loss, [20.4, 20.0]))).axes
    assert axes[1].containers[0].get_label() == "result: validation perplexity" and axes[1].get_ylabel() == "perplexity"
    record = recorded(tmp_path, loss, [20.4, float("nan")])
    record.history = record.history[1:]
    assert len(figure_of(monkeypatch, lambda: curves.draw(tmp_path, record)).axes) == 1


def test_layers_that_hardly_differ_look_it(tmp_path, monkeypatch):
    sweep = [{"layer": str(i), "mean": 70 + i / 10} for i in range(4)]
    axes = figure_of(monkeypatch, lambda: layer_choice.draw(tmp_path, sweep, "3", "mean", "accuracy")).axes[0]
    bottom, top = axes.get_ylim()
    assert bottom < 70 and top > 70.3 and top - bottom >= 10


@pytest.mark.parametrize("names", [["features", "adapter"], [f"sentiment_adapter {'alpha=32 ' * i}" for i in range(9)]])
def test_a_legend_stays_within_the_picture_and_leaves_the_axes_their_room(tmp_path, monkeypatch, names):
    def draw():
        with picture.drawn(tmp_path / "it.png") as figure:
            axes = figure.subplots()
            for name in names:
                axes.plot([1, 2], [1, 2], label=name)
            picture.legend(figure)

    figure = figure_of(monkeypatch, draw)
    figure.draw_without_rendering()
    (legend,), (axes,) = figure.legends, figure.axes
    place = legend.get_window_extent()
    assert place.x0 >= 0 and place.x1 <= figure.bbox.x1 and place.y1 <= figure.bbox.y1
    assert place.y0 >= axes.bbox.y1 and axes.bbox.height > 0.6 * picture.HEIGHT * figure.dpi


@pytest.mark.parametrize(
    ("values", "unit", "bottom", "top"),
    [
        ([70.0, 70.4], "%", 65.2, 75.2),
        ([99.6, 100.0], "%", 90.3, 100.3),
        ([0.0, 0.2], "%", -0.3, 9.7),
        ([0.0, 100.0], "%", -3.0, 103.0),
        ([-20.0, 80.0], "%", -30.0, 90.0),  # as explained variance may be
        ([0.5, 0.52], "share", 0.46, 0.56),
        ([20.0, 20.4], None, 19.18, 21.22),
        ([0.0], None, -0.5, 0.5),
    ],
)
def test_limits_of_an_axis(values, unit, bottom, top):
    np.testing.assert_allclose(picture.limits(values, unit), (bottom, top))


@pytest.mark.parametrize("grouped", [False, True])
def test_the_risk_coverage_curve_is_what_counting_gives(tmp_path, monkeypatch, grouped):
    """Of 230 rows, many of equal confidence: the lines' data against counts at every point, one after another."""
    random = np.random.default_rng(0)
    confidence = random.integers(1, 120, 230) / 120
    right = random.random(230) < confidence
    groups = random.integers(0, 40, 230) if grouped else None
    score = Score({}, groups, decision={"sure_from": 0.8}, confidence=confidence, right=right)
    axes = figure_of(monkeypatch, lambda: risk_coverage.draw(tmp_path, score)).axes[0]
    curve, mark, line = axes.lines
    answered, wrong = curve.get_data()
    assert answered[-1] == 100 and len(answered) > 60 and (np.diff(answered) > 0).all()
    corners = {(round(x, 6), round(y, 6)) for x, y in axes.collections[0].get_paths()[0].vertices}
    for share, risk in zip(answered, wrong, strict=True):
        (surest,) = (
            s for c in np.unique(confidence) if len(s := np.flatnonzero(confidence >= c)) == round(2.3 * share)
        )
        assert risk == pytest.approx(100 * sum(not right[i] for i in surest) / len(surest))
        bounds = mean_interval(100.0 * ~right[surest], None if groups is None else groups[surest])
        assert {(round(share, 6), round(bound, 6)) for bound in bounds} <= corners
    sure = confidence >= 0.8
    np.testing.assert_allclose(np.ravel(mark.get_data()), [100 * sure.mean(), 100 * (1 - right[sure].mean())])
    np.testing.assert_allclose(line.get_xdata(), 100 * sure.mean())
    assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > wrong.max()


def test_few_rows_have_no_risk_coverage_curve_and_no_answer_called_sure_no_mark(tmp_path, monkeypatch):
    confidence, right = np.linspace(0.5, 1, 100), np.arange(100) % 3 > 0
    risk_coverage.draw(tmp_path, Score({}, confidence=confidence[:99], right=right[:99]))
    risk_coverage.draw(tmp_path, Score({}))
    assert not [*tmp_path.iterdir()]
    score = Score({}, decision={"sure_from": 1.01}, confidence=confidence, right=right)
    axes = figure_of(monkeypatch, lambda: risk_coverage.draw(tmp_path, score)).axes[0]
    assert len(axes.lines) == 1 and (tmp_path / "risk_coverage.png").stat().st_size > 1000
