"""What was measured, for people: a table, and a picture of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kit import catalog
from kit.bench.sd_scripts import NAME
from kit.bench.work import Work
from kit.runs.atomic_write import write_atomically

COLUMNS = (
    "work",
    "s / step",
    "images / s",
    "of limit",
    "GPU MiB",
    "RAM MiB",
    "calls",
    "ratio",
    "whole run",
)
SIDE_COLUMNS = (
    "s / step",
    "core-s / step",
    "images / s",
    "RAM MiB",
    "GPU MiB",
    "first step, s",
    "core-s",
)
RATIOS = (
    "ratio",
    "cpu_ratio",
    "images_ratio",
    "memory_ratio",
    "device_memory_ratio",
    "first_step_ratio",
    "first_step_cpu_ratio",
)
BLUE, GREY, DARK = "#1f5fa8", "#9aa3ad", "#5b6570"


def table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown, a row for each piece of work; ratio is ours / what it was compared with.

    whole run: how much of the step's speed a whole training has.
    """
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(_cells(result)) + " |" for result in results]
    return "\n".join(lines)


def beside_tables(results: Sequence[dict[str, Any]]) -> list[str]:
    """For each work that a program did, too: a row of ours, one of its, and the ratios."""
    return [_beside_table(result) for result in results if NAME in result]


def _beside_table(result: dict[str, Any]) -> str:
    rows = [["LoRA Kit", *_side_cells(result["ours"])], [NAME, *_side_cells(result[NAME])]]
    ratios = [result.get(name, {}).get("median") for name in RATIOS]
    rows += [["ours / theirs", *("-" if each is None else f"{each:.2f}" for each in ratios)]]
    head = [str(Work(**result["work"])), *SIDE_COLUMNS]
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    told = [f"- {text}" for text in result["differs"]]
    return "\n".join(
        [lines[0], "|---" * len(head) + "|", *lines[1:], *([""] if told else []), *told]
    )


def _side_cells(side: dict[str, Any]) -> list[str]:
    numbers = (
        side["seconds"]["median"],
        side["cpu_seconds"]["median"],
        side["images_per_second"],
        side.get("host_peak_mib"),
        side.get("device_peak_mib"),
        side["seconds_until_first_step_is_done"],
        side["cpu_seconds_until_first_step_is_done"],
    )
    return ["-" if number is None else _short(number) for number in numbers]


def _short(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:.4g}"


def picture(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Bars of seconds per step, ours and theirs.

    Raises: MissingPackage where matplotlib is not installed.
    """
    figure = catalog.load("matplotlib.figure:Figure", needs="matplotlib")(
        figsize=(9, 1.2 + 0.6 * len(results)), dpi=110, layout="constrained"
    )
    axes = figure.subplots()
    names = [str(Work(**result["work"])) for result in results]
    places = range(len(results))
    for offset, side, colour, label in (
        (-0.18, "ours", BLUE, "LoRA Kit"),
        (0.18, "diffusers", GREY, "diffusers + PEFT"),
        (0.18, NAME, DARK, NAME),
    ):
        shown = [
            (place, result[side]["seconds"]["median"])
            for place, result in zip(places, results, strict=True)
            if side in result
        ]
        if shown:
            bars = axes.barh(
                [place + offset for place, _ in shown],
                [seconds for _, seconds in shown],
                height=0.34,
                color=colour,
                label=label,
            )
            axes.bar_label(bars, fmt="%.3g", padding=3, fontsize="small")
    axes.set_yticks(list(places), names)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("seconds per step")
    axes.set_title(results[0]["hardware"]["device"] if results else "", loc="left")
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    write_atomically(path, lambda part: figure.savefig(part, format="png"))


def _cells(result: dict[str, Any]) -> list[str]:
    """A row of the table; a dash for what this device does not tell."""
    ratio, share = result.get("ratio", {}).get("median"), result.get("share_of_limit")
    kept = result.get("whole_run", {}).get("share_of_step")
    calls = result.get("kernels") or result.get("aten_calls")
    whole = [result.get(name) for name in ("device_peak_mib", "host_peak_mib")]
    return [
        str(Work(**result["work"])),
        f"{result['ours']['seconds']['median']:.4g}",
        f"{result['ours']['images_per_second']:.4g}",
        "-" if share is None else f"{share:.1%}",
        *("-" if number is None else f"{number:,}" for number in (*whole, calls)),
        "-" if ratio is None else f"{ratio:.2f}",
        "-" if kept is None else f"{kept:.2f}",
    ]
