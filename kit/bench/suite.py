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
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeAlias

from kit.bench.against import beside_program
from kit.bench.measuring import measure
from kit.bench.remembering import keep
from kit.bench.report import beside_tables, picture, table
from kit.bench.sd_scripts import Checkout
from kit.bench.whole import USUAL, beside_step, whole_run
from kit.bench.work import Work, usual
from kit.devices import choose_device
from kit.errors import KitError, Unreadable
from kit.reading.fields import Table
from kit.reading.paths import path_of
from kit.reading.texts import from_json
from kit.runs.atomic_write import write_text

LEAST = 20.0  # seconds that a piece of work is worth beginning for
CLOSING = 5.0  # of a process that has measured and must tell
DIFFUSERS = "diffusers"

Beside: TypeAlias = str | Checkout  # what is compared with: nothing (""), DIFFUSERS or a program


def beside(against: str, python: str = "") -> Beside:
    """What to compare with: nothing, diffusers' own loop, or a checkout of sd-scripts.

    Raises: KitError where it is none of them.
    """
    if python and against in ("", DIFFUSERS):
        raise KitError(
            f"--python {python} has no effect here.",
            "It is for a program that is compared with: --against and the folder of its checkout.",
            "Leave it away.",
        )
    if against in ("", DIFFUSERS):
        return against
    return Checkout.at(path_of(against, "--against"), python)


def one(
    work: Work,
    *,
    steps: int,
    warm_up: int,
    beside: Beside,
    seconds: float,
    began: float,
    whole: int = 0,
) -> dict[str, Any]:
    """Measure one piece of work in this process, and remember it for the next forecast.

    seconds: no further step begins after them, 0 never; began: by time.monotonic(), when it was
    asked for; whole: steps of a training as a program, before it, 0: none.

    Raises: KitError where a program that is compared with does not do the work.
    """
    if isinstance(beside, Checkout):  # ours is a run like any other then, and remembered as such
        _refuse_whole(whole)
        return beside_program(work, beside, steps=steps, warm_up=warm_up, seconds=seconds)
    trained = whole_run(work, steps=whole, seconds=seconds) if whole else None
    if trained:  # before ours holds memory; it had its own time
        began = time.monotonic()
    until, against = began + seconds if seconds else 0.0, beside == DIFFUSERS
    found = measure(work, steps=steps, warm_up=warm_up, against=against, until=until, began=began)
    if trained:
        found["whole_run"] = beside_step(trained, found["ours"]["seconds"]["median"])
    with suppress(OSError):  # a forecast less, which is no reason to tell nothing
        keep(found)
    return found


def several(
    out: Path,
    *,
    minutes: float,
    beside: Beside = "",
    steps: int = 10,
    works: Sequence[Work] = (),
    whole: int = 0,
    tell: Callable[[str], object] = print,
) -> list[dict[str, Any]]:
    """What fits into the time, the most telling first; results lie in `out` as they come.

    Writes bench.json, bench.md and bench.png. whole: steps of a training of the first, 0: as many
    as usual on a GPU, none elsewhere.

    Raises: OutputError where `out` cannot be written; KitError where nothing could be measured.
    """
    ends, results, device = time.monotonic() + 60 * minutes, [], choose_device().type
    if isinstance(beside, Checkout):
        _refuse_whole(whole)
    else:
        whole = whole or (USUAL if device == "cuda" else 0)
    for work in works or usual(device):
        left = ends - time.monotonic()
        if left < LEAST:
            tell(f"{work}: no time left")
            continue
        result = _in_process(work, steps=steps, beside=beside, seconds=left, whole=whole)
        whole = 0
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
    write_text(out / "bench.md", "\n\n".join([table(results), *beside_tables(results)]) + "\n")
    picture(results, out / "bench.png")
    return results


def _refuse_whole(steps: int) -> None:
    if steps:
        raise KitError(
            f"--whole-run {steps} has no effect beside a program.",
            "Its steps are told beside those of a whole training of ours already.",
            "Leave --whole-run away, or --against.",
        )


def arguments_of(work: Work) -> list[str]:
    """The words that make `kit bench` measure this."""
    words: list[str] = []
    for field in fields(work):
        value, option = getattr(work, field.name), f"--{field.name.replace('_', '-')}"
        if value != field.default or field.name == "family":
            words += [option] if value is True else [option, str(value)]
    return words


def _in_process(
    work: Work, *, steps: int, beside: Beside, seconds: float, whole: int = 0
) -> dict[str, Any] | str:
    """What a process of its own measured, or why it did not."""
    words = [*arguments_of(work), "--steps", str(steps), "--json"]
    if isinstance(beside, Checkout):
        words += ["--against", str(beside.path), "--python", beside.python]
        words += ["--seconds", f"{max(1.0, seconds - CLOSING):.0f}"]
    else:
        words += ["--against", beside] * bool(beside)
        words += ["--whole-run", str(whole)] * bool(whole)
        parts = 4 if whole else 2  # half of each is building
        words += ["--seconds", f"{max(1.0, seconds / parts - CLOSING):.0f}"]
    command = [sys.executable, "-m", "kit", "bench", *words]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return "no time left"
    if ran.returncode:
        lines = [line for line in ran.stderr.splitlines() if line.strip()]
        return lines[-1] if lines else f"the process ended with {ran.returncode}"
    try:
        return Table(from_json(ran.stdout, "its answer"), "its answer").values
    except Unreadable as error:
        return f"{error.what} {error.why}"


def as_words(result: dict[str, Any], *, as_json: bool) -> str:
    """One result as JSON or as a table with its parts."""
    if as_json:
        return json.dumps(result, indent=1)
    if tables := beside_tables([result]):
        return "\n\n".join([result["hardware"]["device"], *tables])
    phases = ", ".join(f"{name} {value:.4g} s" for name, value in result["phase_seconds"].items())
    device = result["hardware"]["device"]
    told = f"{device}\n\n{table([result])}\n\n{phases}; {result['tflop']} TFLOP a step"
    whole = result.get("whole_run", {})
    return f"{told}\n\nno whole run: {whole['why_not']}" if "why_not" in whole else told


def work_from(values: dict[str, Any]) -> Work:
    """The work that arguments name; others among them are left out."""
    known = asdict(Work())
    return Work(**{name: value for name, value in values.items() if name in known})
