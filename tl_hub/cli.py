"""Flags of the recipes, made from the fields of their settings, and the one place where errors become exit codes."""

import argparse
import dataclasses
import difflib
import errno
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar, overload

from safetensors import SafetensorError

from tl_hub import published_settings, settings_file
from tl_hub.command_line import replace_arguments
from tl_hub.config import RunConfig
from tl_hub.errors import RunStopped, UserError, first_line, out_of_memory
from tl_hub.methods.adapters import Adapter
from tl_hub.methods.base import Method
from tl_hub.on_use import set_imports_aside
from tl_hub.other_names import OTHER_NAMES

_GROUPS = ("run", "task", "method")
Presets = Mapping[str, Mapping[str, Any]]
_Method = TypeVar("_Method", bound=Method)
if typing.TYPE_CHECKING:
    Commands = argparse._SubParsersAction["Parser"]


class Parser(argparse.ArgumentParser):
    """Whose errors are a user's, as all others are."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help lists the flags)")

    def parse_args(self, *given: Any, **options: Any) -> Any:
        """Of a command that passes flags on (`passes_on`), those that it does not know are in `others`."""
        asked, others = self.parse_known_args(*given, **options)
        if others and not getattr(asked, "passes_on", False):
            self.error(f"unrecognized arguments: {' '.join(others)}")
        asked.others = others
        return asked


def add_command(
    commands: "Commands", call: Callable[[argparse.Namespace], tuple[Any, str]], name: str, help: str, examples: str
) -> argparse.ArgumentParser:
    """A command of a program, such as `tl-hub push`.

    Args:
        commands: what `add_subparsers` gave.
        call: takes what was asked for, and gives the answer as plain values and as text.
        help: a line of what it does, in lower case.
        examples: command lines, one a line.
    """
    parser = commands.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="answer in JSON")
    parser.set_defaults(call=call)
    return parser


@overload
def parse(
    run: RunConfig, task: Any, method: _Method, /, *, doc: str | None, presets: Presets | None = None
) -> tuple[RunConfig, Any, _Method]: ...


@overload
def parse(*settings: Any, doc: str | None, presets: Presets | None = None) -> tuple[Any, ...]: ...


def parse(*settings: Any, doc: str | None, presets: Presets | None = None) -> tuple[Any, ...]:
    """Read the command line into copies of `settings`: dataclass instances, whose values are the defaults.

    They are those of the run, the task and the method, in this order.

    A flag given by hand wins over `--config`, that over the preset, and that over the recipe's own default. An adapter
    may be replaced by another by `--method`; what the recipe and the preset set for theirs falls away then. `--a-b` and
    `--a_b` are one.
    What a flag or the preset gave is named in `given` of the first copy.

    Raises:
        UserError: unknown flag (names the nearest), a value of the wrong type, one that a settings class refuses, or a
            setting of another method.
    """
    presets = presets or {}
    given = _given(_parser(settings, presets, doc))
    preset = presets[given.pop("preset")] if "preset" in given else {}
    # What says where the preset's rows are is nothing to other rows.
    if given.keys() & {"dataset", "train_file"}:
        preset = {name: value for name, value in preset.items() if not name.startswith("dataset")}
    parsed = tuple(_replaced(instance, preset, given) for instance in settings)
    parsed[0].given = frozenset(preset.keys() | given.keys())  # the others may give way to `published_settings`
    return parsed


def _parser(settings: Sequence[Any], presets: Presets, doc: str | None) -> Parser:
    """The flags of a recipe, by the classes of its settings, with what its help says of each."""
    # argparse's own usage is one of all flags, 27 lines that push the description off the screen.
    parser = Parser(
        usage="%(prog)s [flags]",
        description=doc,
        epilog=_examples(doc or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if presets:
        parser.add_argument(
            "--preset",
            choices=list(presets),
            help="a public model and data set with settings for them; flags still win",
        )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="settings by the flags' names in YAML, such as the settings.yaml of a run; flags still win",
    )

    def larger(name: str, method: Any) -> str:
        return published_settings.shown(name, settings[0], settings[1], method) if len(settings) == len(_GROUPS) else ""

    for place, instance in enumerate(settings):
        if isinstance(instance, Adapter):
            _add_adapter_flags(parser.add_argument_group(_GROUPS[place]), instance, larger)
            continue
        hints = typing.get_type_hints(type(instance))
        heading: str | None = _GROUPS[place]
        for field in dataclasses.fields(instance):
            if heading := field.metadata["group"] or heading:
                group, heading = parser.add_argument_group(heading), None
            shown = _shown(field, getattr(instance, field.name))
            add_flag(
                group, field, hints[field.name], f"{field.metadata['help']} [{shown}{larger(field.name, settings[-1])}]"
            )
    return parser


def _given(parser: Parser) -> dict[str, Any]:
    """What the command line and the file of its `--config` say, by name.

    Raises:
        UserError: unknown flag (names the nearest), or as `settings_file.read`.
    """
    flags = [option for action in parser._actions for option in action.option_strings]
    words = [_underscored(word, flags) for word in sys.argv[1:]]
    config = parser.parse_known_args(words)[0].config
    if config:
        at = next(i for i, word in enumerate(words) if word.partition("=")[0] == "--config")
        del words[at : at + (1 if "=" in words[at] else 2)]
        words = [*_of_config(config, flags), *words]
        replace_arguments(words)
    known, unknown = parser.parse_known_args(words)
    if unknown:
        raise UserError(f"unknown flag or value {unknown[0]}{_hint(unknown[0], flags)}")
    return {name: value for name, value in vars(known).items() if value is not None}


def _examples(doc: str) -> str | None:
    """The commands of a recipe's docstring once more: a terminal shows the end of a long help."""
    commands = re.findall(r"^ {4}(\S.*)$", doc, re.MULTILINE)
    return "\n  ".join(["examples:", *commands]) if commands else None


def _of_config(path: str, flags: Sequence[str]) -> list[str]:
    """The settings of a file as the words of a command line.

    Raises:
        UserError: as `settings_file.read`, or a setting that no flag is for.
    """
    settings = settings_file.read(path, flags)
    for name in settings:
        if name in ("sweep", "seeds"):
            raise UserError(f"--config {path}: {name} is for the command line; omit it here")
        if f"--{name}" not in flags or name == "config":
            raise UserError(f"--config {path}: unknown setting {name}{_hint(f'--{name}', flags)}")
    return settings_file.arguments(settings)


def _replaced(settings: Any, preset: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    if isinstance(settings, Adapter):
        settings, preset = _picked(settings, preset, given)
    names = [field.name for field in dataclasses.fields(settings) if field.init]
    flags = {name: given[name] for name in names if name in given}
    chosen = {name: preset[name] for name in names if name in preset}
    # A window given alone takes a fitting overlap with it.
    for field in (field for field in dataclasses.fields(settings) if field.init):
        follows = field.metadata["follows"]
        if follows in flags and field.name not in flags:
            usual = chosen.get(field.name, getattr(settings, field.name))
            chosen[field.name] = max(1, min(usual, flags[follows] // 4))
    return dataclasses.replace(settings, **chosen | flags)


def _picked(usual: Adapter, preset: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[Adapter, Mapping[str, Any]]:
    """The adapter that `--method`, the preset or else the recipe names, and the preset unless it is for another one.

    Raises:
        UserError: a flag is given that is a setting of others only.
    """
    of_preset = preset.get("method", usual.method)
    method = given.get("method", of_preset)
    kind = usual.methods[method]
    settings = {field.name for field in dataclasses.fields(kind)}
    for name in given:
        if name not in settings and any(name in other.flags() for other in usual.methods.values()):
            own = ", --".join(name for name in kind.flags() if name != "merge")
            raise UserError(f"--{name} is not a setting of --method {method}; its own are --{own}")
    return usual if method == usual.method else kind(), preset if method == of_preset else {}


def run(main: Callable[[], None]) -> NoReturn:
    """Call a recipe's `main` and leave with its exit code: 0, 2 for a user's mistake, 130 for an interrupt."""
    set_imports_aside()
    try:
        if any(word.partition("=")[0] in ("--sweep", "--seeds") for word in sys.argv):
            from tl_hub import several_runs  # which itself reads flags by this module

            several_runs.call(main)
        else:
            main()
    except UserError as error:
        _leave(f"error: {error}", 2)
    except RunStopped as stop:
        _leave(str(stop), stop.exit_code)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        _leave(
            "error: memory ran out; halve --batch_size and double --accumulation, which changes no result, or shorten "
            "--max_length. A training state that was saved before is kept, and --resume goes on from it",
            1,
        )
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
    if os.environ.get("LOCAL_RANK", "0") == "0":  # what ends all processes is said once
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


def _add_adapter_flags(group: Any, usual: Adapter, larger: Callable[[str, Adapter], str]) -> None:
    """Add `--method` and the flags of all adapters, each with the methods it is for and its default with each.

    Args:
        group: of a parser.
        usual: the adapter that the recipe uses, whose values are its defaults.
        larger: what the help of a flag adds for larger models, by the flag's name and the adapter.
    """
    group.add_argument("--method", choices=list(usual.methods), help=f"what is added and trained [{usual.method}]")
    adapters = [usual if name == usual.method else kind() for name, kind in usual.methods.items()]
    common = [field.name for field in dataclasses.fields(Adapter) if field.init]
    own = dict.fromkeys(name for adapter in adapters for name in adapter.flags() if name not in common)
    for name in [*own, *common]:
        those = [adapter for adapter in adapters if name in adapter.flags()]
        says = {adapter.method: adapter.flags()[name].metadata["help"] for adapter in those}
        defaults = {
            adapter.method: _shown(adapter.flags()[name], getattr(adapter, name)) + larger(name, adapter)
            for adapter in those
        }
        text = _by_method(says, always=len(those) < len(adapters))
        field, hint = those[0].flags()[name], typing.get_type_hints(type(those[0]))[name]
        add_flag(group, field, hint, f"{text} [{_by_method(defaults)}]")


def _by_method(texts: Mapping[str, str], always: bool = False) -> str:
    """Texts with the methods they are for; one that all share stands alone, unless its methods are `always` named."""
    methods: dict[str, list[str]] = {}
    for method, text in texts.items():
        methods.setdefault(text, []).append(method)
    if len(methods) == 1 and not always:
        return next(iter(methods))
    return "; ".join(f"{', '.join(names)}: {text.replace('; ', ', ')}" for text, names in methods.items())


def _shown(field: dataclasses.Field[Any], default: Any) -> str:
    """What the help says of a flag that is not given."""
    if default is None:
        return field.metadata["shown"] or "none"
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"{default:g}" if isinstance(default, float) else str(default)


def add_flag(group: Any, field: dataclasses.Field[Any], hint: Any, text: str) -> None:
    """Add the flag of a settings field.

    Args:
        group: of a parser.
        hint: type of the field.
        text: its help, with the default.
    """
    # None as argparse's default tells "not given" from "given the default": a preset must not beat a flag.
    options: dict[str, Any] = {"default": None, "help": text.replace("%", "%%")}
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
