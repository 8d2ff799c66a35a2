"""Settings of a run as YAML: each run leaves `settings.yaml`, and `--config` reads such a file."""

import dataclasses
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from tl_hub import run_folder
from tl_hub.errors import UserError, first_line
from tl_hub.methods.adapters import Adapter

_ONCE = ("resume", "overwrite", "check", "sweep", "trials", "seeds", "soup", "dry_run", "verbose")
"""Settings that say what to do this time, not what the run is."""
SWITCHES = {"true": True, "false": False}


def read(path: str, flags: Container[str]) -> dict[str, Any]:
    """Setting -> value, a text as it is written (`language: no` is Norwegian) unless the flag says yes or no.

    Raises:
        UserError: no such file, not YAML, or not one value a setting.
    """
    import yaml  # `tl-hub`, whose flags are made by the same module, needs none

    try:
        settings = yaml.load(Path(path).read_text(encoding="utf-8"), yaml.BaseLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path} cannot be read: {first_line(error)}") from error
    except yaml.YAMLError as error:
        raise UserError(f"--config {path} is not YAML: {first_line(error)}") from error
    if not isinstance(settings, dict):
        raise UserError(f"--config {path} holds no settings; write one a line, such as epochs: 3")
    for name, value in settings.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise UserError(f"--config {path}: {name} is {value!r}; give a text, a number, true or false")
        if f"--no-{name}" in flags:
            if value not in SWITCHES:
                raise UserError(f"--config {path}: {name} is {value!r}; give true or false")
            settings[name] = SWITCHES[value]
    return settings


def arguments(settings: Mapping[str, Any]) -> list[str]:
    """The words that say the same on a command line."""
    words = []
    for name, value in settings.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words += [f"--{name}={value}"] if str(value).startswith("-") else [f"--{name}", str(value)]
    return words


def write(folder: Path, command: str, parts: Iterable[Any]) -> None:
    """Write `settings.yaml`, with every setting of a run, given or not.

    Args:
        command: what starts the run again, for the first line.
        parts: dataclasses of settings.
    """
    import yaml

    settings = {
        name: value
        for part in parts
        for name in (*(["method"] if isinstance(part, Adapter) else []), *_flags(part))
        if name not in _ONCE and (value := getattr(part, name)) is not None
    }
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    (folder / run_folder.SETTINGS).write_text(f"# {' '.join(command.split())}\n{text}", encoding="utf-8")


def _flags(part: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(part) if field.init]
