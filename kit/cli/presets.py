"""`kit presets`: settings to begin with."""

from __future__ import annotations

import argparse

from kit.cli.command import Command
from kit.cli.settings_arguments import read_settings, takes_settings
from kit.errors import KitError
from kit.presets import preset_named, presets
from kit.reading.paths import is_file
from kit.settings.diffs import diff


def _describe(parser: argparse.ArgumentParser) -> None:
    takes_settings(parser)
    parser.epilog = """examples:
  %(prog)s                                          all of them
  %(prog)s --preset sdxl-style-16gb                 what it changes of the defaults
  %(prog)s run.toml --preset sdxl-style-16gb        what it would change of these settings"""


def _act(chosen: argparse.Namespace) -> None:
    if chosen.file and not chosen.preset:  # a preset's name where a file could stand
        if is_file(chosen.file):
            raise KitError(
                f"kit presets {chosen.file}: which preset is meant?",
                do="Add --preset NAME; kit presets lists them.",
            )
        chosen.file, chosen.preset = None, str(chosen.file)
    if not chosen.preset:
        width = max(map(len, presets()))
        print(*(f"{p.name:<{width}}  {p.about}" for p in presets().values()), sep="\n")
        return
    before = read_settings(chosen.file, chosen.changes)
    preset = preset_named(chosen.preset)
    print(f"{preset.name}: {preset.about}")
    print(*diff(before, preset.applied_to(before)), sep="\n")


PRESETS = Command("list the presets, or tell what one changes", _describe, _act)
