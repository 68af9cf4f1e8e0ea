"""Which run is meant by a folder, a name in an output folder, or a LoRA file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kit.errors import KitError, nearest
from kit.hosts import Host, host
from kit.reading.paths import is_folder, path_of
from kit.runs.lock import who_is_at_work_in
from kit.runs.run import place_for

LORA_SUFFIXES = (".safetensors", ".ckpt", ".pt")
ALONG_THE_WAY = re.compile(r"-(\d{6}|step\d{8})$")  # cat-000002, cat-step00000300


@dataclass(frozen=True)
class Found:
    """A run's folder, and the one that it works in: another where its files lie on a slow drive."""

    kept_in: Path
    works_in: Path

    @property
    def name(self) -> str:
        """The run's name, as its files have it."""
        return self.kept_in.name.removesuffix(".run")


def find_run(text: str | Path, *, here: Host | None = None) -> Found:
    """The run that a person means: its folder, its name, or a file of it.

    Raises: KitError where there is none; Unreadable where that is no path.
    """
    here = here or host()
    path = path_of(text, "RUN")
    folder = next((each for each in _candidates(path, here) if is_folder(each)), None)
    if folder is None:
        raise _unknown(path, here)
    working = folder
    if here.scratch is not None and here.is_slow(folder) and who_is_at_work_in(folder) is None:
        place = place_for(folder.parent, here.scratch) / folder.name
        working = place if is_folder(place) else folder
    return Found(folder, working)


def _candidates(path: Path, here: Host) -> Iterator[Path]:
    places = [path]
    if not path.is_absolute() and len(path.parts) == 1:
        places.append(here.output_folder / path)
    for place in places:
        if place.suffix == ".run":
            yield place
        if place.parent.suffix == ".run":  # its run.toml, its events.jsonl
            yield place.parent
        if not place.name:
            continue
        yield place.with_name(f"{place.name}.run")
        if place.suffix.lower() in LORA_SUFFIXES:
            yield place.with_name(f"{place.stem}.run")
            yield place.with_name(f"{ALONG_THE_WAY.sub('', place.stem)}.run")


def _unknown(path: Path, here: Host) -> KitError:
    folders = [path.parent, path, here.output_folder]
    runs = sorted({run.stem for folder in folders for run in _runs_in(folder)})
    names = ", ".join(runs[:10]) + (" and more" if len(runs) > 10 else "")
    hint = nearest(path.name.removesuffix(".run"), runs)
    return KitError(
        f"{path} is no run{hint or '.'}",
        "A run is named by its folder (output/cat.run), by its name in the output folder "
        f"(output/cat), or by a LoRA file of it.{f' There are {names}.' if runs else ''}",
        "kit train tells where a run's folder is when it begins.",
    )


def _runs_in(folder: Path) -> list[Path]:
    try:
        return [each for each in folder.iterdir() if each.suffix == ".run"]
    except OSError:
        return []
