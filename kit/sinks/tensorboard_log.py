"""Curves and pictures for TensorBoard, written as they come.

A line of numbers is some hundred bytes, so it is written at once and without a thread: what a
killed run has told is in the file. Of the tensorboard package only the formats are used; neither
torch nor tensorflow is imported.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from kit import catalog
from kit.errors import OutputError
from kit.events import (
    Began,
    Event,
    Failed,
    Finished,
    Loaded,
    RolledBack,
    Sampled,
    Stepped,
    Validated,
)
from kit.reading.paths import path_of, resolved
from kit.runs.disk import why_unwritten
from kit.runs.record import recall, remember
from kit.runs.run import Run
from kit.settings import Settings, effective
from kit.settings.public import all_public_settings
from kit.sinks.scalars import ended_epoch, scalars, validation_scalars

KEPT = "tensorboard"  # under which the run remembers its folder


class TensorBoard:
    """An event file below the logging folder, `<prefix><time>/<tracker name>/events.out...`.

    A run that goes on writes another file into the same folder; what the first has told about
    steps that are made again is purged by TensorBoard's own mark for it.
    """

    def __init__(self, run: Run, settings: Settings) -> None:
        self._run, self._settings = run, settings
        self._file: BinaryIO | None = None
        self._path = Path()
        self._records: Any = None

    def __call__(self, event: Event) -> None:
        """Write what the event tells, if TensorBoard can show it."""
        match event:
            case Loaded():
                self._open(event.from_step)
            case RolledBack():
                self._purge_after(event.step)
            case Stepped():
                self._write(event.step, _scalars(scalars(event)))
                if epoch := ended_epoch(event):
                    self._write(epoch, _scalars({"loss/epoch_average": event.loss_average}))
            case Validated():
                self._write(event.step, _scalars(validation_scalars(event, per="step")))
                if epoch := ended_epoch(event):
                    self._write(epoch, _scalars(validation_scalars(event, per="epoch")))
            case Sampled():
                self._write(event.step, [_picture(f"sample_{event.index}", Path(event.path))])
            case Failed() | Finished():
                self.close()
            case Began() | _:
                pass  # nothing to draw a curve of

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, from_step: int) -> None:
        folder = self._folder(from_step)
        folder.mkdir(parents=True, exist_ok=True)
        options = effective.tracker_options(self._settings.logs, "tensorboard")
        ending = options.get("filename_suffix", "")
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}{ending}"
        self._path = folder / name
        self._file = self._path.open("wb", buffering=0)  # closing has nothing to write then
        self._records = _load("summary.writer.record_writer:RecordWriter")(self._file)
        self._record(file_version="brain.Event:2")
        if from_step:
            self._purge_after(from_step)
        if self._settings.logs.log_config:
            self._write(from_step, [_text("settings", _table(all_public_settings(self._settings)))])

    def _purge_after(self, step: int) -> None:
        """TensorBoard's own mark: what was told of later steps is made again."""
        if self._file is not None:
            log = _load("compat.proto.event_pb2:SessionLog")
            self._record(step=step + 1, session_log=log(status=log.START))

    def _folder(self, from_step: int) -> Path:
        logs = self._settings.logs
        root = resolved(path_of(logs.logging_dir, "logging_dir"))
        kept = recall(self._run.dir, KEPT) if from_step else ""
        if kept and Path(kept).is_relative_to(root):
            return Path(kept)
        stamp = f"{logs.log_prefix}{datetime.now():%Y%m%d%H%M%S}"
        taken, number = root / stamp, 1
        while taken.exists():  # two runs began in the same second
            number += 1
            taken = root / f"{stamp}-{number}"
        folder = taken / effective.project(self._settings.logs)
        remember(self._run.dir, KEPT, str(folder))
        return folder

    def _write(self, step: int, values: list[Any]) -> None:
        if self._file is not None:
            summary = _load("compat.proto.summary_pb2:Summary")(value=values)
            self._record(step=step, summary=summary)

    def _record(self, **content: Any) -> None:
        event = _load("compat.proto.event_pb2:Event")(wall_time=time.time(), **content)
        try:
            self._records.write(event.SerializeToString())
            self._records.flush()
        except OSError as error:
            why = why_unwritten(error, self._path)
            raise OutputError(f"{self._path} cannot be written: {why}.") from error


def _load(code: str) -> Any:
    return catalog.load(f"tensorboard.{code}", needs="tensorboard")


def _scalars(values: Mapping[str, float]) -> list[Any]:
    value = _load("compat.proto.summary_pb2:Summary").Value
    return [value(tag=tag, simple_value=number) for tag, number in values.items()]


def _picture(tag: str, path: Path) -> Any:
    summary = _load("compat.proto.summary_pb2:Summary")
    with Image.open(path) as picture:
        width, height = picture.size
    image = summary.Image(
        width=width, height=height, colorspace=3, encoded_image_string=path.read_bytes()
    )
    return summary.Value(tag=tag, image=image)


def _text(tag: str, text: str) -> Any:
    """A summary of TensorBoard's text plugin: a vector of one string."""
    tensor = _load("compat.proto.tensor_pb2:TensorProto")
    shape = _load("compat.proto.tensor_shape_pb2:TensorShapeProto")
    string = _load("compat.proto.types_pb2:DT_STRING")
    about = _load("compat.proto.summary_pb2:SummaryMetadata")
    return _load("compat.proto.summary_pb2:Summary").Value(
        tag=tag,
        metadata=about(plugin_data=about.PluginData(plugin_name="text")),
        tensor=tensor(
            dtype=string,
            tensor_shape=shape(dim=[shape.Dim(size=1)]),
            string_val=[text.encode("utf-8", "replace")],
        ),
    )


def _table(values: Mapping[str, Any]) -> str:
    rows = (f"| {name} | {str(value).replace('|', '/')} |" for name, value in values.items())
    return "\n".join(["| setting | value |", "| --- | --- |", *rows])
