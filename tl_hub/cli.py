"""Flags of the recipes, made from the fields of their settings, and the one place where errors become exit codes."""

import argparse
import dataclasses
import difflib
import errno
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from safetensors import SafetensorError

from tl_hub import published_settings
from tl_hub.errors import RunStopped, UserError, first_line
from tl_hub.other_names import OTHER_NAMES

_GROUPS = ("run", "task", "method")


class Parser(argparse.ArgumentParser):
    """Whose errors are a user's, as all others are."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help lists the flags)")


def parse(*settings: Any, doc: str | None, presets: Mapping[str, Mapping[str, Any]] | None = None) -> tuple[Any, ...]:
    """Read the command line into copies of `settings`: dataclass instances, whose values are the defaults.

    They are those of the run, the task and the method, in this order.

    A flag given by hand wins over the preset, the preset over the recipe's own default. Where `--method` names another
    method, what the recipe and the preset set for theirs falls away. `--a-b` and `--a_b` are one. What a flag or the
    preset gave is named in `given` of the first copy.

    Raises:
        UserError: unknown flag (names the nearest), a value of the wrong type, or one that a settings class refuses.
    """
    presets = presets or {}
    # argparse's own usage is one of all flags, 27 lines that push the description off the screen.
    parser = Parser(
        usage="%(prog)s [flags]",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if presets:
        parser.add_argument(
            "--preset",
            choices=list(presets),
            help="a public model and data set with settings for them; flags still win",
        )
    for place, instance in enumerate(settings):
        group = parser.add_argument_group(_GROUPS[place])
        hints = typing.get_type_hints(type(instance))
        for field in dataclasses.fields(instance):
            larger = published_settings.shown(field.name, *settings[1:]) if len(settings) == len(_GROUPS) else ""
            add_flag(group, field, hints[field.name], getattr(instance, field.name), larger)

    flags = [option for action in parser._actions for option in action.option_strings]
    known, unknown = parser.parse_known_args([_underscored(token, flags) for token in sys.argv[1:]])
    if unknown:
        raise UserError(f"unknown flag or value {unknown[0]}{_hint(unknown[0], flags)}")

    given = {name: value for name, value in vars(known).items() if value is not None}
    preset = presets[given.pop("preset")] if "preset" in given else {}
    # What says where the preset's rows are is nothing to other rows.
    if given.keys() & {"dataset", "train_file"}:
        preset = {name: value for name, value in preset.items() if not name.startswith("dataset")}
    parsed = tuple(_replaced(instance, preset, given) for instance in settings)
    parsed[0].given = frozenset(preset.keys() | given.keys())  # the others may give way to `published_settings`
    return parsed


def _replaced(settings: Any, preset: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    names = [field.name for field in dataclasses.fields(settings)]
    flags = {name: given[name] for name in names if name in given}
    chosen = {name: preset[name] for name in names if name in preset}
    # A window given alone takes a fitting overlap with it.
    for field in dataclasses.fields(settings):
        follows = field.metadata["follows"]
        if follows in flags and field.name not in flags:
            usual = chosen.get(field.name, getattr(settings, field.name))
            chosen[field.name] = max(1, min(usual, flags[follows] // 4))
    if "method" in flags and flags["method"] != chosen.get("method", settings.method):
        settings, chosen = type(settings)(), {}
    return dataclasses.replace(settings, **chosen | flags)


def run(main: Callable[[], None]) -> NoReturn:
    """Call a recipe's `main` and leave with its exit code: 0, 2 for a user's mistake, 130 for an interrupt."""
    try:
        main()
    except UserError as error:
        _leave(f"error: {error}", 2)
    except RunStopped as stop:
        _leave(str(stop), stop.exit_code)
    except (OSError, SafetensorError) as error:
        # safetensors has a class of its own for what it cannot write, and the number in the text only.
        if getattr(error, "errno", None) != errno.ENOSPC and f"(os error {errno.ENOSPC})" not in str(error):
            raise
        _leave(
            f"error: the disk is full ({first_line(error)}); free some space. A training state that was saved before "
            "is kept, and the same command with --resume goes on from it",
            2,
        )
    except KeyboardInterrupt:
        _leave("interrupted", 130)
    sys.exit(0)


def _leave(message: str, code: int) -> NoReturn:
    print(" ".join(message.split()), file=sys.stderr if code else sys.stdout, flush=True)
    sys.exit(code)


def _underscored(token: str, flags: Sequence[str]) -> str:
    if not token.startswith("--"):
        return token
    name, equals, value = token.partition("=")
    flag = "--" + name[2:].replace("-", "_")
    if flag not in flags:  # a negation, unless the flag's own name starts with no
        flag = flag.replace("--no_", "--no-", 1)
    return flag + equals + value


def _hint(token: str, flags: Sequence[str]) -> str:
    """What may have been meant: a flag of nearly that name, or the one that other scripts call so."""
    word = token.partition("=")[0]
    others = {f"--{name}": ours for name, ours in OTHER_NAMES.items()}
    near = [word] if word in others else difflib.get_close_matches(word, [*flags, *others], n=1)
    if not near:
        return " (--help lists the flags)"
    ours = others.get(near[0], near[0].removeprefix("--"))
    if " " in ours:
        return f"; {ours}"
    return f"; did you mean --{ours}?" if f"--{ours}" in flags else f"; it is --{ours} in the recipes that have it"


def add_flag(group: Any, field: dataclasses.Field, hint: Any, default: Any, larger: str = "") -> None:
    """Add the flag of a settings field, whose help ends with the default.

    Args:
        group: of a parser.
        hint: type of the field.
        default: what the help shows as such.
        larger: what it adds for larger models.
    """
    # None as argparse's default tells "not given" from "given the default": a preset must not beat a flag.
    shown = f"{default:g}" if isinstance(default, float) else str(default)
    if default is None:
        shown = field.metadata["shown"] or "none"
    text = f"{field.metadata['help']} [{shown}{larger}]".replace("%", "%%")
    options: dict[str, Any] = {"default": None, "help": text}
    if hint == bool | str:
        options |= {"nargs": "?", "const": True}
        hint = str
    if types.NoneType in typing.get_args(hint):
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not types.NoneType)
    if typing.get_origin(hint) is typing.Literal:
        options["choices"] = list(typing.get_args(hint))
    elif hint is bool:
        options["action"] = argparse.BooleanOptionalAction
    else:
        options["type"] = hint
        options["metavar"] = hint.__name__.upper()
    group.add_argument(f"--{field.name}", **options)
