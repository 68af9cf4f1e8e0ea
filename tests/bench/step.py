"""How long one training step takes, and how much memory, on a base model of its real size.

    python tests/bench/step.py --family sd15 --px 512 --batch 1 --precision fp16
    python tests/bench/step.py --family sdxl --px 1024 --batch 1 --precision bf16 --checkpointing
    python tests/bench/step.py --family sd15 --px 128 --against diffusers --save

The weights are random and nothing is downloaded; the step is the product's own, `run_step`.
Latents are given; captions are encoded in every step, as the product does unless they are cached.
What is measured is printed as one JSON object on stdout. `--save` also keeps it in
tests/bench/results/<family>-<px>-<batch>-<precision>-<hardware>.json, with `-te`, `-ckpt` and
`-rank<N>` before the hardware where they are not the usual.

`--against diffusers` puts the same work to a plain loop of diffusers and PEFT: the same batch, the
same layers, rank and alpha, AdamW, autocast. The two take turns, A B B A, and share the frozen
weights; `ratio` compares them pair by pair (ours / theirs: below 1, ours is quicker), which holds
on a busy machine too, where seconds do not. Both begin as zero changes, so their first losses must
be equal. Memory is told for ours alone, as it was before the other was built.

`cpu_seconds` are core-seconds of the whole process; on a busy CPU, `cpu_ratio` is the steadiest
number of all. Threads that wait spin, and are counted as if they worked: for these numbers set
OMP_WAIT_POLICY=passive and GOMP_SPINCOUNT=0.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

BEGAN = time.perf_counter()
ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results")
PRECISIONS = ("fp32", "fp16", "bf16")
USUAL_RANK = 8
WRONG = 2  # the exit code of argparse, too


class Side(Protocol):
    """One of two that do the same work."""

    def step(self) -> float:
        """Make one optimizer step; its loss. Whatever it started is finished."""
        ...


class Clock:
    """Takes the time of a side's steps."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []

    def warm_up(self, steps: int) -> None:
        """Steps that do not count: kernels are chosen and memory is gathered."""
        self.losses += [self.side.step() for _ in range(steps)]

    def step(self) -> None:
        """One step that counts."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.losses.append(self.side.step())
        self.cpu_seconds.append(time.process_time() - cpu)
        self.seconds.append(time.perf_counter() - wall)

    def report(self, batch: int) -> dict[str, Any]:
        """What was measured."""
        median = statistics.median(self.seconds)
        return {
            "seconds": _spread(self.seconds),
            "cpu_seconds": _spread(self.cpu_seconds),
            "images_per_second": round(batch / median, 3),
            "steps": len(self.seconds),
            "losses": [round(loss, 6) for loss in self.losses],
        }


def main(words: Sequence[str] | None = None) -> int:
    """Measure what the arguments say; returns the exit code."""
    chosen = _parser().parse_args(words)
    if chosen.against and find_spec("peft") is None:
        print("--against diffusers needs peft: pip install 'peft>=0.17'", file=sys.stderr)
        return WRONG
    sys.path.insert(0, str(ROOT))  # started as a file, Python sees only this folder
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from kit.errors import KitError

    try:
        result = measure(chosen)
    except KitError as error:
        print(error, file=sys.stderr)
        return WRONG
    text = json.dumps(result, indent=1)
    print(text)
    if chosen.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{_name(chosen, result['hardware'])}.json").write_text(f"{text}\n", "utf-8")
    return 0


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """Everything that is told about one choice of arguments.

    Raises: DeviceError where the device lacks the precision.
    """
    from kit.bench.sides import Ours, Theirs, device_name, device_peak, forget_device_peak

    load = os.getloadavg()[0]
    ours = Ours(chosen)
    forget_device_peak()
    clock = Clock(ours)
    clock.warm_up(1)
    first = time.perf_counter() - BEGAN
    clock.warm_up(chosen.warm_up - 1)
    memory = {"device_peak_mib": device_peak(), "host_peak_mib": _host_peak()}
    result: dict[str, Any] = {
        "arguments": {k: v for k, v in vars(chosen).items() if k != "save"},
        "hardware": _hardware(device_name()),
        "load_before": round(load, 2),  # of other programs: seconds count only where this is near 0
        "lora": {"layers": len(ours.network.adapters), "weights": ours.network.count},
        "seconds_until_first_step_is_done": round(first, 2),
        **memory,
    }
    if not chosen.against:
        for _ in range(chosen.steps):
            clock.step()
        return result | {"ours": clock.report(chosen.batch)}
    other = Clock(Theirs(ours))
    other.warm_up(chosen.warm_up)
    for turn in range(chosen.steps):
        for side in (other, clock) if turn % 2 else (clock, other):
            side.step()
    return result | {
        "ours": clock.report(chosen.batch),
        "diffusers": other.report(chosen.batch),
        "ratio": _ratio(clock.seconds, other.seconds),
        "cpu_ratio": _ratio(clock.cpu_seconds, other.cpu_seconds),
    }


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Ours / theirs, pair by pair."""
    return _spread([mine / other for mine, other in zip(ours, theirs, strict=True)])


def _spread(values: Sequence[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 4) for name, value in found.items()}


def _host_peak() -> int:
    """The most memory that this process has held, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes


def _hardware(device: str) -> dict[str, Any]:
    import torch

    return {
        "device": device,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "diffusers", "transformers", "accelerate")},
    }


def _name(chosen: argparse.Namespace, hardware: dict[str, Any]) -> str:
    parts = [chosen.family, chosen.px, chosen.batch, chosen.precision]
    parts += ["te"] * chosen.text_encoder + ["ckpt"] * chosen.checkpointing
    parts += [f"rank{chosen.rank}"] * (chosen.rank != USUAL_RANK)
    return "-".join([*map(str, parts), re.sub(r"\W+", "-", hardware["device"].lower())])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--family", choices=("sd15", "sd21", "sdxl"), required=True)
    add("--px", type=_multiple_of_64, default=512, metavar="N", help="side of the images (512)")
    add("--batch", type=_count, default=1, metavar="N", help="images a step (1)")
    add("--precision", choices=PRECISIONS, default="fp32")
    add("--text-encoder", action="store_true", help="the text encoders learn, too")
    add("--checkpointing", action="store_true", help="recompute instead of remembering")
    add("--steps", type=_count, default=10, metavar="N", help="steps, or pairs, that count (10)")
    add("--warm-up", type=_count, default=2, metavar="N", help="steps before them (2)")
    add("--rank", type=_count, default=USUAL_RANK, metavar="N", help=f"({USUAL_RANK})")
    add("--against", choices=("diffusers",), help="compare with a plain loop of diffusers and PEFT")
    add("--save", action="store_true", help="keep the result in tests/bench/results")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _multiple_of_64(text: str) -> int:
    number = int(text)
    if number < 64 or number % 64:
        raise argparse.ArgumentTypeError(f"{text} is no multiple of 64")
    return number


if __name__ == "__main__":
    sys.exit(main())
