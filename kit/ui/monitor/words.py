"""A run in words: its title, its numbers, its notices and files, as HTML."""

from __future__ import annotations

from kit.control import RunControl
from kit.ui.form.problem_texts import labelled
from kit.ui.look import escaped
from kit.ui.monitor.history import OVER, History, State

PILLS: dict[State, str] = {
    "starting": "running",
    "preparing": "running",
    "training": "running",
    "paused": "stopped",
    "done": "done",
    "stopped": "stopped",
    "failed": "failed",
}


def title_of(past: History, control: RunControl | None = None) -> str:
    """Name, state and base model; a request to stop or rest is told before it is met."""
    base = f"<span class='kit-quiet'>{escaped(past.base)}</span>" if past.base else ""
    state: str = past.state
    if control and past.state not in (*OVER, "paused"):
        state = (
            "stopping"
            if control.stop_requested
            else "pausing"
            if control.pause_requested
            else state
        )
    pill = f"<span class='kit-state {PILLS[past.state]}'>{state}</span>"
    return f"<div class='kit-title'><b>{escaped(past.name)}</b>{pill}{base}</div>"


def share_done(past: History) -> float:
    """From 0 to 1: of the preparation while there is one, then of the steps."""
    if past.preparing is not None:
        return past.preparing.done / max(1, past.preparing.total)
    return min(1.0, past.step / past.total_steps) if past.total_steps else 0.0


def numbers_of(past: History) -> str:
    """Step, loss, rates, speed, memory, and how long it will take."""
    if past.preparing is not None:
        doing = past.preparing
        return _row([(f"preparing {doing.what}", f"{doing.done} of {doing.total}")])
    cells = [("step", f"{past.step} of {past.total_steps}")]
    if past.state == "starting":
        cells.append(("now loading", "the base model"))
    if past.last is not None:
        cells += [
            ("epoch", in_epochs(past.last.epoch, past.epochs)),
            ("loss", f"{past.last.loss:.4f}"),
            ("average", f"{past.last.loss_average:.4f}"),
        ]
        cells += _rates(past.last.rates)
        cells.append(("speed", in_speed(past.seconds_per_step)))
        if past.last.megabytes:
            cells.append(("memory at most", in_memory(past.last.megabytes)))
        if past.state == "training":
            cells.append(("left, about", in_time(past.seconds_left)))
    return _row(cells)


def _rates(rates: dict[str, float]) -> list[tuple[str, str]]:
    """One number where all parts learn at the same rate."""
    values = set(rates.values())
    if len(values) == 1:
        return [("learning rate", f"{values.pop():.3g}")]
    ordered = sorted(rates.items(), key=lambda part: part[0] != "unet")  # as everywhere in the form
    return [(f"rate {_part(name)}", f"{rate:.3g}") for name, rate in ordered]


def _part(name: str) -> str:
    """A group of weights as it is called elsewhere in the form; events keep their own name."""
    return {"unet": "U-Net", "textencoder": "text encoder"}.get(name, name.replace("_", " "))


def _row(cells: list[tuple[str, str]]) -> str:
    texts = [f"<span>{escaped(name)}</span><b>{escaped(text)}</b>" for name, text in cells]
    return "<div class='kit-numbers'>" + "".join(f"<div>{text}</div>" for text in texts) + "</div>"


def notes_of(past: History) -> str:
    """Why it broke off, notices, and what was changed on the way."""
    notices = [escaped(labelled(text)) for text in past.notices]
    changes = [f"step {step}: {escaped(text)}" for step, text in past.changes]
    why = [escaped(past.failure)] if past.failure else []
    return (
        _list("Broken off", why) + _list("Notices", notices) + _list("Changed on the way", changes)
    )


def _list(title: str, items: list[str]) -> str:
    rows = "".join(f"<li>{item}</li>" for item in items)
    return f"<div class='kit-quiet'>{title}<ul>{rows}</ul></div>" if items else ""


def in_epochs(done: float, total: float) -> str:
    """0.13 of 10; without the total where it is not known."""
    told = f"{done:.2f}".removesuffix(".00")
    return f"{told} of {total:.2f}".removesuffix(".00") if total else told


def in_speed(seconds: float) -> str:
    """Seconds a step, or steps a second, whichever is more than 1: so short that it fits."""
    if not seconds:
        return "-"
    return f"{seconds:.1f} s/step" if seconds >= 1 else f"{1 / seconds:.1f} steps/s"


def in_time(seconds: float) -> str:
    """A duration as a person says it: 45 s, 12 min, 3 h 05 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def in_memory(megabytes: int) -> str:
    """In GB from one on."""
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes} MB"
