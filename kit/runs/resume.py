"""State folders of the user's own: `<name>-000002-state` and so on, and which state `resume` means.

A run keeps its state anyway, to go on after a disconnect, and forgets it when it is done. These
folders stay: a later run, of another name and of other settings, may go on from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit.errors import SettingsError
from kit.hub import Place, fetch, fetch_record
from kit.runs.record import read_record

if TYPE_CHECKING:
    from kit.settings import Saving

STATE_FILE = "state.pt"
FOREIGN = ("optimizer.bin", "train_state.json", "scheduler.bin", "random_states_0.pkl")


@dataclass(frozen=True)
class ResumePoint:
    """What a new run goes on from."""

    file: Path
    seed: int
    step: int
    place: Place | None = None  # where the file is still to be fetched from

    def fetched(self) -> Path:
        """The file; from the Hub, if it lies there.

        Raises: SettingsError where it cannot be had.
        """
        return fetch(self.place, STATE_FILE) if self.place else self.file


def find_start(resume: str, *, on_hub: bool = False) -> ResumePoint | None:
    """The state that `resume` names: a state folder, or the folder of a run; None where blank.

    on_hub: it names a state folder in a repository, of which only the record is fetched here.

    Raises: SettingsError where there is none that can be read.
    """
    if not resume.strip():
        return None
    if on_hub:
        return _start_on_hub(Place.named(resume))
    folder = Path(resume.strip()).expanduser()
    for file, record_dir in _places(folder):
        if file.is_file() and (record := read_record(record_dir)) and record.step:
            return ResumePoint(file, record.seed, record.step)
    raise SettingsError([f"[saving] resume: {_why_not(folder)}"])


def _start_on_hub(named: Place) -> ResumePoint:
    path, place = fetch_record(named, "run.json")
    record = read_record(path.parent)
    if record is None or not record.step:
        raise SettingsError([f"[saving] resume: {named} holds no state that can be gone on from"])
    return ResumePoint(Path(STATE_FILE), record.seed, record.step, place)


def _places(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Where a state and its record may lie."""
    yield folder / STATE_FILE, folder
    yield folder / "state" / STATE_FILE, folder  # <name>.run
    yield folder / STATE_FILE, folder.parent  # <name>.run/state


def _why_not(folder: Path) -> str:
    if not folder.is_dir():
        return f"there is no folder {folder}; choose one named <name>-...-state, or <name>.run"
    if any((folder / name).exists() for name in FOREIGN):
        return (
            f"{folder} is a state of sd-scripts, whose optimizer and random numbers cannot go on "
            "here; set network_weights to the LoRA file that was saved with it, to begin with its "
            "weights"
        )
    record = read_record(folder)
    if record and record.finished:
        return (
            f"the run in {folder} is finished, and its state is gone; go on from its "
            "<name>-state, which save_state_on_train_end keeps, or begin with its LoRA file as "
            "network_weights"
        )
    return f"{folder} holds no state; choose a folder named <name>-...-state, or <name>.run"


def beyond_the_end(start: ResumePoint, total_steps: int) -> str:
    """Why a plan of so many steps cannot go on from there; empty where it can."""
    if start.step < total_steps:
        return ""
    return (
        f"[saving] resume: the state is of step {start.step}, and the whole run has {total_steps}; "
        "raise epoch, max_train_epochs or max_train_steps, which count from the beginning"
    )


def keeps_states(saving: Saving, *, at_end: bool) -> bool:
    """A state folder is written beside this LoRA file."""
    return saving.save_state or (at_end and saving.save_state_on_train_end)
