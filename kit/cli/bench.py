"""`kit bench`: what a training step costs on this machine."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from kit import catalog
from kit.cli.command import Command

FAMILIES = ("sd15", "sd21", "sdxl")
PRECISIONS = ("fp32", "fp16", "bf16")
ENGINES = ("auto", "graph", "eager")


def _describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--family", choices=FAMILIES, default="sd15", help="(default: sd15)")
    add("--px", type=_multiple_of_64, default=512, metavar="N", help="side of the images (512)")
    add("--batch", type=_count, default=1, metavar="N", help="images a step (1)")
    add("--precision", choices=PRECISIONS, default="fp32", help="(default: fp32)")
    add("--rank", type=_count, default=8, metavar="N", help="network_dim (8)")
    add("--optimizer", choices=tuple(catalog.OPTIMIZERS), default="AdamW", metavar="NAME")
    add(
        "--base-precision",
        choices=tuple(catalog.BASE_PRECISIONS),
        default="as_mixed_precision",
        metavar="NAME",
        help=f"of the frozen layers: {', '.join(catalog.BASE_PRECISIONS)}",
    )
    add("--checkpointing", action="store_true", help="recompute instead of remembering")
    add("--text-encoder", action="store_true", help="the text encoders learn, too")
    add("--encodes-captions", action="store_true", help="encode captions in each step")
    add(
        "--step-engine",
        choices=ENGINES,
        default="auto",
        help="how our step is made (auto: a graph on an NVIDIA GPU)",
    )
    add("--steps", type=_count, default=10, metavar="N", help="steps, or pairs, that count (10)")
    add("--warm-up", type=_count, default=2, metavar="N", help="steps before them (2)")
    add("--seconds", type=float, default=0.0, metavar="N", help="no further step begins after them")
    add(
        "--against",
        default="",
        metavar="WHAT",
        help="compare with a plain loop of diffusers and PEFT (diffusers), or with a program: the "
        "folder of a checkout of kohya-ss/sd-scripts",
    )
    add(
        "--python",
        default="",
        metavar="PATH",
        help="the Python of that program's environment (default: that of its own venv, or this)",
    )
    add(
        "--whole-run",
        type=_some_steps,
        default=0,
        metavar="N",
        help="also train N steps as kit train does, with two files saved, and tell how much of the "
        "step's speed is left",
    )
    add("--json", action="store_true", help="everything, for programs")
    add("--all", action="store_true", help="the usual works, each in a process of its own")
    add("--minutes", type=float, default=8.0, metavar="N", help="that --all may take (8)")
    add("--out", type=Path, default=Path("bench"), help="where --all writes (default: bench)")


def _act(chosen: argparse.Namespace) -> None:
    began = time.monotonic()
    beside = catalog.load("kit.bench.suite:beside")(chosen.against, chosen.python)
    if chosen.all:
        several = catalog.load("kit.bench.suite:several")
        several(
            chosen.out,
            minutes=chosen.minutes,
            beside=beside,
            steps=chosen.steps,
            whole=chosen.whole_run,
        )
        print((chosen.out / "bench.md").read_text("utf-8"))
        return
    work = catalog.load("kit.bench.suite:work_from")(vars(chosen))
    result = catalog.load("kit.bench.suite:one")(
        work,
        steps=chosen.steps,
        warm_up=chosen.warm_up,
        beside=beside,
        seconds=chosen.seconds,
        began=began,
        whole=chosen.whole_run,
    )
    print(catalog.load("kit.bench.suite:as_words")(result, as_json=chosen.json))


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _some_steps(text: str) -> int:
    number = int(text)
    if number < 3:
        raise argparse.ArgumentTypeError(f"{text} steps are too few: 3 at least")
    return number


def _multiple_of_64(text: str) -> int:
    number = int(text)
    if number < 64 or number % 64:
        raise argparse.ArgumentTypeError(f"{text} is no multiple of 64")
    return number


BENCH = Command(
    "time a training step on a base model of its real size with random weights",
    _describe,
    _act,
)
