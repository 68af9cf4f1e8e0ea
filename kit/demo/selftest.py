"""`kit selftest`: does this machine compute what others do? Twenty steps on the embedded base.

On the CPU in 32 bits the losses are held against those that come with LoRA Kit. A GPU, and every
other precision that can be trained in, is held against the CPU of the same run: pictures, noise and
timesteps come from their addresses, so they are the same everywhere.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path

import torch

from kit.demo import settings as example
from kit.devices import check_precision, choose_device, describe, make_accelerator
from kit.errors import DeviceError
from kit.families.base_model import find_model, load_model
from kit.planning import plan
from kit.reading.texts import from_json
from kit.training.lora_saving import file_writer
from kit.training.preparation import Resources, equip
from kit.training.soundness import Unsound
from kit.training.step import run_step

STEPS, BATCH = 20, 4
SHORT = 8  # steps in half precision on a CPU, which most compute slowly
# The largest difference of a step's loss that is allowed, relative. Measured on x86-64: 5e-7 with
# torch's plain kernels in place of MKL-DNN's, and in bf16 0.013.
STORED, FP32, HALF = 1e-3, 0.01, 0.05
PRECISIONS = {"no": "fp32", "fp16": "fp16", "bf16": "bf16"}


@dataclass(frozen=True)
class Result:
    """One way of computing beside what it should give."""

    name: str  # "CPU, 2 threads, fp32"
    against: str
    apart: float  # the largest relative difference of a step's loss; NaN where one is no number
    tolerance: float
    losses: tuple[float, ...] = ()

    @property
    def is_right(self) -> bool:
        """As near as it should be."""
        return self.apart <= self.tolerance

    def __str__(self) -> str:
        """A line for people."""
        verdict = "right" if self.is_right else "WRONG"
        return (
            f"{verdict}  {self.name}: at most {self.apart:.2g} from {self.against} "
            f"({self.tolerance:g} are allowed)"
        )


def selftest() -> Iterator[Result]:
    """Every way that this machine can train in, the CPU in 32 bits first."""
    cpu, device = torch.device("cpu"), choose_device()
    reference = losses(cpu, "no")
    yield compared(cpu, "no", reference, stored(), "the stored losses", STORED)
    for place in dict.fromkeys((device, cpu)):
        for precision in PRECISIONS:
            if (place, precision) == (cpu, "no") or not _can(place, precision):
                continue
            tolerance = FP32 if precision == "no" else HALF
            found = losses(place, precision, SHORT if place == cpu else STEPS)
            wanted = reference[: len(found)]
            yield compared(place, precision, found, wanted, "the CPU in fp32", tolerance)


def require_right(results: Sequence[Result]) -> None:
    """Refuse a machine that computes something else.

    Raises: DeviceError naming what is wrong.
    """
    wrong = [result.name for result in results if not result.is_right]
    if wrong:
        raise DeviceError(
            f"This machine computes other numbers than it should: {'; '.join(wrong)}.",
            "A LoRA that is trained so may be spoiled. What is not named here computes right.",
            "Update the graphics driver, and install torch again as colab_setup.sh does; or train "
            "with another mixed_precision.",
        )


def stored() -> tuple[float, ...]:
    """The losses that come with LoRA Kit: CPU, 32 bits."""
    text = files("kit.demo").joinpath("selftest.json").read_text("utf-8")
    return tuple(from_json(text, "selftest.json")["losses"])


def compared(
    device: torch.device,
    precision: str,
    found: tuple[float, ...],
    wanted: tuple[float, ...],
    against: str,
    tolerance: float,
) -> Result:
    """How far losses are from what they should be."""
    each = [abs(one - other) / other for one, other in zip(found, wanted, strict=True)]
    apart = max(each) if all(map(math.isfinite, each)) else math.nan
    name = f"{describe(device)}, {PRECISIONS[precision]}"
    return Result(name, against, apart, tolerance, found)


def losses(device: torch.device, precision: str, steps: int = STEPS) -> tuple[float, ...]:
    """The loss of each of the first steps there, weights updated after each."""
    with tempfile.TemporaryDirectory() as folder:
        ready = _ready(folder, precision, device)
        try:
            return tuple(_stepped(ready, step) for step in range(1, steps + 1))
        finally:
            ready.close()


def _stepped(ready: Resources, step: int) -> float:
    batches = ready.batch_builder.micro_batches(step)
    try:
        return run_step(ready.training_step, batches, count=1).losses[0]
    except Unsound:
        return math.nan


def _ready(folder: str, precision: str, device: torch.device) -> Resources:
    """The example's run on a device of our choice; nothing of it is written."""
    settings = example(folder, steps=STEPS).replace(
        reg_data_dir="",
        train_batch_size=BATCH,
        mixed_precision=precision,
        sample_prompts="",
        sample_every_n_steps=0,
        sample_at_first=False,
    )
    planned = plan(settings)
    path = Path(settings.model.pretrained_model_name_or_path)
    file, _ = find_model(settings, path)
    job = equip(
        planned,
        load_model(settings, file, device),
        make_accelerator(device, precision, half_weights=False),
        writer=partial(file_writer, planned, file=file, began=0.0),
    )
    while True:
        try:
            next(job)
        except StopIteration as end:
            ready: Resources = end.value
            return ready


def _can(device: torch.device, precision: str) -> bool:
    try:
        check_precision(device, precision)
    except DeviceError:
        return False
    return True
