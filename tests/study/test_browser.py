"""The pages of studies in a real browser, as wide as a phone, light and dark."""

import contextlib
import json
import re
import shutil
import subprocess

import matplotlib.figure
import matplotlib.text
import pytest

from tests.study.test_compare import write_run
from tests.study.test_curve import line
from tests.study.test_domains import compared
from tl_hub.study import compare, curve, pictures, report

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")]
PHONE = 390
NAMES = ("compare", "curve", "domains")
# A window of a browser is no narrower than 500 pixels; a frame is as narrow as it is told.
FRAMES = """<!doctype html><body>%s<script>
onload = () => {
  const seen = [...document.querySelectorAll("iframe")].map(frame => {
    const root = frame.contentDocument.documentElement, body = getComputedStyle(frame.contentDocument.body);
    const tables = [...frame.contentDocument.querySelectorAll("td, th")];
    return {width: root.clientWidth, content: root.scrollWidth, back: body.backgroundColor, text: body.color,
            pictures: [...frame.contentDocument.images].map(image => [image.naturalWidth, image.clientWidth]),
            cells: Math.min(...tables.map(cell => cell.clientWidth))};
  });
  document.body.innerHTML = "<pre>" + JSON.stringify(seen) + "</pre>";
};
</script>"""


@contextlib.contextmanager
def smallest_text():
    """Path of a picture that is drawn within -> the size of its smallest text, as a share of the picture's width."""
    found, save = {}, matplotlib.figure.Figure.savefig

    def saved(figure, path, **settings):
        save(figure, path, **settings)
        sizes = [text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
        found[path.stem] = min(sizes) / 72 / figure.get_figwidth()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matplotlib.figure.Figure, "savefig", saved)
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page of a study of each kind, with names as long as those of real runs."""
    with smallest_text() as texts:
        return written(tmp_path_factory.mktemp("pages"), tmp_path_factory.mktemp("runs")), texts


def written(folder, runs):
    scores = [[100.0] * good + [0.0] * (60 - good) for good in (50, 20)]
    for name, each in zip(("document_classification_finetune", "sentiment_adapter, tiny:gpt2"), scores, strict=True):
        write_run(runs / name, each, each, 70.0)
    read = [compare.read(path.name, path) for path in sorted(runs.iterdir())]
    answer = json.loads(json.dumps(compare.compared(read, "seconds")))
    pictures.draw_costs(folder / "compare.png", answer, {run.label: run.cost("seconds") for run in read}, "seconds")
    report.write_comparison(folder, answer)
    answer = curve.drawn([line("early", [60] * 4, kind="feature-extraction"), line("late", [50, 50, 70, 80])])
    pictures.draw_curves(folder / "curve.png", answer)
    report.write_curve(folder, answer, "curve")
    answer = json.loads(json.dumps(compared()))
    pictures.draw_domains(folder / "domains.png", answer)
    report.write_domains(folder, answer, "domains")
    return folder


def opened(folder, dark):
    """What a browser makes of each page in a frame of a phone's width, and what it logs as errors."""
    frames = "".join(
        f'<iframe src="{name}.html" width="{PHONE}" height="800" frameborder="0"></iframe>' for name in NAMES
    )
    (folder / "frames.html").write_text(FRAMES % frames)
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", "--dump-dom"]
        + ["--allow-file-access-from-files", "--enable-logging=stderr", scheme]
        + [f"--user-data-dir={folder / 'profile'}", (folder / "frames.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search("<pre>(.*)</pre>", done.stdout)
    assert found, done.stdout[:500] + done.stderr[-2000:]
    logged = [said for said in done.stderr.splitlines() if "CONSOLE" in said]
    return dict(zip(NAMES, json.loads(found[1]), strict=True)), logged


def test_pages_fit_a_phone_in_light_and_dark_without_an_error(pages):
    folder, texts = pages
    light, said = opened(folder, dark=False)
    dark, said_dark = opened(folder, dark=True)
    assert said == said_dark == []
    for name, page in light.items():
        assert page["content"] <= page["width"] == PHONE, f"{name} scrolls sideways"
        assert page["pictures"] and all(own > 0 and shown <= PHONE for own, shown in page["pictures"]), name
        ((_, shown),) = page["pictures"]
        assert shown * texts[name] >= 11, f"the text in the picture of {name} has {shown * texts[name]:.1f} pixels"
        assert page["cells"] > 20, f"a column of {name} is squeezed to letters"
        assert (page["back"], dark[name]["back"]) == ("rgb(255, 255, 255)", "rgb(13, 17, 23)")
        assert page["text"] != dark[name]["text"]
