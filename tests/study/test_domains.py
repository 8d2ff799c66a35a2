"""Models of several domains in each of them: against the recipe's own runs, and sentences of figures made by hand."""

import json
import random

import pytest

from tests.study.test_report import Page
from tests.test_picture import figure_of
from tl_hub import samples
from tl_hub.domain_sources import sources
from tl_hub.errors import UserError
from tl_hub.record import DataFacts, Domain, DomainMetric, Metric, RunRecord
from tl_hub.study import domains, pictures, report, runs


@pytest.fixture
def folders(tmp_path):
    """Two domains, whose texts are in columns of different names."""
    for name, column in (("sentiment", "review"), ("sentiment-gadgets", "text")):
        for split, rows in samples.load(name).items():
            place = tmp_path / name / f"{split}.jsonl"
            place.parent.mkdir(exist_ok=True)
            lines = [json.dumps({column: row["text"], "label": row["label"]}) + "\n" for row in rows[:24]]
            place.write_text("".join(lines))
    return f"films={tmp_path}/sentiment text_column=review,gadgets={tmp_path}/sentiment-gadgets"


@pytest.fixture
def words(checkpoint_folders, monkeypatch, tmp_path):
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path / "cache"))
    return ("--model", checkpoint_folders("bert"), "--layer", "last4", "--pooling", "mean")


def test_each_domain_is_trained_on_once_and_measured_by_all(command, begun, folders, words, tmp_path):
    """By ordinary runs, which are kept; quick figures are the same, as both read the same rows and layers."""
    place = tmp_path / "study"
    asked = ("domains", "sentiment_features", "--data", folders, *words, "--json", "--output_dir")
    ended = command(*asked, place)
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    assert len(begun) == 2 and answer == json.loads((place / "domains.json").read_text())
    cells = {(cell["trained_on"], cell["measured_on"]): cell for cell in answer["cells"]}
    for own, other in (("films", "gadgets"), ("gadgets", "films")):
        record = RunRecord.load(place / "sentiment_features" / f"on={own}")
        assert record.data.id.startswith("sentiment") and record.domains[0].name == other
        assert cells[own, own]["value"] == record.metrics[0].value and cells[own, own]["drop"] is None
        found = record.domains[0].metrics[0]
        kept = ("value", "low", "high", "drop", "drop_low", "drop_high")
        assert [cells[own, other][name] for name in kept] == [getattr(found, name) for name in kept]
    assert (place / "domains.png").stat().st_size > 5000 and (place / "domains.html").is_file()
    again = command(*asked, place)
    assert again.returncode == 0 and len(begun) == 2, "no run is made twice"
    quick = command(*asked, tmp_path / "quick", "--quick")
    assert quick.returncode == 0 and len(begun) == 2, quick.stderr
    figures = {(cell["trained_on"], cell["measured_on"]): cell for cell in json.loads(quick.stdout)["cells"]}
    for pair, cell in cells.items():
        assert figures[pair]["value"] == pytest.approx(cell["value"]), "which were measured in another way"
    assert sorted(path.name for path in (tmp_path / "quick").iterdir()) == ["quick.html", "quick.json", "quick.png"]


def test_a_check_asks_the_recipe_about_the_domain_with_most_rows(command, monkeypatch, tmp_path):
    """And takes the others for as much shorter, as their rows are fewer."""
    asked = []

    def checked(study, job):
        asked.append(job.name)
        return {"seconds": 2400.0, "memory_bytes": 2**30}

    monkeypatch.setattr(runs.Study, "checked", checked)
    data = "gadgets=sample:sentiment-gadgets,restaurants=sample:sentiment"
    ended = command(
        "domains", "sentiment_adapter", "--data", data, "--check", "--json", "--output_dir", tmp_path / "study"
    )
    assert ended.returncode == 0, ended.stderr
    assert asked == ["sentiment_adapter/on=restaurants"] and not (tmp_path / "study").exists()
    assert json.loads(ended.stdout)["seconds"] == 3000, "600 rows take a quarter of 2,400"


def test_the_distance_is_none_between_like_texts_and_2_between_others():
    """Words drawn from one vocabulary cannot be told apart; those of two always can; a mixture lies between."""
    chance = random.Random(0)

    def texts(words, count=120):
        return [" ".join(chance.choice(words) for _ in range(12)) for _ in range(count)]

    soups, phones = [f"soup{i}" for i in range(30)], [f"phone{i}" for i in range(30)]
    assert domains.proxy_a_distance(texts(soups), texts(phones)) == 2
    assert domains.proxy_a_distance(texts(soups), texts(soups)) < 0.4
    some = [text if i % 2 else other for i, (text, other) in enumerate(zip(texts(soups), texts(phones), strict=True))]
    assert 0.5 < domains.proxy_a_distance(texts(soups), some) < 1.5
    assert domains.proxy_a_distance(texts(soups, 500), texts(phones, 20)) > 1.5, "as many of each are compared"


def trained(name, value, others):
    """A model with its figure, and for each other domain the figure and the interval of the drop."""
    fact = {"name": "accuracy", "split": "test", "rows": 100, "unit": "%"}
    found = []
    for other, (figure, low, high) in others.items():
        interval = {"low": figure - 5, "high": figure + 5, "drop": value - figure, "drop_low": low, "drop_high": high}
        metric = DomainMetric(**fact, value=figure, **interval)
        found.append(Domain(name=other, data=DataFacts(id=other, source="local"), metrics=[metric]))
    return domains.Trained(name, Metric(**fact, value=value, low=value - 5, high=value + 5), found)


TEXTS = {"films": ["good film"] * 20, "tweets": ["bad tweet"] * 20, "a long name of a domain": ["good film"] * 20}


def compared(low=10.0):
    one, two, three = TEXTS
    matrix = [
        trained(one, 90.0, {two: (60.0, low, 50.0), three: (89.0, -4.0, 6.0)}),
        trained(two, 80.0, {one: (75.0, low - 9, 12.0), three: (82.0, -9.0, 5.0)}),
        trained(three, 85.0, {one: (84.0, -5.0, 7.0), two: (70.0, -1.0, 29.0)}),
    ]
    return domains.compared("features", "some/bert", matrix, TEXTS)


def test_names_of_domains_stay_within_the_picture(tmp_path, monkeypatch):
    answer = compared()
    figure = figure_of(monkeypatch, lambda: pictures.draw_domains(tmp_path / "domains.png", answer))
    figure.draw_without_rendering()  # in its own resolution again, not that of the file
    whole = figure.bbox
    (squares,) = figure.axes
    labels = [squares.xaxis.label, squares.yaxis.label, *figure.texts]
    assert [text.get_text() for text in labels] == ["measured on", "trained on", "accuracy, %"]
    for text in [*labels, *squares.get_xticklabels(), *squares.get_yticklabels()]:
        place = text.get_window_extent()
        assert whole.x0 <= place.x0 and place.x1 <= whole.x1 + 1, text
        assert whole.y0 <= place.y0 and place.y1 <= whole.y1 + 1, text


def test_the_largest_drop_that_is_shown_is_told_with_what_may_help(tmp_path):
    answer = compared()
    assert answer["advice"].startswith(
        "Most can be regained for the model of films on tweets: it is worse by 30.0 points (10.0 to 50.0), and a model "
        "trained there has 80.0 where it has 60.0."
    )
    assert "continued_pretraining_finetune.py --model some/bert --train_file TEXTS" in answer["advice"]
    assert compared(low=-1.0)["advice"] == "No model is shown to be worse in another domain than in its own."
    one, two, _ = TEXTS
    hard = [trained(one, 90.0, {two: (60.0, 10.0, 50.0)}), trained(two, 60.0, {one: (89.0, -40.0, -20.0)})]
    assert "the rows of that domain are harder" in domains.compared("features", "some/bert", hard, TEXTS)["advice"]
    text = domains.text_of(answer)
    assert max(map(len, text.splitlines())) <= 80 and "60.0 (55.0 to 65.0)" in text
    flat = " ".join(text.split())
    assert "films to tweets: worse by 30.0 points (10.0 to 50.0); distance of the texts 2.00" in flat
    assert "films to a long name of a domain: worse by 1.0 points (-4.0 to 6.0); distance of the texts 0.00" in flat
    pictures.draw_domains(tmp_path / "domains.png", answer)
    report.write_domains(tmp_path, json.loads(json.dumps(answer)), "domains")
    page = Page((tmp_path / "domains.html").read_text())
    assert page.pictures == [(tmp_path / "domains.png").read_bytes()] and not page.loaded
    assert ["films", "90.0 (85.0 to 95.0)", "60.0 (55.0 to 65.0)", "89.0 (84.0 to 94.0)"] in page.rows
    assert ["tweets", "2.00", "–", "2.00"] in page.rows and answer["advice"] in page.text


def test_the_flags_of_a_domain_leave_those_of_the_others_as_they_are():
    named = domains.named(sources("a=x/ text_column=review,b=y/z.csv,c/d"))
    assert list(named) == ["a", "b", "d"]
    usual = {"text_column": "text"}
    assert domains.words_of("b", named, usual) == [
        "--dataset", "y/z.csv", "--text_column", "text", "--eval_on", "a=x/ text_column=review,d=c/d text_column=text",
    ]  # fmt: skip


def test_what_makes_no_matrix_is_refused_in_a_line(command, folders, tmp_path):
    two = ("--data", "sample:sentiment,gadgets=sample:sentiment-gadgets")
    alone = tmp_path / "alone"
    alone.mkdir()
    rows = samples.load("sentiment")["train"][:30]
    (alone / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for asked, says in [
        (("sentiment", *two), "sentiment is not one recipe; give one, such as sentiment_features"),
        (("sentiment_features", "--data", "sample:sentiment"), "a matrix takes two domains or more"),
        (("sentiment_features", "--data", "a=sample:sentiment,a=x"), "two domains are called a"),
        (("sentiment_features", *two, "--test_file", "x.csv"), "--test_file is not for tl-hub domains"),
        (("sentiment_adapter", *two, "--quick"), "it takes one recipe *_features"),
        (("sentiment_features", *two, "--quick", "--check"), "--quick fits heads"),
        (("sentiment_features", "--data", f"{alone},x={alone}"), "alone has no test rows with answers"),
        (("sentiment_features", "--data", "b=sample:documents,a=sample:sentiment"), "class"),
    ]:
        ended = command("domains", *asked, "--output_dir", tmp_path / "study")
        assert ended.returncode == 2 and says in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr
    assert not (tmp_path / "study").exists()
    with pytest.raises(UserError, match="--data"):
        domains.named(sources("a=x", "data"))
