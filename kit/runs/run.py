"""Where a run's files lie, and which run a name means: a new one, or one that goes on.

<output_dir>/<name>.safetensors           the finished LoRA; before it <name>-000002 and so on
<output_dir>/<name>-000002-state/         what `resume` goes on from, where save_state asks for it
<output_dir>/sample/<name>_...png         sample pictures
<output_dir>/<name>.run/run.toml          the settings that were used, with help
<output_dir>/<name>.run/run.json          fingerprint, seed, last kept step, whether it is finished
<output_dir>/<name>.run/made_of.json      settings, pictures and captions, to say what differs later
<output_dir>/<name>.run/events.jsonl      what happened
<output_dir>/<name>.run/logs.json         where its curves are logged, to go on there
<output_dir>/<name>.run/state/            what is needed to go on: see `kit.runs.state_files`
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from kit.errors import OutputError
from kit.processes.places import FOLDER as SIGNS
from kit.reading.paths import path_of
from kit.runs import control_files, lock
from kit.runs.atomic_write import write_atomically
from kit.runs.differences import Differences, Unfinished, compare
from kit.runs.disk import why_unwritten
from kit.runs.made_of import MadeOf, read_made_of
from kit.runs.record import RunRecord, read_record, write_record
from kit.runs.state_files import FOLDER, holds_state

# An older version, or one that was killed before its first step, kept a fingerprint alone.
FIRST_FILES = {  # before the record
    lock.NAME, "run.toml", "run.toml.part", "run.json.part", control_files.FOLDER, SIGNS,
}  # fmt: skip
UNKNOWN = "of it only a fingerprint is kept, which is another one; what differs cannot be named"


@dataclass(frozen=True)
class Run:
    """One run's name and places."""

    output_dir: Path
    name: str
    ending: str
    fingerprint: str
    seed: int = 0  # 0: not drawn yet
    from_step: int = 0
    renamed_from: str = ""
    unfinished: Unfinished | None = None  # the one of that name which is made otherwise
    asks: bool = False  # whether to go on with that one is for a person to say
    home: Path | None = None  # where the files are kept, if output_dir is only to work in

    @property
    def kept_in(self) -> Path:
        """The folder in which a person finds the files."""
        return self.home or self.output_dir

    @property
    def dir(self) -> Path:
        """The run's own folder."""
        return self.output_dir / f"{self.name}.run"

    @property
    def resumes(self) -> bool:
        """There is state of the same settings to go on from."""
        return self.from_step > 0

    @property
    def sample_dir(self) -> Path:
        """Where sample pictures go, as with kohya's trainer."""
        return self.output_dir / "sample"

    @property
    def own_state(self) -> Path:
        """The folder of the state that the run itself goes on from."""
        return self.dir / FOLDER

    def file(self, suffix: str) -> Path:
        """The LoRA file: suffix "" for the final one, "-000002" for epoch 2."""
        return self.output_dir / f"{self.name}{suffix}.{self.ending}"

    def state_dir(self, suffix: str) -> Path:
        """The state folder that is kept with the LoRA file of this suffix, as kohya names it."""
        return self.output_dir / f"{self.name}{suffix}-state"

    def owns_state(self, folder_name: str) -> bool:
        """The name is that of a state folder of this run."""
        pattern = rf"{re.escape(self.name)}(-\d{{6}}|-step\d{{8}})?-state"
        return re.fullmatch(pattern, folder_name) is not None

    def owns(self, file_name: str) -> bool:
        """The name is that of a LoRA file of this run, of its end or from along its way."""
        pattern = rf"{re.escape(self.name)}(-\d{{6}}|-step\d{{8}})?\.{re.escape(self.ending)}"
        return re.fullmatch(pattern, file_name) is not None


Answer: TypeAlias = Literal["ask", "go on", "begin anew"]


def choose_run(
    output_dir: str,
    name: str,
    *,
    ending: str,
    fingerprint: str,
    made_of: MadeOf | None = None,
    seed: int = 0,
    workplace: Path | None = None,
    answer: Answer = "ask",
) -> tuple[Run, MadeOf]:
    """The unfinished run of the same making, or a new one under a name that is still free.

    seed: the one that was asked for; 0 goes on with whatever was drawn. workplace: a fast folder
    to work in while output_dir, which is slow, keeps copies. answer: what a person says where the
    newest run of that name is not finished and made otherwise, but could go on.

    Returns what it is made of as well, with the hashes of pictures that are known.
    """
    made_of, other = made_of or MadeOf(), None
    folder = path_of(output_dir, "output_dir")
    candidate, number = name, 1
    while True:
        renamed = "" if number == 1 else name
        run = Run(folder, candidate, ending, fingerprint, renamed_from=renamed)
        if workplace is not None:
            run = replace(run, output_dir=place_for(folder, workplace), home=folder)
        record = newest_record(run)
        if record and not record.finished:
            found = _differences(run, record, made_of, seed)
            step = record.step if has_state(run) else 0  # deleted by hand, or none was kept yet
            going_on = replace(run, seed=record.seed, from_step=step)
            # Beside an unfinished run of the same making a person may begin anew, once.
            begins_anew = answer == "begin anew" and going_on.resumes and other is None
            if not found and not begins_anew:
                return going_on, found.known
            other = going_on, found
        elif not any(_is_taken(run, place) for place in {run.output_dir, run.kept_in}):
            return _decided(run, made_of, other, answer)
        else:
            other = None  # what is older than a finished run was left behind
        number += 1
        candidate = f"{name}-{number}"


def _decided(
    new: Run, made_of: MadeOf, other: tuple[Run, Differences] | None, answer: Answer
) -> tuple[Run, MadeOf]:
    """The new run, or the other one, which is made otherwise, where a person wants that."""
    if other is None:
        return new, made_of
    run, found = other
    can_go_on = run.resumes and not found.others
    unfinished = Unfinished(run.name, run.from_step, (*found.others, *found.decidable), can_go_on)
    if can_go_on and answer == "go on":
        return replace(run, unfinished=unfinished), found.known
    asks = can_go_on and answer == "ask"
    return replace(new, unfinished=unfinished, asks=asks), made_of


def _differences(run: Run, record: RunRecord, made_of: MadeOf, seed: int) -> Differences:
    """What is asked otherwise than an unfinished run is made."""
    folders = [run.dir] if run.home is None else [run.dir, run.home / run.dir.name]
    kept = next((made for folder in folders if (made := read_made_of(folder))), None)
    if kept:
        found = compare(kept, made_of)
    else:
        is_same = record.fingerprint == run.fingerprint
        found = Differences(made_of, others=() if is_same else (UNKNOWN,))
    if seed in (0, record.seed):
        return found
    return replace(found, others=(*found.others, f"seed: {record.seed} -> {seed}"))


def begin(run: Run, *, seed: int, settings_toml: str) -> None:
    """Make the run's folder and write its settings and record.

    Raises: OutputError where the folder cannot be written.
    """
    bring_back(run)
    sweep(run)
    try:
        run.dir.mkdir(parents=True, exist_ok=True)
        write_atomically(run.dir / "run.toml", lambda part: part.write_text(settings_toml, "utf-8"))
        if not run.resumes:
            shutil.rmtree(run.own_state, ignore_errors=True)  # of a kill before its record
            write_record(run.dir, RunRecord(run.fingerprint, seed))
    except OSError as error:
        abandon(run)
        raise OutputError(
            f"output_dir = {run.output_dir} cannot be written: {why_unwritten(error, run.dir)}.",
            "It must be a folder in which you may create files, with free space.",
            "Choose another output_dir, or free some space.",
        ) from error


def bring_back(run: Run) -> None:
    """After a lost session: the copies of a run, where they have come farther than what is here.

    Raises: OutputError where they cannot be read.
    """
    if run.home is None or not run.resumes:
        return
    kept, record = run.home / run.dir.name, newest_record(run)
    if record is None or (record == read_record(run.dir) and holds_state(run.own_state)):
        return
    try:
        shutil.copytree(kept, run.dir, dirs_exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The state of this run cannot be copied from {kept}: {error}",
            "It was kept there in an earlier session.",
            "Check that the folder is there and that its storage is connected.",
        ) from error


def abandon(run: Run) -> None:
    """Give a new run's name back: nothing was learned, so nothing is lost."""
    if not run.resumes:
        shutil.rmtree(run.dir, ignore_errors=True)


def sweep(run: Run) -> None:
    """Remove what a killed process had half written."""
    samples = re.compile(rf"{re.escape(run.name)}_e?\d{{6}}_\d+_\d{{14}}(_\d+)?\.png\.part")
    halves = [path for path in _listed(run.sample_dir) if samples.fullmatch(path.name)]
    for path in _listed(run.output_dir):
        if path == run.dir or run.owns_state(path.name):
            halves += path.rglob("*.part")
        elif path.suffix == ".part" and run.owns(path.stem):
            halves.append(path)
    for path in halves:
        with suppress(OSError):
            path.unlink()


def files_of(run: Run, *, states: bool = False) -> Iterator[Path]:
    """The run's LoRA files, and those of its state folders, here and where they are kept."""
    for place in dict.fromkeys((run.output_dir, run.kept_in)):
        for path in sorted(_listed(place)):
            if run.owns(path.name):
                yield path
            elif states and run.owns_state(path.name):
                yield from sorted(_listed(path))


def has_state(run: Run) -> bool:
    """There is a state to go on from, here or in the copies after a lost session."""
    return any(
        holds_state(place / run.dir.name / FOLDER) for place in {run.output_dir, run.kept_in}
    )


def newest_record(run: Run) -> RunRecord | None:
    """The record that has come farthest: the work's, or that of the copies after a lost session."""
    folders = [run.dir] if run.home is None else [run.dir, run.home / run.dir.name]
    found = [record for folder in folders if (record := read_record(folder))]
    mine = [record for record in found if record.fingerprint == run.fingerprint] or found
    return max(mine, key=lambda record: (record.finished, record.step), default=None)


def place_for(folder: Path, workplace: Path) -> Path:
    """Where the runs of a slow output folder work: one for each, in every session."""
    return workplace / "runs" / hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:8]


def _is_taken(run: Run, folder: Path) -> bool:
    """A run, a LoRA file or a state of that name lies there."""
    names = [path.name for path in _listed(folder)]
    if run.dir.name in names and not _did_not_begin(folder / run.dir.name):
        return True
    return any(run.owns(n) or run.owns_state(n) for n in names)


def _did_not_begin(run_dir: Path) -> bool:
    """A kill left it before its record was written: there is nothing in it to go on from."""
    names = {path.name for path in _listed(run_dir)}
    return run_dir.is_dir() and names <= FIRST_FILES


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
