"""The card as one page for a browser, pictures included."""

import base64
import html
import re
from collections.abc import Mapping
from pathlib import Path

from tl_hub import run_folder
from tl_hub.card.templates import template


def write_page(folder: str | Path) -> Path:
    """Write `card.html` from the README.md of a run folder. It loads nothing from elsewhere.

    Text of the card that looks like HTML is shown as it stands: rows of data are among it.
    """
    folder = Path(folder)
    text = (folder / run_folder.CARD).read_text(encoding="utf-8-sig")
    text = re.sub(r"\A---\n.*?\n---\n|^<!--.*?-->$", "", text, flags=re.DOTALL | re.MULTILINE)
    pictures = {name: folder / name for name in run_folder.PICTURES}
    path = folder / run_folder.PAGE
    path.write_text(page_of(text, folder.resolve().name, pictures), encoding="utf-8")
    return path


def page_of(text: str, name: str, pictures: Mapping[str, Path]) -> str:
    """Markdown as one page, which shows what looks like HTML as it stands.

    Args:
        name: title, if the text has no heading.
        pictures: what the text calls each -> its file, where there is one.
    """
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    for source, file in pictures.items():
        if file.is_file():
            picture = base64.b64encode(file.read_bytes()).decode()
            body = body.replace(f'src="{source}"', f'src="data:image/png;base64,{picture}"')
    title = re.search(r"<h1>(.*?)</h1>", body)
    shown = html.unescape(re.sub(r"<.*?>", "", title[1])) if title else name
    return template("page.html").render(title=shown, body=body)
