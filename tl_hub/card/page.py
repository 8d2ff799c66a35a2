"""The card as one page for a browser, pictures included."""

import base64
import html
import re
from pathlib import Path

from tl_hub import run_folder
from tl_hub.card.templates import template


def write_page(folder: str | Path) -> Path:
    """Write `card.html` from the README.md of a run folder. It loads nothing from elsewhere.

    Text of the card that looks like HTML is shown as it stands: rows of data are among it.
    """
    from markdown_it import MarkdownIt

    folder = Path(folder)
    text = (folder / run_folder.CARD).read_text(encoding="utf-8-sig")
    text = re.sub(r"\A---\n.*?\n---\n|^<!--.*?-->$", "", text, flags=re.DOTALL | re.MULTILINE)
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    for name in run_folder.PICTURES:
        if (folder / name).is_file():
            picture = base64.b64encode((folder / name).read_bytes()).decode()
            body = body.replace(f'src="{name}"', f'src="data:image/png;base64,{picture}"')
    title = re.search(r"<h1>(.*?)</h1>", body)
    path = folder / run_folder.PAGE
    shown = html.unescape(re.sub(r"<.*?>", "", title[1])) if title else folder.resolve().name
    path.write_text(template("page.html").render(title=shown, body=body), encoding="utf-8")
    return path
