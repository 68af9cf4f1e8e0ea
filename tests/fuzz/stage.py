"""What the readers share: a small data set, settings for it, and a plan of them."""

from pathlib import Path

from PIL import Image

from kit.errors import KitError
from kit.planning import plan
from kit.settings import Settings
from kit.settings.rules import notices, problems


def data_set(folder, caption="a zib ball, red"):
    """Two pictures with captions in `<folder>/data/2_ball`; returns `<folder>/data`."""
    concept = folder / "data" / "2_ball"
    concept.mkdir(parents=True)
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (64, 64), colour).save(concept / f"{name}.png")
        (concept / f"{name}.txt").write_text(caption, "utf-8", errors="replace")
    return folder / "data"


def settings_in(folder, **changes):
    """A run that can be planned in no time."""
    return Settings().replace(
        train_data_dir=str(folder / "data"),
        output_dir=str(folder / "out"),
        output_name="x",
        resolution="64,64",
        max_train_steps=4,
        **changes,
    )


def planned(settings):
    """All that the form asks at a change: checks, notices, the plan and its words."""
    problems(settings)
    notices(settings)
    made = plan(settings)
    from kit.planning.words import lines, to_json

    list(lines(made))
    to_json(made)
    return made


def each_of(asks):
    """Ask all of them; the case's word is what the last one that refuses says."""
    refused = None
    for ask in asks:
        try:
            ask()
        except KitError as error:
            assert str(error)
            refused = error
    if refused:
        raise refused


def written(path: Path, data):
    """The bytes, in a file whose folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
