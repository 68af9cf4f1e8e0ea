"""What was measured, for people: a table, and a picture of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kit import catalog
from kit.bench.work import Work
from kit.runs.run import write_atomically

COLUMNS = ("work", "s / step", "images / s", "of limit", "GPU MiB", "RAM MiB", "calls", "ratio")
BLUE, GREY = "#1f5fa8", "#9aa3ad"


def table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown, a row for each piece of work; ratio is ours / diffusers + PEFT."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(_cells(result)) + " |" for result in results]
    return "\n".join(lines)


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
    device, ratio = result["device_peak_mib"], result.get("ratio", {}).get("median")
    return [
        str(Work(**result["work"])),
        f"{result['ours']['seconds']['median']:.4g}",
        f"{result['ours']['images_per_second']:.4g}",
        f"{result['share_of_limit']:.1%}",
        "-" if device is None else f"{device:,}",
        f"{result['host_peak_mib']:,}",
        f"{result['kernels'] or result['aten_calls']:,}",
        "-" if ratio is None else f"{ratio:.2f}",
    ]
