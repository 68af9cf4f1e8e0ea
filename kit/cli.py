"""The command `kit`: plan and train from a terminal.

    kit demo                                        teach the embedded base a new thing, in minutes
    kit plan run.toml --set network_dim=16          what would happen, without torch
    kit train run.toml                              do it, or go on with it
    kit settings > run.toml                         every setting with its help
    kit inspect cat.safetensors                     what a LoRA file says about itself

What goes wrong and a person can put right ends with exit code 2 and no traceback.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from kit import __version__, catalog
from kit.errors import KitError, SettingsError, nearest
from kit.planning import plan
from kit.settings import Declared, Settings, declarations
from kit.sinks import Console, listening

WRONG = 2  # the exit code of argparse, too
INTERRUPTED = 130  # what shells report for Ctrl-C


@dataclass(frozen=True)
class Command:
    """One word after `kit`."""

    help: str
    describe: Callable[[argparse.ArgumentParser], None]
    act: Callable[[argparse.Namespace], int | None]  # an exit code, where it is not 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        _check_command(words)
        chosen = _parser().parse_args(words or ["--help"])
        code = COMMANDS[chosen.command].act(chosen) or 0
        sys.stdout.flush()
        return code
    except KitError as error:
        print(f"kit: {error}", file=sys.stderr)
        return WRONG
    except BrokenPipeError:  # whoever read our output, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("\nkit: interrupted", file=sys.stderr)
        return INTERRUPTED


def _check_command(words: Sequence[str]) -> None:
    """Argparse refuses an unknown word too, but does not say which one was meant."""
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        raise KitError(
            f"kit {words[0]}: there is no such command{nearest(words[0], COMMANDS)}",
            f"There are {', '.join(COMMANDS)}.",
            "kit --help tells what each does.",
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kit",
        description="Train LoRA adapters for Stable Diffusion 1.x, 2.x and XL.",
        epilog="kit COMMAND --help tells more about a command.",
    )
    parser.add_argument("--version", action="version", version=f"LoRA Kit {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        below = commands.add_parser(
            name,
            help=command.help,
            description=f"{command.help[0].upper()}{command.help[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.describe(below)
    return parser


# ---------------------------------------------------------------------------- plan and train


def _takes_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="run.toml",
        help="a file with settings; `kit settings` prints one to begin with",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="changes",
        metavar="NAME=VALUE",
        help="a setting that counts more than the file's, e.g. --set network_dim=16 or "
        "--set network.network_dim=16; an empty value is a blank; may be given again",
    )
    parser.epilog = """examples:
  %(prog)s run.toml
  %(prog)s run.toml --set network_dim=16 --set output_name=rank16
  %(prog)s --set train_data_dir=images --set pretrained_model_name_or_path=base.safetensors"""


def _describe_plan(parser: argparse.ArgumentParser) -> None:
    _takes_settings(parser)
    parser.add_argument("--json", action="store_true", help="the plan's numbers, for programs")


def read_settings(file: Path | None, changes: Sequence[str]) -> Settings:
    """The file's settings, or the defaults, with the changes of --set.

    Raises: SettingsError with every problem of both at once.
    """
    problems: list[str] = []
    values: dict[str, str] = {}
    settings = Settings()
    for change in changes:
        try:
            name, value = parse_change(change)
            values[name] = value
        except SettingsError as error:
            problems += error.problems
    try:
        settings = Settings.load(file) if file else settings
    except SettingsError as error:
        problems += error.problems
    try:
        settings = settings.replace(**values)
    except SettingsError as error:
        problems += error.problems
    if problems:
        raise SettingsError(problems)
    return settings


def parse_change(text: str) -> tuple[str, str]:
    """`network_dim=16` or `network.network_dim=16` to the setting's name and what it is set to.

    Raises: SettingsError where it is neither, or the section is not the setting's.
    """
    place, equals, value = text.partition("=")
    section, _, name = place.strip().rpartition(".")
    if not equals or not name:
        raise SettingsError([f"--set {text}: write NAME=VALUE, such as network_dim=16"])
    declared = declarations().get(name)
    if section and declared and declared.section != section:
        raise SettingsError([f"--set {text}: {name} is in [{declared.section}], not [{section}]"])
    return name, value


def _act_plan(chosen: argparse.Namespace) -> None:
    planned = plan(read_settings(chosen.file, chosen.changes))
    print(planned.to_json() if chosen.json else planned)


def _act_train(chosen: argparse.Namespace) -> None:
    planned = plan(read_settings(chosen.file, chosen.changes))
    print(*planned.lines(), sep="\n", flush=True)  # its notices come as events
    print("loading torch and the base model ...", flush=True)
    train = catalog.load("kit.training:train")
    with closing(Console(planned.total_steps)) as console, listening(planned.run, console) as tell:
        for event in train(planned):
            tell(event)


# -------------------------------------------------------------- settings, demo, inspect


def _describe_settings(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--toml", action="store_true", help="a file to begin with (the default)")
    form.add_argument("--json", action="store_true", help="every declaration, for programs")
    form.add_argument("--markdown", action="store_true", help="tables, for people")


def _act_settings(chosen: argparse.Namespace) -> None:
    if chosen.json:
        print(settings_json())
    elif chosen.markdown:
        print(settings_markdown())
    else:
        print(Settings().to_toml().strip())


def settings_json() -> str:
    """Every declared setting as a JSON list, in the order of the form."""
    rows = [
        {**dataclasses.asdict(declared), "possible": declared.possible}
        for declared in declarations().values()
    ]
    return json.dumps(rows, indent=2)


def settings_markdown() -> str:
    """Every declared setting in Markdown tables, one for each box of the form."""
    by_box: dict[str, list[Declared]] = {}
    for declared in declarations().values():
        by_box.setdefault(declared.box, []).append(declared)
    return "\n\n".join(
        "\n".join([f"## {box}", "", *_MARKDOWN_HEAD, *(_markdown_row(row) for row in rows)])
        for box, rows in by_box.items()
    )


_MARKDOWN_HEAD = (
    "| Setting | Label | Default | Possible | What it does |",
    "| --- | --- | --- | --- | --- |",
)


def _markdown_row(declared: Declared) -> str:
    default = "" if declared.default in (None, "") else f"`{_toml_word(declared.default)}`"
    cells = (
        f"`{declared.name}`",
        _markdown(declared.label),
        default or "blank",
        _markdown(declared.possible),
        _markdown(declared.help),
    )
    return f"| {' | '.join(cells)} |"


def _toml_word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _markdown(text: str) -> str:
    """Text in which nothing is taken for a tag, a column or emphasis."""
    for mark in "\\|*_<>":
        text = text.replace(mark, f"\\{mark}")
    return text


def _describe_demo(parser: argparse.ArgumentParser) -> None:
    for name, kind, default, shown, text in (
        ("--out", Path, Path("output"), "FOLDER", "where the LoRA goes (default: output)"),
        ("--seed", int, 1, "N", "the same seed gives the same LoRA (default: 1)"),
        ("--steps", int, None, "N", "how many steps (default: enough)"),
    ):
        parser.add_argument(name, type=kind, default=default, metavar=shown, help=text)


def _act_demo(chosen: argparse.Namespace) -> int | None:
    run_demo = catalog.load("kit.demo.run:main")
    result: int | None = run_demo(chosen.out, seed=chosen.seed, steps=chosen.steps)
    return result


def _describe_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="file.safetensors", help="the LoRA file")
    parser.add_argument("--json", action="store_true", help="everything, for programs")


def _act_inspect(chosen: argparse.Namespace) -> None:
    report = catalog.load("kit.tools.inspecting:inspect")(chosen.file)
    describe = catalog.load("kit.tools.inspecting:describe")
    print(json.dumps(report, indent=2) if chosen.json else describe(report))


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "teach the embedded base a new thing and draw it, in minutes, without any download",
        _describe_demo,
        _act_demo,
    ),
    "plan": Command("show what a training would do, without doing it", _describe_plan, _act_plan),
    "train": Command(
        "train a LoRA, or go on with a training of the same settings", _takes_settings, _act_train
    ),
    "settings": Command("print every setting with its help", _describe_settings, _act_settings),
    "inspect": Command("tell what a LoRA file holds", _describe_inspect, _act_inspect),
}
