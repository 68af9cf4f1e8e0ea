"""What loggers have written, and a Weights & Biases that only remembers what it was told."""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any

from kit.events import Began, Event, Finished, Loaded, Sampled, Stepped
from kit.runs.run import Run
from tests.support.parts import paint

STAMP = re.compile(r"\d{14}")
EVENT_FILE = re.compile(r"events\.out\.tfevents\.\d+\.[^/]*?\.\d+")


def story(run: Run, *, steps: int = 4, start: int = 0, loss: float = 1.0) -> list[Event]:
    """A run of two epochs with one picture, as the training tells it."""
    run.dir.mkdir(parents=True, exist_ok=True)
    picture = paint(run.sample_dir / "cat.png")
    told: list[Event] = [
        Began(str(run.dir), run.name, steps),
        Loaded("Stable Diffusion 1.x", "cpu", "no", 3, 1000, start),
    ]
    for step in range(start + 1, steps + 1):
        rates = {"unet": 1e-3 / step, "textencoder": 1e-4 / step}
        told.append(Stepped(step, step / 2, loss / step, loss, rates, 0.5, 0.1))
    told.append(Sampled(steps, 0, str(picture), "a cat", 1))
    return [*told, Finished(steps, "done")]


def read_tensorboard(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """Every tag with its (step, value) pairs, by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    reader.Reload()
    tags = reader.Tags()
    found: dict[str, list[tuple[int, Any]]] = {
        tag: [(entry.step, entry.value) for entry in reader.Scalars(tag)] for tag in tags["scalars"]
    }
    for tag in tags["images"]:
        found[tag] = [
            (e.step, (e.width, e.height, e.encoded_image_string)) for e in reader.Images(tag)
        ]
    for tag in tags["tensors"]:
        found[tag] = [(e.step, e.tensor_proto.string_val[0].decode()) for e in reader.Tensors(tag)]
    return found


def read_wandb(path: Path) -> list[Any]:
    """The records of an offline run's file: LevelDB's log format behind a head of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, block, place, whole = path.read_bytes(), 32768, 7, b""
    assert content.startswith(b":W&B")
    found = []
    while place < len(content):
        if block - place % block < 7:  # too short for a head: padding
            place += block - place % block
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole in one piece, or its last piece
            found.append(Record.FromString(whole))
            whole = b""
    return found


def event_files(folder: Path) -> list[str]:
    """The event files below a logging folder, without time, machine and process in their names."""
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*tfevents*"))
    return [STAMP.sub("TIME", EVENT_FILE.sub("EVENTS", path)) for path in paths]


def remembering_wandb() -> tuple[types.ModuleType, list[dict[str, Any]], list[tuple[int, Any]]]:
    """A module in wandb's place, how its runs were started, what they were told at each step."""
    started: list[dict[str, Any]] = []
    told: list[tuple[int, Any]] = []

    class There:
        url = "https://wandb.example/run"

        def __init__(self, mode: str) -> None:
            self.offline = mode == "offline"

        def log(self, values: Any, *, step: int) -> None:
            told.append((step, values))

        def finish(self, exit_code: int) -> None:
            told.append((-1, "finished"))

    def init(**options: Any) -> There:
        started.append(options)
        return There(options["mode"])

    module = types.ModuleType("wandb")
    vars(module).update(init=init, Settings=dict, Image=lambda path, caption: ("image", caption))
    return module, started, told
