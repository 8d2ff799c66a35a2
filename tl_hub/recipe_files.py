"""Where the recipes are, by name. Needs nothing but Python."""

from importlib import metadata
from pathlib import Path

import tl_hub
from tl_hub.errors import UserError, did_you_mean


def paths() -> dict[str, Path]:
    """Name -> file of the recipes of the clone that the package is in, or of those that were installed with it."""
    root = Path(tl_hub.__file__).parent.parent
    if (root / "pyproject.toml").is_file():
        found = sorted((root / "recipes").glob("*.py"))
    else:  # a folder `recipes` beside an installed package is another package's
        files = metadata.files("tl_hub") or []
        found = sorted(Path(file.locate()) for file in files if file.match("share/tl_hub/recipes/*.py"))
    return {path.stem: path for path in found}


def path_of(recipe: str) -> Path:
    """
    Raises:
        UserError: there is no recipe of this name.
    """
    recipes = paths()
    if recipe not in recipes:
        there = ", ".join(recipes) or "none: install tl_hub anew"
        near = did_you_mean(Path(recipe).stem, recipes)
        raise UserError(f"there is no recipe {recipe!r}; there are {there}{near}")
    return recipes[recipe]
