"""One piece of work, measured: seconds, memory, arithmetic, launches, and beside another program.

Side by side the two take turns, A B B A, and share the frozen weights; `ratio` compares them pair
by pair (ours / theirs: below 1, ours is quicker), which holds on a busy machine too, where seconds
do not. Both begin as zero changes, so that their first losses must be equal.

`cpu_seconds` are core-seconds of the whole process. Threads that wait spin, and are counted as if
they worked: for these numbers set OMP_WAIT_POLICY=passive and GOMP_SPINCOUNT=0.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, Protocol

import torch

from kit.bench.launches import aten_calls, kernels
from kit.bench.sides import Ours, Theirs, device_name, device_peak, finish, forget_device_peak
from kit.bench.work import Work
from kit.devices import DTYPES, choose_device

TIMES_PRODUCT = 3  # of the product whose speed is the limit
MEBI = 2**20


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
        return {
            "seconds": spread(self.seconds),
            "cpu_seconds": spread(self.cpu_seconds),
            "images_per_second": round(batch / statistics.median(self.seconds), 3),
            "steps": len(self.seconds),
            "losses": [round(loss, 6) for loss in self.losses],
        }


def measure(
    work: Work,
    *,
    steps: int = 10,
    warm_up: int = 2,
    against: bool = False,
    until: float = 0.0,
    began: float | None = None,
) -> dict[str, Any]:
    """Everything that is told about one piece of work.

    steps: that count, or pairs of them; until: by time.monotonic(), no further step or pair begins
    after it, 0 never; began: when it was asked for, None now.

    Raises: DeviceError where the device lacks the precision; MissingPackage.
    """
    began, load = began or time.monotonic(), os.getloadavg()[0]
    ours = Ours(work)
    forget_device_peak()
    clock = Clock(ours)
    clock.warm_up(1)
    first = time.monotonic() - began
    clock.warm_up(warm_up - 1)
    while not ours.engine.is_settled:  # a graph is compared with called steps at first
        clock.warm_up(1)
    memory = {"device_peak_mib": device_peak(), "host_peak_mib": host_peak()}
    other = _beside(ours, warm_up) if against else None
    for turn in range(steps):
        sides = [clock] if other is None else [clock, other]
        for side in reversed(sides) if turn % 2 else sides:
            side.step()
        if until and time.monotonic() > until:
            break
    told = {
        "work": asdict(work),
        "hardware": hardware(),
        "load_before": round(load, 2),  # of other programs: seconds count only where it is near 0
        "lora": {"layers": len(ours.network.adapters), "weights": ours.network.count},
        "step_engine": ours.engine.name,
        "seconds_until_first_step_is_done": round(first, 2),
        **memory,
        "ours": clock.report(work.batch),
        **_parts(ours),
        **_arithmetic(ours, statistics.median(clock.seconds)),
    }
    if other is None:
        return told
    return told | {
        "diffusers": other.report(work.batch),
        "ratio": _ratio(clock.seconds, other.seconds),
        "cpu_ratio": _ratio(clock.cpu_seconds, other.cpu_seconds),
    }


def hardware() -> dict[str, Any]:
    """The machine and the versions that a figure belongs to."""
    return {
        "device": device_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "diffusers", "transformers", "accelerate")},
    }


def host_peak() -> int:
    """The most memory that this process has held, mapped files counted, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (MEBI if sys.platform == "darwin" else 2**10)  # macOS counts bytes


def product_speed(dtype: torch.dtype) -> float:
    """Numbers that this device multiplies and adds in a second, in one large product of matrices.

    Twice the count of products, as FLOPs are counted.
    """
    device = choose_device()
    side = 8192 if device.type == "cuda" else 2048
    one = torch.randn(side, side, device=device, dtype=dtype)
    one @ one
    best = float("inf")
    for _ in range(TIMES_PRODUCT):
        finish(device)
        began = time.perf_counter()
        one @ one
        finish(device)
        best = min(best, time.perf_counter() - began)
    return 2.0 * side**3 / best


def _beside(ours: Ours, warm_up: int) -> Clock:
    other = Clock(Theirs(ours))
    other.warm_up(warm_up)
    return other


def _arithmetic(ours: Ours, seconds: float) -> dict[str, Any]:
    """A step's FLOPs, and what share of the device's own speed they are done at."""
    limit, flops = product_speed(DTYPES[ours.precision]), ours.flops()
    return {
        "tflop": round(flops / 1e12, 3),
        "limit_tflops": round(limit / 1e12, 3),
        "share_of_limit": round(flops / seconds / limit, 4),
    }


def _parts(ours: Ours) -> dict[str, Any]:
    """Where a step's time goes, and how many launches it takes."""
    phases = [ours.phases() for _ in range(2)][-1]
    return {
        "phase_seconds": {name: round(value, 4) for name, value in phases.items()},
        "aten_calls": sum(aten_calls(ours.step).values()),
        "kernels": kernels(ours.step),
    }


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Ours / theirs, pair by pair."""
    return spread([mine / other for mine, other in zip(ours, theirs, strict=True)])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Their median and their ends."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 4) for name, value in found.items()}
