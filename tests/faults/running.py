"""One case: the training whole, the same training broken and restarted, and what differs."""

from __future__ import annotations

import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kit.demo import BASE
from kit.events import Event, Stepped
from kit.runs.state_files import BEFORE
from kit.settings import Settings
from kit.training import checkpoint
from tests.faults.cases import Case
from tests.faults.children import FULL, LONGEST, READ_ONLY, Accesses, Outcome, die, in_child, refuse
from tests.faults.comparing import differences
from tests.support.toys import draw_images

MOST_STARTS = 12
RANKS = {"LyCORIS/BOFT": 16}  # its blocks must divide every layer
ROOT = Path(__file__).parents[2]


class Wrong(Exception):
    """What a case has shown that must not be."""


@dataclass(frozen=True)
class Place:
    """Where one side of a case lives: its pictures, its output."""

    folder: Path

    def settings(self, case: Case) -> Settings:
        """Two epochs of three batches on the embedded base, with everything that the case draws."""
        pictures = self.folder / "pictures"
        if not pictures.exists():
            draw_images(pictures)
        return Settings().replace(
            **{
                "pretrained_model_name_or_path": str(BASE),
                "train_data_dir": str(pictures),
                "output_dir": str(self.out),
                "output_name": "toy",
                "resolution": "128,64",
                "train_batch_size": 2,
                "epoch": 2,
                "mixed_precision": "no",
                "save_precision": "float",
                "optimizer_type": case.optimizer,
                "LoRA_type": case.lora_type,
                "network_dim": RANKS.get(case.lora_type, 2),
                "unet_lr": 1e-3,
                "text_encoder_lr": 1e-3,
                "save_every_n_epochs": 0,
                "sample_prompts": "a zib ball --w 64 --h 64 --s 2 --d 1",
                "sample_every_n_epochs": 0,
                "sample_sampler": "ddim",
                "seed": 5,
                "step_engine": case.engine,
            }
            | case.options
        )

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def state(self) -> Path:
        return self.out / "toy.run" / "state" / "state.pt"


@dataclass(frozen=True)
class Judged:
    """What came of a case."""

    case: Case
    wrong: tuple[str, ...]
    ends: tuple[int | None, ...]  # of each start
    seconds: float
    skipped: str = ""


class Broken:
    """The side of a case that is broken, and its starts."""

    def __init__(self, case: Case, place: Place, accesses: int, seconds: float) -> None:
        """accesses, seconds: of the whole training, from which moments are drawn."""
        self.case, self.place = case, place
        self.settings = place.settings(case)
        self.accesses, self.seconds = accesses, seconds
        self.random = case.random()
        self.ends: list[int | None] = []
        self.more = False

    def start(
        self,
        prepare: Callable[[], object] = lambda: None,
        hear: Callable[[Event], object] = lambda _: None,
        kill_after: float | None = None,
        kill_with: int = signal.SIGKILL,
    ) -> Outcome:
        """One start; Wrong where it ends with a traceback or hangs."""
        log = self.place.folder / f"start{len(self.ends) + 1}.log"
        return self.ended(
            in_child(
                self.settings,
                log,
                prepare=prepare,
                hear=hear,
                kill_after=kill_after,
                kill_with=kill_with,
            )
        )

    def ended(self, outcome: Outcome) -> Outcome:
        """Note how a start ended."""
        self.ends.append(outcome.status)
        if outcome.status is None:
            raise Wrong(f"hangs after {_last(outcome.said)}")
        if outcome.status == 1:
            raise Wrong(f"traceback: {_last(outcome.said)}")
        if len(self.ends) > MOST_STARTS:
            raise Wrong("never done")
        return outcome

    def finish(self) -> None:
        """Start again and again, as a person would, until it is done."""
        while (outcome := self.start()).status != 0:
            raise Wrong(f"does not go on: {_last(outcome.said)}")

    def kill_at_an_access(self) -> Outcome:
        at = self.random.randint(1, self.accesses)
        accesses = Accesses(self.place.folder, at, die)
        return self.start(prepare=accesses.watch)

    def kill_at_a_time(self) -> Outcome:
        return self.start(kill_after=self.random.uniform(0.02, 1.0) * self.seconds)

    def kills_in_a_row(self) -> Outcome:
        for _ in range(self.random.randint(2, 4)):
            outcome = self.random.choice([self.kill_at_an_access, self.kill_at_a_time])()
            if outcome.status == 0:
                break
        return outcome

    def kill_of_the_command(self) -> Outcome:
        """`kit train`, a process that imports everything itself, killed somewhere in its life."""
        toml = self.place.folder / "run.toml"
        toml.write_text(self.settings.to_toml(), "utf-8")
        log = self.place.folder / f"start{len(self.ends) + 1}.log"
        began = time.monotonic()
        seen = self.random.choice(["step 1", "step 3", "step 5", "saved", "loaded"])
        with log.open("w") as file:
            command = [sys.executable, "-m", "kit", "train", str(toml)]
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=os.environ.copy()
            )
            events = self.place.out / "toy.run" / "events.jsonl"
            words = {"saved": '"Saved"', "loaded": '"Loaded"'}
            word = words.get(seen, f'"step": {seen[-1]}')
            while process.poll() is None and time.monotonic() - began < LONGEST:
                if events.exists() and word in events.read_text("utf-8"):
                    time.sleep(self.random.uniform(0, 0.05))
                    process.kill()
                time.sleep(0.005)
            status = process.wait(5)
        if status == 2:
            raise Wrong(f"the command refuses: {_last(log.read_text('utf-8'))}")
        return self.ended(Outcome(status, time.monotonic() - began, log.read_text("utf-8")))

    def stop(self) -> Outcome:
        """Ctrl-C, a scheduler's SIGTERM, a closed terminal."""
        self.more = True  # what there was is saved
        number = self.random.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
        after = self.random.uniform(0.2, 1.0) * self.seconds
        return self.start(kill_after=after, kill_with=number)

    def refused_writes(self, number: int, words: str) -> Outcome:
        at = self.random.randint(1, self.accesses)
        accesses = Accesses(self.place.folder, at, refuse(number))
        outcome = self.start(prepare=accesses.watch)
        if outcome.status == 2 and words not in outcome.said.lower():
            raise Wrong(f"the cause is not told: {_last(outcome.said)}")
        return outcome

    def flipped_bit(self) -> Outcome:
        """In the state that is left by a kill after its second step or later."""
        step = self.random.randint(3, 4)
        outcome = self.start(prepare=_keep_every_state, hear=partial(_die_after, step))
        if not self.place.state.with_name(BEFORE).exists():
            raise Wrong("no two states were kept")
        flip(self.place.state, self.random)
        return outcome

    def folder_gone(self) -> Outcome:
        step = self.random.randint(1, 3)

        def delete(event: Event) -> None:
            if isinstance(event, Stepped) and event.step == step:
                shutil.rmtree(self.place.out)

        return self.start(hear=delete)

    def clock(self) -> Outcome:
        """A machine that woke with another date, and pictures that were copied there anew."""
        self.start(hear=partial(_die_after, self.random.randint(1, 4)))
        for path in (self.place.folder / "pictures").rglob("*"):
            os.utime(path)
        return self.start(prepare=partial(_turn_back, 86400))

    def second_run(self) -> Outcome:
        """The first goes on as if nothing had been tried."""
        log = self.place.folder / "second.log"
        step = self.random.randint(1, 3)

        def try_too(event: Event) -> None:
            if isinstance(event, Stepped) and event.step == step:
                in_child(self.settings, log)

        outcome = self.start(hear=try_too)
        if "told: " not in log.read_text("utf-8"):
            raise Wrong("a second run on the same folder was not refused")
        return outcome


BREAK: dict[str, Callable[[Broken], Outcome]] = {
    "kill at an access": Broken.kill_at_an_access,
    "kill at a time": Broken.kill_at_a_time,
    "kills in a row": Broken.kills_in_a_row,
    "kill of the command": Broken.kill_of_the_command,
    "stop": Broken.stop,
    "full disk": lambda broken: broken.refused_writes(FULL, "no space left"),
    "read-only disk": lambda broken: broken.refused_writes(READ_ONLY, "read-only"),
    "flipped bit": Broken.flipped_bit,
    "folder gone": Broken.folder_gone,
    "second run": Broken.second_run,
    "clock": Broken.clock,
}


def judged(case: Case, folder: Path) -> Judged:
    """Run a case below a folder, which is emptied unless something is wrong."""
    began = time.monotonic()
    whole, place = Place(folder / "whole"), Place(folder / "broken")
    accesses = Accesses(whole.folder)
    settings = whole.settings(case)
    log, counted = whole.folder / "whole.log", whole.folder / "accesses"

    def count(_: Event) -> None:  # the last event is told before the run lets go of its folder
        counted_by = accesses.count
        os.pwrite(descriptor, f"{counted_by:9}".encode(), 0)

    descriptor = os.open(counted, os.O_CREAT | os.O_RDWR)
    outcome = in_child(settings, log, prepare=accesses.watch, hear=count)
    os.close(descriptor)
    if outcome.status != 0:
        return Judged(case, (), (outcome.status,), 0.0, skipped=_last(outcome.said))
    broken = Broken(case, place, int(counted.read_text()) + 2, outcome.seconds)
    wrong: list[str] = []
    try:
        ended = BREAK[case.fault](broken)
        if ended.status != 0:
            broken.finish()
        if case.fault == "folder gone":
            last = "toy.safetensors"
            wrong = [w for w in differences(whole.out, place.out, more=True) if w.startswith(last)]
        else:
            wrong = differences(whole.out, place.out, more=broken.more)
    except Wrong as error:
        wrong = [str(error)]
    if not wrong:
        shutil.rmtree(folder)
    return Judged(case, tuple(wrong), tuple(broken.ends), time.monotonic() - began)


def flip(path: Path, draws: random.Random) -> None:
    """One bit of a file."""
    at = draws.randrange(path.stat().st_size)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ (1 << draws.randrange(8))]))


def _keep_every_state() -> None:
    """Also where that takes more than its share of the time."""
    checkpoint.SHARE = math.inf


def _turn_back(seconds: float) -> None:
    """The clock of this process; how long something takes is measured as before."""
    real = time.time
    time.time = lambda: real() - seconds


def _die_after(step: int, event: Event) -> None:
    if isinstance(event, Stepped) and event.step > step:
        die(f"step {event.step}")


def _last(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "nothing was said"
