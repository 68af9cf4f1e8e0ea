"""`kit train` with several processes: this one starts them, and ends as one training would."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kit.control import RunControl
from kit.errors import KitError
from kit.events import Failed, Finished
from kit.launching.command import Launch, command, environment, told
from kit.launching.last_words import LastWord, signs_of, who_broke_off
from kit.launching.parent import Parent
from kit.runs.last_word import tell_failed
from kit.runs.run import Run
from kit.settings import Machine

DONE, WRONG, STOPPED = 0, 2, 3


def train_in_processes(
    launch: Launch,
    machine: Machine,
    words: Sequence[str],
    *,
    run: Run,
    tell_folder: Path | None,
    control: RunControl,
) -> int:
    """Start them, wait for their end, and return the exit code of a training.

    words: this command's own, behind `kit`. run: as it was planned here; the processes tell where
    it is, which may be another folder, in tell_folder or else in a file of ours.

    Raises: KitError where it broke off.
    """
    with tempfile.TemporaryDirectory(prefix="lora-kit-") as folder:
        told_in = tell_folder or Path(folder) / "run_dir.txt"
        given = [] if tell_folder else ["--tell-folder", str(told_in)]

        def run_dir() -> Path:
            return _place_told(told_in) or run.dir.absolute()

        print(f"{launch.processes} processes: {told(launch, machine, words)}", flush=True)
        told_in.unlink(missing_ok=True)  # what an earlier call told
        parent = Parent(
            command(launch, machine, [*words, *given]),
            environment(launch.processes),
            run_dir,
            control,
        )
        last = parent.wait()
        return _code(last, run_dir(), stops=control.stop_requested)


def _place_told(file: Path) -> Path | None:
    """Where the processes say that their run is, once they do."""
    try:
        text = file.read_text("utf-8").strip()
    except OSError:
        return None
    return Path(text) if text else None


def _code(last: LastWord, run_dir: Path, *, stops: bool) -> int:
    """The exit code that one process would have had.

    Raises: KitError where the run broke off.
    """
    match last.event:
        case Finished(reason="done"):
            return DONE
        case Finished():
            return STOPPED
        case Failed(text=text):
            raise KitError(f"The run broke off: {text}")
    if last.code == 0:
        return DONE
    if stops and last.event is None:  # it was asked before it began
        return STOPPED
    signs = signs_of(run_dir)  # another machine than process 0's has no events, but these
    if last.event is None and not signs:
        print("kit: it ended before the run began; what is wrong stands above", file=sys.stderr)
        return WRONG
    text = who_broke_off(signs, last.code)
    tell_failed(run_dir, text)
    raise KitError(
        f"{text.rstrip('.')}.",
        "The state of its last save is whole.",
        "The same command goes on from there, on another number of processes, too, where "
        "gradient_accumulation_steps x processes is the same.",
    )
