"""`kit bench --against PATH`: a checkout of kohya-ss/sd-scripts, run as a program beside ours.

Both train the same base model with random weights on the same pictures with the same settings, one
after the other, each in a process of its own: ours as `kit train` does, sd-scripts with what `kit
export --sd-scripts` writes. A step is over when the program says so. `cpu_seconds` are the
process's core-seconds between two such moments.
"""

from __future__ import annotations

import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy
from PIL import Image

from kit.bench.bases import saved_base
from kit.bench.hosted import STEPS
from kit.bench.measuring import hardware, spread
from kit.bench.models import CAPTION, SEED
from kit.bench.programs import Ended, run_program
from kit.bench.sd_scripts import NAME, Checkout, differences
from kit.bench.work import FAMILIES, PRECISIONS, Work, settings_of
from kit.devices import DTYPES, check_precision, choose_device
from kit.errors import KitError
from kit.exchange import export_sd_scripts
from kit.hosts import cache_folder
from kit.runs.atomic_write import write_text
from kit.settings import Settings

PICTURES = 8  # for each image of a batch
LAST_LINES = 3  # of a program that failed, to show
COMPARED = {
    "ratio": "seconds",
    "cpu_ratio": "cpu_seconds",
    "images_ratio": "images_per_second",
    "memory_ratio": "host_peak_mib",
    "device_memory_ratio": "device_peak_mib",
    "first_step_ratio": "seconds_until_first_step_is_done",
    "first_step_cpu_ratio": "cpu_seconds_until_first_step_is_done",
}


@dataclass
class Steps:
    """When a program said that its steps were done."""

    began: float = field(default_factory=time.monotonic)
    at: list[float] = field(default_factory=list)  # seconds after it began
    cpu: list[float] = field(default_factory=list)  # its core-seconds then

    def __call__(self, line: str, cpu_seconds: float) -> None:
        """Note a line that says that one more is done."""
        found = re.search(STEPS, line)
        if found and int(found[1]) == len(self.at) + 1:
            self.at.append(time.monotonic() - self.began)
            self.cpu.append(cpu_seconds)

    def report(self, *, warm_up: int, batch: int) -> dict[str, Any]:
        """The steps after those of the warm-up."""
        seconds, cpu = (
            [late - early for early, late in pairwise(each)][warm_up - 1 :]
            for each in (self.at, self.cpu)
        )
        return {
            "seconds": spread(seconds),
            "cpu_seconds": spread(cpu),
            "images_per_second": round(batch / statistics.median(seconds), 3),
            "steps": len(seconds),
            "seconds_until_first_step_is_done": round(self.at[0], 2),
            "cpu_seconds_until_first_step_is_done": round(self.cpu[0], 2),
        }


def beside_program(
    work: Work, checkout: Checkout, *, steps: int, warm_up: int, seconds: float = 0.0
) -> dict[str, Any]:
    """What is told about one piece of work that both trainers do.

    steps: that count on each side; warm_up: those before them; seconds: that both may take
    together, 0: as long as it needs.

    Raises: KitError where a side does not do the work; DeviceError; OutputError.
    """
    check_precision(choose_device(), PRECISIONS[work.precision])
    load, until = os.getloadavg()[0], time.monotonic() + seconds if seconds else 0.0
    with tempfile.TemporaryDirectory(prefix="kit-bench-") as made:
        room, count = Path(made), steps + warm_up
        settings = run_settings(work, room, count)
        text, notices = export_sd_scripts(settings.replace(output_dir=str(room / "theirs")))
        theirs = checkout.command(work, text, room)
        write_text(room / "ours.toml", settings.replace(output_dir=str(room / "ours")).to_toml())
        ours = [sys.executable, "-m", "kit.bench.own", str(room / "ours.toml")]
        sides = {}
        for name, command, environment in (
            ("ours", ours, None),
            (NAME, theirs, checkout.environment()),
        ):
            told = Steps()
            ended = run_program(command, tell=told, environment=environment, until=until)
            if said := why_not(ended, told, count):
                raise checkout.failed(said) if name == NAME else KitError(f"kit bench: {said}")
            sides[name] = told.report(warm_up=warm_up, batch=work.batch) | dict(ended.peaks)
    return {
        "work": asdict(work),
        "hardware": hardware(),
        "load_before": round(load, 2),  # of other programs: seconds count only where it is near 0
        "differs": [*notices, *differences(work)],
        **{name: sides["ours"].get(name) for name in ("host_peak_mib", "device_peak_mib")},
        **sides,
        **ratios(sides["ours"], sides[NAME]),
    }


def ratios(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Ours / theirs of all that both have told; of times the medians."""
    found: dict[str, Any] = {}
    for name, of in COMPARED.items():
        mine, other = (_middle(side.get(of)) for side in (ours, theirs))
        if mine and other:
            found[name] = {"median": round(mine / other, 4)}
    return found


def draw_pictures(folder: Path, px: int, count: int) -> None:
    """Pictures of noise with a caption each."""
    folder.mkdir(parents=True)
    numbers = numpy.random.default_rng(SEED)
    for number in range(count):
        pixels = numbers.integers(0, 256, (px, px, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
        (folder / f"{number:03}.txt").write_text(CAPTION, "utf-8")


def run_settings(work: Work, room: Path, steps: int) -> Settings:
    """A run's: base model and pictures are made, where they are not there."""
    dtype = DTYPES[PRECISIONS[work.precision]]
    name = f"{work.family}-{str(dtype).removeprefix('torch.')}"
    base = saved_base(cache_folder() / "bench" / name, FAMILIES[work.family], dtype)
    draw_pictures(room / "pictures" / "1_bench", work.px, PICTURES * work.batch)
    return settings_of(work, steps=steps).replace(
        pretrained_model_name_or_path=str(base), train_data_dir=str(room / "pictures")
    )


def why_not(ended: Ended, told: Steps, steps: int) -> str:
    """Why a program did not do its steps; blank where it did."""
    if ended.code is None:
        return f"its time was over after {len(told.at)} of {steps} steps"
    last = " | ".join(line.strip() for line in ended.lines[-LAST_LINES:])
    if ended.code:
        return f"{last or 'it said nothing'} (it ended with {ended.code})"
    return "" if len(told.at) == steps else f"it said {len(told.at)} of {steps} steps: {last}"


def _middle(told: Any) -> float:
    return float(told["median"] if isinstance(told, Mapping) else told or 0)
