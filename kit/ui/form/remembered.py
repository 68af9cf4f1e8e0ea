"""What stood in the form last, kept on disk: a kernel that starts anew brings it back.

It lies in the host's output folder, which outlives the session where anything does.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from kit import catalog
from kit.errors import KitError
from kit.hosts import host
from kit.runs.run import write_atomically
from kit.settings import Settings, declarations

NAME = "form.toml"
OF_THE_EXAMPLE = (
    "pretrained_model_name_or_path",
    "reg_data_dir",
    "output_name",
    "sample_prompts",
    "training_comment",
)


def example() -> Settings:
    """The example, with its results where this host keeps them."""
    settings: Settings = catalog.load("kit.demo:settings")(str(host().output_folder))
    return settings


def left_of_the_example(settings: Settings) -> list[str]:
    """A notice where own images are trained with what the example brought; else none.

    Its regularisation images would be half of every epoch.
    """
    values, shown = settings.flat(), _example_values()
    if not values["train_data_dir"] or values["train_data_dir"] == shown["train_data_dir"]:
        return []
    left = [name for name in OF_THE_EXAMPLE if values[name] and values[name] == shown[name]]
    labels = ", ".join(declarations()[name].label for name in left)
    return [f"the images are yours; still the example's: {labels}"] if left else []


@cache
def _example_values() -> dict[str, object]:
    return example().flat()


def place() -> Path:
    """Where the form is kept."""
    return host().output_folder / NAME


def remembered() -> Settings | None:
    """The settings that stood in the form last; None where there are none that can be read."""
    file = place()
    try:
        return Settings.load(file) if file.is_file() else None
    except (KitError, OSError):  # of another version, or damaged: the form opens without it
        return None


def remember(settings: Settings) -> None:
    """Keep what stands in the form; a place that cannot be written is left alone."""
    file = place()
    text = settings.to_toml(with_help=False)
    try:
        if file.is_file() and file.read_text("utf-8") == text:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda part: part.write_text(text, "utf-8"))
    except OSError:  # the form itself is not lost by it
        return
