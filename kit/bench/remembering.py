"""What a bench measured, kept where the form's forecast and the planner look for it.

A row is that of a training of the same work, so a run that was measured later takes its place, and
it takes the place of an older run, whose sample pictures stay known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kit.bench.work import FAMILIES, Work, settings_of
from kit.hosts import processor
from kit.planning.needs import WEIGHTS
from kit.runs.measured import Measured, measured_here, remember, work_of

MEBI = 2**20 / 1e6  # a MiB in MB


def keep(result: Mapping[str, Any]) -> Measured:
    """Remember what `kit.bench.measuring.measure` told; returns the row.

    Raises: OSError where it cannot be written.
    """
    row = measured_row(result)
    alike = [old for old in measured_here() if (old.device, old.work) == (row.device, row.work)]
    if alike:
        row = measured_row(result, picture_seconds=alike[-1].picture_seconds)
    remember(row)
    return row


def measured_row(result: Mapping[str, Any], *, picture_seconds: float = 0.0) -> Measured:
    """A result as a training of that work would have been measured."""
    work, device_peak = Work(**result["work"]), result["device_peak_mib"]
    family = FAMILIES[work.family]
    if device_peak is None:
        # A training also holds the VAE, which drew the latents; a bench has one without weights.
        held = result["host_peak_mib"] * MEBI + WEIGHTS[family][2] * (
            4 if work.precision == "fp32" else 2
        )
        device = processor()
    else:
        held, device = device_peak * MEBI, result["hardware"]["device"]
    return Measured(
        device,
        work_of(settings_of(work), family),
        result["ours"]["seconds"]["median"],
        round(held),
        picture_seconds,
    )
