"""The settings that a command was given: a file, a preset and changes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kit.cli.parser import unused
from kit.errors import SettingsError
from kit.exchange import Report, load_any
from kit.presets import preset_named, presets
from kit.settings import Settings, declarations


def takes_settings(parser: argparse.ArgumentParser) -> None:
    """Arguments that `read_settings` wants."""
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="run.toml",
        help="a file with settings; `kit settings` prints one to begin with. Also the kohya_ss "
        "GUI's JSON, sd-scripts' TOML, a text with its command line, or a LoRA to make again",
    )
    parser.add_argument(
        "--preset",
        default="",
        metavar="NAME",
        help="values to begin with, which count more than the file's; `kit presets` lists them",
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


def read_settings(file: Path | None, changes: Sequence[str], *, preset: str = "") -> Settings:
    """The file's settings, or the defaults, with the preset's values and the changes of --set.

    Raises: SettingsError with every problem of both at once.
    """
    problems: list[str] = []
    values: dict[str, str] = {}
    settings = Settings()
    chosen = presets()[preset].values if preset in presets() else {}
    for change in changes:
        try:
            name, value = parse_change(change)
            if values.get(name, value) != value:
                print(unused(f"--set {name}={values[name]}", value), file=sys.stderr)
            values[name] = value
        except SettingsError as error:
            problems += error.problems
    try:
        if file:
            settings, report = load_any(file)
            problems += report.problems(settled={**chosen, **values})
            tell(report)
    except SettingsError as error:
        problems += error.problems
    try:
        settings = preset_named(preset).applied_to(settings) if preset else settings
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


def tell(report: Report) -> None:
    """What became of a foreign file, beside the command's own output."""
    if report.is_foreign:
        # What the checks refuse, the plan says itself, after --set and --preset.
        lines = report.text(with_taken=False, with_checks=False)
        print(*lines, sep="\n", file=sys.stderr)
