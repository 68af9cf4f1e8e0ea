"""`kit bench --whole-run N`: a training of N steps as a program, beside the bare step.

What a step costs is one thing, what a run makes of it another: there are batches, events, the
picture of the losses, the state that is kept, and two files. The share tells how much of the bare
step's speed is left.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kit.bench.against import Steps, run_settings, why_not
from kit.bench.programs import run_program
from kit.bench.work import Work
from kit.runs.atomic_write import write_text

WARM_UP = 20  # steps at most that are told apart: graphs are recorded in them
USUAL = 400  # steps that `kit bench --all` trains on a GPU


def whole_run(work: Work, *, steps: int, seconds: float = 0.0) -> dict[str, Any]:
    """Seconds per step of a run of so many, or why there are none.

    steps: 3 at least; seconds: that it may take, loading included, 0: as long as it needs.

    Raises: OutputError where the base model cannot be written.
    """
    until, told = time.monotonic() + seconds if seconds else 0.0, Steps()
    with tempfile.TemporaryDirectory(prefix="kit-bench-") as made:
        room = Path(made)
        settings = run_settings(work, room, steps).replace(
            output_dir=str(room / "out"), save_every_n_steps=-(-steps // 2)
        )
        write_text(room / "run.toml", settings.to_toml())
        told.began = time.monotonic()
        command = [sys.executable, "-m", "kit.bench.own", str(room / "run.toml")]
        ended = run_program(command, tell=told, until=until)
    if said := why_not(ended, told, steps):
        return {"steps": len(told.at), "why_not": said}
    first = min(WARM_UP, steps // 2)
    return {
        "steps": steps,
        "seconds": round(_between(told.at, first), 6),
        "seconds_with_warm_up": round(_between(told.at, 1), 6),
        "cpu_seconds": round(_between(told.cpu, first), 6),
        "seconds_until_first_step_is_done": round(told.at[0], 2),
    }


def beside_step(whole: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The same with its share of the speed of a bare step, which takes so many seconds."""
    if "seconds" not in whole:
        return dict(whole)
    return {**whole, "share_of_step": round(seconds / whole["seconds"], 4)}


def _between(at: list[float], first: int) -> float:
    """Of a step, from the end of this one (from 1) to that of the last."""
    return (at[-1] - at[first - 1]) / (len(at) - first)
