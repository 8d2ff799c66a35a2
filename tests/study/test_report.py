"""The page of a study, read as a browser reads it."""

import base64
import json
from html.parser import HTMLParser

from tests.study.test_compare import write_run
from tests.study.test_curve import line
from tl_hub.study import compare, curve, pictures, report


class Page(HTMLParser):
    """The cells of tables, the text, and all that would be loaded."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.loaded, self.text, self.pictures, self.tags = [], [], "", [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        source = dict(attributes).get("src") or dict(attributes).get("href")
        if source and source.startswith("data:image/png;base64,"):
            self.pictures.append(base64.b64decode(source.partition(",")[2]))
        elif source:
            self.loaded.append(source)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, text):
        self.text += text
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += text.strip("\n")


def test_a_comparison_is_one_page_with_its_picture(tmp_path):
    scores = [[100.0] * good + [0.0] * (60 - good) for good in (50, 20)]
    for name, each, seconds in zip(("best|<b>", "other"), scores, (70.0, 5.0), strict=True):
        metric = {"name": "accuracy", "value": 50.0, "split": "test", "rows": 40, "unit": "%", "drop": 33.3}
        domains = [{"name": "tweets", "data": {"id": "t", "source": "local"}, "metrics": [metric]}]
        write_run(tmp_path / name, each, each, seconds, domains=domains)
    runs = [compare.read(path.name, path) for path in sorted(tmp_path.iterdir())]
    answer = json.loads(json.dumps(compare.compared(runs, "seconds")))
    pictures.draw_costs(tmp_path / "compare.png", answer, {run.label: run.cost("seconds") for run in runs}, "seconds")
    report.write_comparison(tmp_path, answer)
    text = (tmp_path / "compare.html").read_text()
    page = Page(text)
    assert page.pictures == [(tmp_path / "compare.png").read_bytes()] and not page.loaded and "b" not in page.tags
    assert ["best|<b>", "83.33", "1 min 10 s", "0.0 MB", "10"] in page.rows
    assert ["tweets (40)", "best|<b>", "50.0", "worse by 33.3 points"] in page.rows
    other = next(row for row in page.rows if row[0] == "other" and "worse" in row)
    found = answer["differences"]["test"]["other"]
    assert other[1:5] == ["worse", "-50.00", f"{found['low']:.4g} to {found['high']:.4g}", "< 0.001"]
    assert answer["advice"]["sentence"] in page.text and answer["notes"][0] in page.text
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text


def test_a_curve_is_one_page_with_its_outlook_and_crossings(tmp_path):
    lines = [line("early", [60] * 4, kind="feature-extraction"), line("late", [50, 50, 70, 80])]
    answer = json.loads(json.dumps(curve.drawn(lines)))
    pictures.draw_curves(tmp_path / "curve.png", answer)
    report.write_curve(tmp_path, answer, "curve")
    page = Page((tmp_path / "curve.html").read_text())
    assert page.rows[0] == ["training rows", "early", "late"] and ["32", "60 (58 to 62)", "70 (68 to 72)"] in page.rows
    assert "late passes early at about 23 rows." in page.text and "early, late: too little data to tell" in page.text
    assert page.pictures == [(tmp_path / "curve.png").read_bytes()] and not page.loaded
