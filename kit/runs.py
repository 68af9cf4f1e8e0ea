"""Where a run's files lie, and which run a name means: a new one, or one that goes on.

<output_dir>/<name>.safetensors           the finished LoRA; before it <name>-000002 and so on
<output_dir>/sample/<name>_...png         sample pictures
<output_dir>/<name>.run/run.toml          the settings that were used, with help
<output_dir>/<name>.run/run.json          fingerprint, seed, last kept step, whether it is finished
<output_dir>/<name>.run/events.jsonl      what happened
<output_dir>/<name>.run/state/            what is needed to go on
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kit.errors import OutputError


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

    def file(self, suffix: str) -> Path:
        """The LoRA file: suffix "" for the final one, "-000002" for epoch 2."""
        return self.output_dir / f"{self.name}{suffix}.{self.ending}"


@dataclass(frozen=True)
class RunRecord:
    """run.json: what a later start needs to know."""

    fingerprint: str
    seed: int
    step: int = 0
    finished: bool = False


def choose_run(output_dir: str, name: str, *, ending: str, fingerprint: str, seed: int = 0) -> Run:
    """The unfinished run of the same settings, or a new one under a name that is still free.

    seed: the one that was asked for; 0 goes on with whatever was drawn.
    """
    folder = Path(output_dir).expanduser()
    candidate, number = name, 1
    while True:
        run = Run(folder, candidate, ending, fingerprint, renamed_from="" if number == 1 else name)
        record = read_record(run.dir)
        is_same = record and not record.finished and record.fingerprint == fingerprint
        if record and is_same and seed in (0, record.seed):
            return replace(run, seed=record.seed, from_step=record.step)
        if not run.dir.exists() and not _has_files(run):
            return run
        number += 1
        candidate = f"{name}-{number}"


def begin(run: Run, *, seed: int, settings_toml: str) -> None:
    """Make the run's folder and write its settings and record.

    Raises: OutputError where the folder cannot be written.
    """
    try:
        run.dir.mkdir(parents=True, exist_ok=True)
        write_atomically(run.dir / "run.toml", lambda part: part.write_text(settings_toml, "utf-8"))
        if not run.resumes:
            write_record(run.dir, RunRecord(run.fingerprint, seed))
    except OSError as error:
        raise OutputError(
            f"output_dir = {run.output_dir} cannot be written: {error.strerror or error}.",
            "It must be a folder in which you may create files, with free space.",
            "Choose another output_dir, or free some space.",
        ) from error


def abandon(run: Run) -> None:
    """Give a new run's name back: nothing was learned, so nothing is lost."""
    if not run.resumes:
        shutil.rmtree(run.dir, ignore_errors=True)


def read_record(run_dir: Path) -> RunRecord | None:
    """The run's record, or None where there is none that can be read."""
    try:
        values: dict[str, Any] = json.loads((run_dir / "run.json").read_text("utf-8"))
        return RunRecord(**values)
    except (OSError, ValueError, TypeError):
        return None


def write_record(run_dir: Path, record: RunRecord) -> None:
    """Replace the run's record in one step."""
    text = json.dumps(asdict(record), indent=2)
    write_atomically(run_dir / "run.json", lambda part: part.write_text(text, "utf-8"))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write to `<name>.part`, force it to disk, rename: `path` is whole or untouched."""
    part = path.with_name(f"{path.name}.part")
    try:
        write(part)
        with part.open("r+b") as file:  # Windows flushes only what may be written
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _has_files(run: Run) -> bool:
    """A LoRA file of that name lies there, of the end of a run or from along its way."""
    if run.file("").exists():
        return True
    named = re.compile(rf"{re.escape(run.name)}-(\d{{6}}|step\d{{8}})\.{re.escape(run.ending)}")
    return any(named.fullmatch(path.name) for path in _listed(run.output_dir))


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
