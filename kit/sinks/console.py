"""The console: a bar on a terminal, now and then a line in a log."""

from __future__ import annotations

import math
import sys
from typing import Any, Protocol, TextIO

from kit.events import (
    Began,
    Cached,
    Event,
    Finished,
    Lightened,
    Loaded,
    Noticed,
    Paused,
    RateChanged,
    RolledBack,
    Sampled,
    Saved,
    Skipped,
    StateKept,
    Stepped,
    Validated,
)

SECONDS_BETWEEN_REDRAWS = 0.2
LINES_A_RUN = 10  # where there is no terminal whose line could be redrawn
LINES_A_CACHE = 4


class Progress(Protocol):
    """How something that takes long is shown."""

    tells_speed: bool  # by itself

    def show(self, what: str, done: int, total: int, note: str = "", *, lines: int) -> None:
        """Tell how far `what` has come; `lines` is how often that is worth a line of its own."""
        ...

    def say(self, text: str) -> None:
        """Print a line."""
        ...

    def end(self) -> None:
        """Leave what is shown as it is."""
        ...


class Console:
    """A progress bar on a terminal, a line now and then elsewhere; on stderr."""

    def __init__(self, total_steps: int = 0, *, stream: TextIO | None = None) -> None:
        stream = stream or sys.stderr
        self._total_steps = total_steps
        self._progress: Progress = _Bar(stream) if stream.isatty() else _Lines(stream)
        self._seconds = 0.0
        self._steps = 0

    def __call__(self, event: Event) -> None:
        """Show the event."""
        match event:
            case Began():
                self._total_steps = event.total_steps
                self._say(f"{event.name}: {event.total_steps} steps; its folder is {event.run_dir}")
            case Noticed():
                self._say(f"! {event.text}")
            case Cached():
                self._progress.show(event.what, event.done, event.total, lines=LINES_A_CACHE)
            case Loaded():
                self._say(_loaded(event))
            case Stepped():
                self._show_step(event)
            case Validated():
                self._say(f"step {event.step}: {in_a_word(event)}")
            case Sampled():
                self._say(f"step {event.step}: drew {event.path}")
            case Saved():
                self._say(f"step {event.step}: saved {event.path}{_removed(event)}")
            case StateKept():
                self._say(f"step {event.step}: state {event.path}{_removed(event)}")
            case Paused():
                self._say(f"step {event.step}: rests, its state is kept")
            case RateChanged():
                told = ", ".join(f"{name} x {by:.4g}" for name, by in event.factors.items())
                self._say(f"step {event.step}: learning rate of {told}")
            case Skipped():
                self._say(f"! step {event.step} is skipped: {event.reason}")
            case RolledBack():
                self._progress.end()
                self._say(
                    f"! step {event.from_step}: {event.reason}; back to step {event.step}, and on "
                    f"with a change: {event.change}"
                )
            case Lightened():
                self._say(f"! step {event.step + 1}: {in_less_memory(event)}")
            case Finished():
                self._progress.end()
                at = f"{event.reason}, at step {event.step}"
                self._say(f"{at}: {event.path}" if event.path else at)
                if event.path and event.step < self._total_steps:
                    self._say("start it again with the same settings, and it goes on from there")
            case _:
                pass  # a kind of event that has nothing to show here

    def close(self) -> None:
        """Leave the bar as it is, so that what is printed next gets a line of its own."""
        self._progress.end()

    def _say(self, text: str) -> None:
        self._progress.say(text)

    def _show_step(self, event: Stepped) -> None:
        self._seconds += event.seconds
        self._steps += 1
        left = (self._total_steps - event.step) * self._seconds / self._steps
        note = f"loss {event.loss_average:.4f}, lr {_rates(event.rates)}"
        if not self._progress.tells_speed:
            note += f", {event.seconds:.2f} s/step, {duration(left)} left"
        self._progress.show("steps", event.step, self._total_steps, note, lines=LINES_A_RUN)


class _Lines:
    """For logs: a line when another part of the whole is done."""

    tells_speed = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last: tuple[str, int] = ("", 0)

    def show(self, what: str, done: int, total: int, note: str = "", *, lines: int) -> None:
        part = done * lines // max(1, total)
        if (what, part) == self._last:
            return
        self._last = (what, part)
        percent = f"{100 * done // max(1, total)} %"
        self.say(f"{what} {done}/{total} ({percent}){f', {note}' if note else ''}")

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def end(self) -> None:
        self._last = ("", 0)


class _Bar:
    """For terminals: tqdm's bar."""

    tells_speed = True

    def __init__(self, stream: TextIO) -> None:
        from tqdm import tqdm

        self._tqdm = tqdm
        self._stream = stream
        self._what = ""
        self._bar: Any = None

    def show(self, what: str, done: int, total: int, note: str = "", *, lines: int) -> None:
        if self._bar is None or what != self._what:
            self.end()
            self._what = what
            self._bar = self._tqdm(
                desc=what,
                initial=max(0, done - 1),
                total=total,
                file=self._stream,
                mininterval=SECONDS_BETWEEN_REDRAWS,
                miniters=1,
                dynamic_ncols=True,
            )
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.end()

    def say(self, text: str) -> None:
        self._tqdm.write(text, file=self._stream)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def duration(seconds: float) -> str:
    """`45 s`, `4 min` or `1 h 05 min`."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 60:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def in_a_word(event: Validated) -> str:
    """What a validation found: `validation loss 0.0912, the bare base model's 0.1032: learning`."""
    what = "validation loss" if event.on == "held-out" else "loss on trained images"
    told = f"{what} {event.loss:.4g}, the bare base model's {event.base_loss:.4g}"
    if event.prior_loss is not None and event.prior_base_loss is not None:
        told += f"; on its own pictures of the class word {event.prior_loss:.4g}, the base's "
        told += f"{event.prior_base_loss:.4g}"
    return f"{told}: {event.word}" if event.word else told


def in_less_memory(event: Lightened) -> str:
    """What is given up, and what a new run would set."""
    wanted = ", ".join(f"{n} = {str(v).lower()}" for n, v in event.settings.items())
    return f"the memory was not enough; it goes on with {event.given_up} (in settings: {wanted})"


def _removed(event: Saved | StateKept) -> str:
    return f", removed {', '.join(event.removed)}" if event.removed else ""


def _loaded(event: Loaded) -> str:
    text = (
        f"{event.family} on {event.device}, precision {event.precision}; the LoRA has "
        f"{event.layers} layers, {event.weights:,} weights"
    )
    return f"{text}; goes on after step {event.from_step}" if event.from_step else text


def _rates(rates: dict[str, float]) -> str:
    different = {f"{rate:.2g}" for rate in rates.values()}
    if len(different) > 1:
        return " ".join(f"{name} {rate:.2g}" for name, rate in rates.items())
    return next(iter(different), "-")
