"""Which states a run can go on from, and the words where it cannot."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from kit.errors import OutputError
from kit.runs.resume import ResumePoint
from kit.runs.run import Run
from kit.runs.state_files import STATE_FILE, before
from kit.training.state_file import glance


def made_before(run: Run, start: ResumePoint | None) -> dict[str, str]:
    """The optimizer of the state that a run will go on from, as build_optimization is told.

    Raises: SettingsError where a state on the Hub cannot be had.
    """
    if not run.resumes and start is None:
        return {}
    path = run.own_state / STATE_FILE if run.resumes or start is None else start.fetched()
    made, asked = max(glance(path), glance(before(path)), key=lambda found: bool(found[0]))
    return {"made_with": made, "made_for": asked}


def check_axis(kept: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> None:
    """A state's DoRA has its magnitudes on our axis; older versions kept those of outputs.

    Raises: ValueError where it has not.
    """
    for name in own.keys() & kept.keys():
        if name.endswith("dora_scale") and own[name].shape != kept[name].shape:
            on_output = "true" if kept[name].shape[0] != 1 else "false"
            raise ValueError(f"its DoRA has the other axis; set wd_on_output = {on_output}")


def check_rates(rates: Iterable[float | None]) -> None:
    """A state's learning rates are numbers.

    Raises: ValueError, TypeError where they are not.
    """
    if not all(rate is None or math.isfinite(rate) for rate in rates):
        raise ValueError("its learning rates are no numbers")


def misfit(path: Path, why: str) -> OutputError:
    """It was made with another network, optimizer or base model."""
    return OutputError(
        f"The state {path} does not fit these settings: {why}",
        "A state goes on with the base model, the LoRA type, the ranks and the optimizer that it "
        "was made with.",
        "Set them as they were in its run, or leave resume blank.",
    )


def unreadable(path: Path, damaged: Mapping[Path, str]) -> OutputError:
    """The state that `resume` names."""
    return OutputError(
        f"The state cannot be read: {path} ({damaged[path]}).",
        do="Set resume to another state folder, or leave it blank.",
    )


def lost(run: Run, path: Path, damaged: Mapping[Path, str]) -> OutputError:
    """No state of this run is left to go on from."""
    told = [f"{place.name}: {why}" for place, why in damaged.items()]
    folders = {place / run.dir.name / path.parent.name for place in (run.output_dir, run.kept_in)}
    named = " and ".join(str(folder) for folder in sorted(folders))
    return OutputError(
        f"No state in {path.parent} can be read ({'; '.join(told)}).",
        "Without one the run cannot go on where it stopped. Nothing of it was touched: settings, "
        "events and LoRA files are as they were.",
        f"Put back a copy of {path.name}. Or begin another run beside this one: kit train with "
        '--begin-anew, kit.plan(settings, unfinished="begin anew"), or another output_name. Or '
        f"delete {named} to begin the run anew under its name; its LoRA files are written over "
        "as they come.",
    )
