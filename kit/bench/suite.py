"""`kit bench`: one piece of work here, or several, each in a process of its own.

A process of its own, because what one has loaded and cached would make the next look better, and
because one that runs out of memory must not end the others.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from kit.bench.measuring import measure
from kit.bench.report import picture, table
from kit.bench.work import Work, usual
from kit.devices import choose_device
from kit.errors import KitError
from kit.runs.run import write_text

LEAST = 20.0  # seconds that a piece of work is worth beginning for
CLOSING = 5.0  # of a process that has measured and must tell


def one(
    work: Work, *, steps: int, warm_up: int, against: bool, seconds: float, began: float
) -> dict[str, Any]:
    """Measure one piece of work in this process.

    seconds: no further step begins after them, 0 never; began: by time.monotonic(), when it was
    asked for.
    """
    until = began + seconds if seconds else 0.0
    return measure(work, steps=steps, warm_up=warm_up, against=against, until=until, began=began)


def several(
    out: Path,
    *,
    minutes: float,
    against: bool,
    steps: int = 10,
    works: Sequence[Work] = (),
    tell: Callable[[str], object] = print,
) -> list[dict[str, Any]]:
    """What fits into the time, the most telling first; results lie in `out` as they come.

    Writes bench.json, bench.md and bench.png.

    Raises: OutputError where `out` cannot be written; KitError where nothing could be measured.
    """
    ends, results = time.monotonic() + 60 * minutes, []
    for work in works or usual(choose_device().type):
        left = ends - time.monotonic()
        if left < LEAST:
            tell(f"{work}: no time left")
            continue
        result = _in_process(work, steps=steps, against=against, seconds=left)
        if isinstance(result, str):
            tell(f"{work}: not measured: {result}")
            continue
        results.append(result)
        write_text(out / "bench.json", json.dumps(results, indent=1))
        tell(f"{work}: {result['ours']['seconds']['median']:.4g} s a step")
    if not results:
        raise KitError(
            "Nothing could be measured.",
            "Each line above tells why.",
            "Give more --minutes, or one piece of work by --family and --px.",
        )
    write_text(out / "bench.md", table(results) + "\n")
    picture(results, out / "bench.png")
    return results


def arguments_of(work: Work) -> list[str]:
    """The words that make `kit bench` measure this."""
    words: list[str] = []
    for field in fields(work):
        value, option = getattr(work, field.name), f"--{field.name.replace('_', '-')}"
        if value != field.default or field.name == "family":
            words += [option] if value is True else [option, str(value)]
    return words


def _in_process(work: Work, *, steps: int, against: bool, seconds: float) -> dict[str, Any] | str:
    """What a process of its own measured, or why it did not."""
    words = [*arguments_of(work), "--steps", str(steps), "--json"]
    words += ["--against", "diffusers"] * against
    words += ["--seconds", f"{max(1.0, seconds / 2 - CLOSING):.0f}"]  # half of it is building
    command = [sys.executable, "-m", "kit", "bench", *words]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return "no time left"
    if ran.returncode:
        lines = [line for line in ran.stderr.splitlines() if line.strip()]
        return lines[-1] if lines else f"the process ended with {ran.returncode}"
    result: dict[str, Any] = json.loads(ran.stdout)
    return result


def as_words(result: dict[str, Any], *, as_json: bool) -> str:
    """One result as JSON or as a table with its parts."""
    if as_json:
        return json.dumps(result, indent=1)
    phases = ", ".join(f"{name} {value:.4g} s" for name, value in result["phase_seconds"].items())
    device = result["hardware"]["device"]
    return f"{device}\n\n{table([result])}\n\n{phases}; {result['tflop']} TFLOP a step"


def work_from(values: dict[str, Any]) -> Work:
    """The work that arguments name; others among them are left out."""
    known = asdict(Work())
    return Work(**{name: value for name, value in values.items() if name in known})
