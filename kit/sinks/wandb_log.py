"""Curves and pictures for Weights & Biases.

Its library is told from a background thread: starting a run there may take as long as a network
does. It keeps its own files in the run's folder, so that a run without a network or without a key
is logged offline and can be sent later.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kit import catalog, hosts
from kit.errors import KitError, in_a_line, without_secrets
from kit.events import Event, Failed, Loaded, Noticed, Sampled, Stepped, Validated
from kit.runs.record import recall, remember
from kit.runs.run import Run
from kit.settings import Settings, effective
from kit.settings.public import all_public_settings
from kit.sinks.background import ENDS
from kit.sinks.scalars import ended_epoch, scalars, validation_scalars

KEPT = "wandb"  # under which the run remembers its id there
SECONDS_TO_START = 30


class WeightsAndBiases:
    """A run at Weights & Biases; one that goes on is the same run there.

    Steps that are made again are already known there and ignored: they are equal bit for bit.
    """

    waits = True  # for a network: to be heard in the background

    def __init__(self, run: Run, settings: Settings) -> None:
        self._run, self._settings = run, settings
        self._key = hosts.secret("WANDB_API_KEY")  # asked here: a notebook's store needs its cell
        self._there: Any = None

    def __call__(self, event: Event) -> Iterator[Noticed]:
        """Send what the event tells."""
        if isinstance(event, Loaded):
            yield from self._start(event.from_step)
        elif self._there is None:
            return
        elif isinstance(event, Stepped):
            told = {**scalars(event), "global_step": event.step, "epoch": event.epoch}
            if ended_epoch(event):
                told["loss/epoch_average"] = event.loss_average
            self._there.log(told, step=event.step)
        elif isinstance(event, Validated):
            told = {**validation_scalars(event, per="step"), "global_step": event.step}
            if ended_epoch(event):
                told |= {**validation_scalars(event, per="epoch"), "epoch": event.epoch}
            self._there.log(told, step=event.step)
        elif isinstance(event, Sampled):
            picture = _load("Image")(event.path, caption=event.prompt)
            self._there.log({f"sample_{event.index}": picture}, step=event.step)
        elif isinstance(event, ENDS):
            self._there.finish(1 if isinstance(event, Failed) else 0)
            self._there = None

    def _start(self, from_step: int) -> Iterator[Noticed]:
        named = {"project": effective.project(self._settings.logs), "name": self._run.name}
        options = named | effective.tracker_options(self._settings.logs, "wandb")
        if name := self._settings.logs.wandb_run_name.strip():
            options["name"] = name
        if not options.get("mode") and not os.environ.get("WANDB_MODE"):
            options["mode"] = "online" if self._has_key() else "offline"
            if options["mode"] == "offline":
                yield Noticed(
                    "Weights & Biases has no key, so this run is logged offline. Set WANDB_API_KEY "
                    f"for the next one; {self.left}"
                )
        known = recall(self._run.dir, KEPT) if from_step else ""
        try:
            self._there = self._begun(known or self._new_id(), options)
        except KitError:
            raise
        except Exception as error:  # a refused key, no network, no answer: each has its own kind
            if options.get("mode", os.environ.get("WANDB_MODE") or "online") != "online":
                raise
            yield Noticed(
                f"Weights & Biases cannot be reached ({without_secrets(in_a_line(error))}), so "
                f"this run is logged offline; {self.left}"
            )
            # Not under the same id: wandb 0.31 keeps one that it could not start as "in use".
            self._there = self._begun(self._new_id(), {**options, "mode": "offline"})
        if not self._there.offline:
            yield Noticed(f"Weights & Biases shows this run at {self._there.url}")

    def _new_id(self) -> str:
        known = secrets.token_hex(4)
        remember(self._run.dir, KEPT, known)
        return known

    def _begun(self, known: str, options: dict[str, Any]) -> Any:
        config = all_public_settings(self._settings) if self._settings.logs.log_config else None
        return _load("init")(
            **options,
            id=known,
            resume="allow",
            dir=str(self._run.dir),
            config=config,
            reinit="create_new",  # a run of the notebook's own goes on
            settings=self._private(),
        )

    @property
    def left(self) -> str:
        """How what was not sent is sent later: offline runs, or the one that is on its way."""
        kept = self._run.kept_in / self._run.dir.name / "wandb"
        there = self._there
        own = Path(there.dir).parent.name if there is not None and not there.offline else ""
        what = kept / (own or "offline-run-*")
        return f"`wandb sync {what}` sends it once there is a network and a key"

    def _has_key(self) -> bool:
        """Give wandb the key, if there is one; it is told to nobody else."""
        if self._key:
            os.environ.setdefault("WANDB_API_KEY", self._key)
            return True
        return any(
            "wandb" in path.read_text("utf-8", "replace")
            for path in (Path.home() / ".netrc", Path.home() / "_netrc")
            if path.is_file()
        )

    def _private(self) -> Any:
        """No code, no names of files and no output of this computer are sent."""
        return _load("Settings")(
            init_timeout=SECONDS_TO_START,
            console="off",
            silent=True,
            disable_code=True,
            disable_git=True,
            save_code=False,
            x_disable_meta=True,
        )


def _load(name: str) -> Any:
    return catalog.load(f"wandb:{name}", needs="wandb")
