"""A LoRA that was made on this machine: its run's folder knows what the file must not tell.

A LoRA file is for others, so its recipe has of every path only the end. The run's own run.toml has
the whole paths; it counts where everything else in it is what the recipe says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kit.errors import KitError
from kit.reading.texts import from_json
from kit.settings import Settings
from kit.settings.public import public_settings


def settings_beside(file: Path, recipe: Mapping[str, Any]) -> tuple[Settings, Path] | None:
    """The settings of the run that wrote this LoRA, and where they lie; None where it is not here.

    It is looked for beside the file, and in the output folder of the recipe beside the file.
    """
    folders = Settings().folders
    name = str(recipe.get("output_name", folders.output_name))
    output = str(recipe.get("output_dir", folders.output_dir))
    for folder in (file.parent, file.parent / output):
        path = folder / f"{name}.run" / "run.toml"
        try:
            settings = Settings.load(path)
        except KitError:
            continue
        if from_json(json.dumps(public_settings(settings)), path) == dict(recipe):
            return settings, path
    return None
