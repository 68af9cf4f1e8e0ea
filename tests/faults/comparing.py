"""What two runs left, bit for bit: weights, optimizer, metadata, pictures, records, events."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

# Of the clock, or drawn anew at each start; the legacy hash is of bytes that hold those.
OWN = {
    "ss_session_id",
    "ss_training_started_at",
    "ss_training_finished_at",
    "modelspec.date",
    "sshs_legacy_hash",
}
CLOCK = {"seconds", "megabytes"}
STORY = ("Stepped", "Saved", "Sampled", "StateKept")


def differences(whole: Path, broken: Path, *, more: bool = False) -> list[str]:
    """What is not equal in the output folders of two runs; paths are given from there.

    more: the broken one may hold more, as after a stop that saved what there was.
    """
    mine, theirs = _files(whole), _files(broken)
    found = [f"{name} is missing" for name in sorted(mine.keys() - theirs.keys())]
    if not more:
        found += [f"{name} is too much" for name in sorted(theirs.keys() - mine.keys())]
    for name in sorted(mine.keys() & theirs.keys()):
        for own in theirs[name]:
            found += [f"{name}: {what}" for what in _differing(mine[name][0], own, more)]
    return found


def _files(folder: Path) -> dict[str, list[Path]]:
    """By name without the time; a picture that a restart drew once more has two of it."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files.setdefault(_timeless(str(path.relative_to(folder))), []).append(path)
    return files


def _timeless(name: str) -> str:
    return re.sub(r"_20\d{12}_", "_TIME_", name)


def _differing(one: Path, other: Path, more: bool) -> Iterator[str]:
    if one.suffix == ".safetensors":
        yield from _in_lora(one, other)
    elif one.suffix == ".pt":
        yield from _in_value(_state(one), _state(other))
    elif one.name == "loss.png":
        return  # drawn from the events, which are compared
    elif one.suffix == ".png":
        if not np.array_equal(np.asarray(Image.open(one)), np.asarray(Image.open(other))):
            yield "the pictures differ"
    elif one.name == "events.jsonl":
        yield from _in_events(_events(one), _events(other), more)
    elif one.suffix == ".json":
        yield from _in_value(_record(one), _record(other))
    elif _text(one) != _text(other):
        yield "the texts differ"


def _record(path: Path) -> Any:
    """The fingerprint is of the pictures' paths and times, too: each side has its own."""
    record = json.loads(_text(path))
    for picture in record.get("pictures", ()):
        del picture["time"]
    return {key: value for key, value in record.items() if key != "fingerprint"}


def _text(path: Path) -> bytes:
    """Each side's own folder is named in it: <side>/out/toy.run/run.toml."""
    side = next(parent for parent in path.parents if parent.name == "out").parent
    return path.read_bytes().replace(str(side).encode(), b"")


def _state(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _in_lora(one: Path, other: Path) -> Iterator[str]:
    with safe_open(one, "pt") as mine, safe_open(other, "pt") as theirs:
        yield from _in_value(
            {name: mine.get_tensor(name) for name in mine.keys()},  # noqa: SIM118  not a dict
            {name: theirs.get_tensor(name) for name in theirs.keys()},  # noqa: SIM118
        )
        told, heard = mine.metadata(), theirs.metadata()
    for key in sorted(told.keys() | heard.keys()):
        if key not in OWN and told.get(key) != heard.get(key):
            yield f"{key} = {heard.get(key)}, not {told.get(key)}"


def _in_value(one: Any, other: Any, place: str = "") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from _in_value(one[key], other[key], f"{place}.{key}" if place else str(key))
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            yield f"{place} has {len(other)} entries, not {len(one)}"
        for number, pair in enumerate(zip(one, other, strict=False)):
            yield from _in_value(*pair, f"{place}[{number}]")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.dtype != other.dtype or not torch.equal(one, other):
            yield f"{place} differs"
    elif one != other:
        yield f"{place} = {other!r}, not {one!r}"


def _events(path: Path) -> list[dict[str, Any]]:
    """What was told about steps, files and pictures: without times, each path's name alone."""
    told = []
    for line in path.read_text("utf-8").splitlines():
        event = json.loads(line)
        if event["event"] in STORY:
            told.append(
                {
                    key: [Path(each).name for each in value]
                    if key == "removed"
                    else _timeless(Path(value).name)
                    if key == "path"
                    else value
                    for key, value in event.items()
                    if key not in CLOCK
                }
            )
    return told


def _in_events(
    mine: list[dict[str, Any]], theirs: list[dict[str, Any]], more: bool
) -> Iterator[str]:
    """Each once. In which order a step's own events stand, a restart may change."""
    rest = list(theirs)
    for event in mine:
        if event in rest:
            rest.remove(event)
        else:
            yield f"{event} is missing"
    if not more:
        yield from (f"{event} is too much" for event in rest)
