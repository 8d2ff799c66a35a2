"""Draw docs/images/card.png, a model card beside its curves. Needs Chromium.

python -m tools.pages.picture
"""

import base64
import re
import subprocess
import tempfile
from pathlib import Path

from markdown_it import MarkdownIt
from PIL import Image

ROOT = Path(__file__).parents[2]
CARD = ROOT / "model_cards" / "qa_adapter.md"
WIDTH, HEIGHT = 1360, 640
PAGE = """<!doctype html><meta charset="utf-8"><style>
body { margin: 0; padding: 20px; width: 1320px; height: 600px; overflow: hidden; background: #eef1f4; color: #1f2328;
       display: grid; grid-template-columns: 690px 610px; gap: 20px; font: 15px/1.5 "DejaVu Sans", sans-serif; }
section { background: #fff; border: 1px solid #d1d9e0; border-radius: 8px; padding: 4px 26px; overflow: hidden; }
h1 { font-size: 25px; border-bottom: 1px solid #d1d9e0; padding-bottom: 7px; margin: 15px 0; }
h2 { font-size: 19px; border-bottom: 1px solid #d1d9e0; padding-bottom: 5px; margin: 16px 0 12px; }
code { font: 13px/1.45 "DejaVu Sans Mono", monospace; background: #eff1f3; border-radius: 4px; padding: 1px 4px; }
pre { background: #f6f8fa; border-radius: 6px; padding: 10px 14px; margin: 10px 0; white-space: pre-wrap; }
pre code { background: none; padding: 0; font-size: 12px; }
table { border-collapse: collapse; font-size: 13px; } td, th { border: 1px solid #d1d9e0; padding: 3px 10px; }
th { background: #f6f8fa; text-align: left; } img { width: 100%; } p { margin: 10px 0; }
</style>"""


def main() -> None:
    text = re.sub(r"\A---\n.*?\n---\n|<!--.*?-->\n", "", CARD.read_text(encoding="utf-8"), flags=re.DOTALL)
    parts = {part.split("\n")[0]: part for part in re.split(r"^## ", text, flags=re.MULTILINE)}
    first = next(iter(parts.values()))
    summary = "\n\n".join(first.split("\n\n")[:2])
    snippet = parts["How to use"].split("Or, with tl_hub")[1].split("\n", 1)[1]
    table = parts["Results"].split("###")[0]
    curves = base64.b64encode(CARD.with_suffix(".png").read_bytes()).decode()
    render = MarkdownIt().enable("table").render
    page = (
        f"{PAGE}<section>{render(summary)}<h2>How to use</h2>{render(snippet)}</section>"
        f'<section>{render("## " + table)}<img src="data:image/png;base64,{curves}"></section>'
    )
    target = ROOT / "docs" / "images" / "card.png"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "card.html").write_text(page, encoding="utf-8")
        subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={WIDTH},{HEIGHT}"]
            + [f"--screenshot={target}", f"{folder}/card.html"],
            check=True,
            capture_output=True,
        )
    Image.open(target).convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(target, optimize=True)


if __name__ == "__main__":
    main()
