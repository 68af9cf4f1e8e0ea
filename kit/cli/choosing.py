"""`kit choose`: which of a run's files to keep."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import Any

from kit import catalog
from kit.choosing.words import MEANINGS, TITLES, sentences, table
from kit.cli.command import Command
from kit.sinks import Console


def _describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run",
        metavar="RUN",
        help="a run's folder (output/cat.run), its name in the output folder (output/cat), or a "
        "LoRA file of it",
    )
    parser.add_argument(
        "--encoder",
        default="",
        metavar="ID",
        help="an image encoder of the Hugging Face Hub, of CLIP's, SigLIP's or DINO's kind "
        "(default: the base model's own features)",
    )
    parser.add_argument(
        "--prompts",
        default="",
        metavar="TEXT",
        help="prompts without the subject that it shall still draw: a file, or one prompt "
        "(default: those of sample_prompts)",
    )
    for name, shown, text in (
        ("--count", 8, "pictures of the subject and of other prompts that each file draws"),
        ("--most", 8, "files that are compared, evenly over the run"),
    ):
        parser.add_argument(
            name, type=_positive, default=shown, metavar="N", help=f"{text} (default: {shown})"
        )
    parser.add_argument("--json", action="store_true", help="all numbers, for programs")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _act(chosen: argparse.Namespace) -> None:
    wishes = catalog.load("kit.comparing.job:Wishes")(
        chosen.encoder, chosen.prompts, chosen.count, chosen.most
    )
    job = catalog.load("kit.comparing.job:compare")(chosen.run, wishes)
    with closing(Console()) as console:
        while True:
            try:
                console(next(job))
            except StopIteration as end:
                record = end.value
                break
    if chosen.json:
        print(record.to_json())
        return
    print(*sentences(record.choice), sep="\n", end="\n\n")
    print(*_in_columns([list(TITLES), *table(record.choice)]), sep="\n", end="\n\n")
    print(*(f"{name}: {meaning}" for name, meaning in MEANINGS.items()), sep="\n")
    print(f"\nSeen by {record.eye}. Pictures: {record.grid} in the run's folder.")


def _in_columns(rows: list[list[str]]) -> list[str]:
    wide: list[Any] = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)) for row in rows]


CHOOSE = Command(
    "say which of a run's files to keep, why, and how sure that is",
    _describe,
    _act,
)
