"""The templates of cards and their snippets."""

import functools
import json
from pathlib import Path
from typing import Any

from tl_hub.card.markdown import code_span, cut, figure, text_as_is, without_folders


@functools.cache
def template(name: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parents[1] / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        text=text_as_is, code=code_span, cut=cut, figure=figure, literal=literal, without_folders=without_folders
    )
    return environment.get_template(name)


def literal(value: Any) -> str:
    """A text, or a dict of them, as Python source in double quotes."""
    return json.dumps(value, ensure_ascii=False)
