"""Events of a running job: small frozen records, each also one line of JSON.

A job is a generator of these. Whoever iterates decides what to do with them; nothing reaches back.
`events.jsonl` in the run's folder holds the same records, so that a later kernel can replay them.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

from kit.errors import KitError, Unreadable
from kit.reading.fields import Table, dataclass_from
from kit.reading.texts import from_json


@dataclass(frozen=True)
class Event:
    """Base of all records."""


@dataclass(frozen=True)
class Began(Event):
    """The run exists: its folder is there, nothing heavy is loaded yet.

    epochs: what the last step's `Stepped.epoch` will be; 0 in the files of older versions.
    """

    run_dir: str
    name: str
    total_steps: int
    epochs: float = 0.0


@dataclass(frozen=True)
class Noticed(Event):
    """Something the person should know, in one sentence."""

    text: str


@dataclass(frozen=True)
class Cached(Event):
    """Progress of preparing something once, before training: `what` is "latents" or "captions"."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class Loaded(Event):
    """Base model and network are ready; training goes on from `from_step` steps already done."""

    family: str
    device: str
    precision: str
    layers: int
    weights: int
    from_step: int


@dataclass(frozen=True)
class Stepped(Event):
    """One optimizer step is done.

    loss: mean loss of the step's batches; loss_average: mean over about one epoch of batches.
    rates: learning rate of each parameter group that made this step; given_rates: those that the
    schedule gave, where the optimizer multiplied them by a step size that it estimates;
    norm: gradient norm before clipping.
    seconds: wall time of the step; epoch: how many are done by then, and the share of this one.
    bands: mean loss of the images whose timestep fell into each quarter of the 1000, from the
    cleanest to the noisiest; None where there was none.
    megabytes: the most memory that was used so far, the GPU's, or without one the process's.
    """

    step: int
    epoch: float
    loss: float
    loss_average: float
    rates: dict[str, float] = field(default_factory=dict)
    norm: float = 0.0
    seconds: float = 0.0
    bands: tuple[float | None, ...] = ()
    megabytes: int = 0
    given_rates: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Validated(Event):
    """What the LoRA answers after this step about pictures as they are, each at fixed noise.

    loss, base_loss: the true mean over `pictures` pictures that are held out of the training (`on`
    = "held-out"), or of trained ones where none is ("trained"); of the LoRA, and of the bare base
    model. bands, base_bands: the same by quarter of the timesteps, as in Stepped.
    trained_loss, trained_base_loss: of as many training pictures, asked alike.
    prior_loss, prior_base_loss: of pictures that the bare base drew itself for the class word,
    where no picture is held out; None where there are none.
    loss_average: the training's own, as in Stepped, after this step.
    A picture's gain is the share of the base's loss on it that is gone. gap: how much greater it is
    on trained pictures than on held-out ones, in the mean; carried: the share of the gain on all
    trained ones that all held-out ones have too; auc: how often a trained picture gained more than
    a held-out one, 0.5 where they are alike; gaps, aucs: the same by quarter. None where there is
    too little to tell.
    word: "learning", "enough", "memorising"; "spoiled" where even trained pictures are explained
    worse than by the bare base; or "" where there is too little to tell.
    """

    step: int
    epoch: float
    loss: float
    base_loss: float
    bands: tuple[float | None, ...] = ()
    base_bands: tuple[float | None, ...] = ()
    pictures: int = 0
    on: str = "held-out"
    trained_loss: float = 0.0
    trained_base_loss: float = 0.0
    prior_loss: float | None = None
    prior_base_loss: float | None = None
    loss_average: float = 0.0
    carried: float | None = None
    gap: float | None = None
    gaps: tuple[float | None, ...] = ()
    auc: float | None = None
    aucs: tuple[float | None, ...] = ()
    word: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Sampled(Event):
    """One sample picture lies on disk; `wished` by a person, or due."""

    step: int
    index: int
    path: str
    prompt: str
    seed: int
    wished: bool = False


@dataclass(frozen=True)
class Saved(Event):
    """A LoRA file lies on disk; `removed` names older files that it replaced."""

    step: int
    epoch: int
    path: str
    removed: tuple[str, ...] = ()
    wished: bool = False


@dataclass(frozen=True)
class Paused(Event):
    """The run rests after this step, as requested; its state is kept."""

    step: int


@dataclass(frozen=True)
class Resumed(Event):
    """The rest after this step is over."""

    step: int


@dataclass(frozen=True)
class RateChanged(Event):
    """From the step after this one, the schedule's rates are multiplied by these, as requested."""

    step: int
    factors: dict[str, float]  # by group, of those that changed


@dataclass(frozen=True)
class Skipped(Event):
    """This step was left out: the weights stayed as they were, data and schedule went on.

    pictures: the files that the reason was seen at; count: the steps that were skipped so far.
    """

    step: int
    reason: str
    pictures: tuple[str, ...] = ()
    count: int = 1


@dataclass(frozen=True)
class RolledBack(Event):
    """The run went back to this step, and goes on from it with a change.

    from_step: where the reason was met; what was told of the steps between is lived anew.
    """

    step: int
    from_step: int
    reason: str
    change: str


@dataclass(frozen=True)
class Lightened(Event):
    """After this step the memory was not enough: the next one was made again in less.

    given_up: all that is given up by now, in words; settings: what a new run would have to set to
    need as little.
    """

    step: int
    given_up: str
    settings: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class StateKept(Event):
    """A state folder lies on disk that `resume` can go on from; `removed` as in Saved."""

    step: int
    epoch: int
    path: str
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finished(Event):
    """The run is over: reason is "done" or "asked to stop"; path is the newest LoRA file."""

    step: int
    reason: str
    path: str = ""


@dataclass(frozen=True)
class Failed(Event):
    """The run broke off with an error; `text` is its message. Who iterates tells it."""

    text: str


_ALL = (
    Began,
    Noticed,
    Cached,
    Loaded,
    Stepped,
    Validated,
    Sampled,
    Saved,
    StateKept,
    Paused,
    Resumed,
    RateChanged,
    Skipped,
    RolledBack,
    Lightened,
    Finished,
    Failed,
)
EVENT_TYPES: dict[str, type[Event]] = {kind.__name__: kind for kind in _ALL}


def to_line(event: Event) -> str:
    """One line of JSON, without the line's end."""
    return json.dumps({"event": type(event).__name__, **dataclasses.asdict(event)})


def from_line(line: str) -> Event:
    """The record that `to_line` wrote.

    Raises: KitError where the line is none of ours.
    """
    try:
        record = Table(from_json(line, "the line"), "the line")
        kind = EVENT_TYPES.get(record.text("event"))
        if kind is None:
            raise Unreadable("the line", "has an event of another version")
        values = {name: value for name, value in record.values.items() if name != "event"}
        return dataclass_from(kind, values, "the line")
    except Unreadable as error:
        raise KitError(
            f"Not a line of events.jsonl: {line[:80]!r}",
            "Each line is one JSON object with an 'event' field.",
            "Delete the damaged line; the run itself does not need it.",
        ) from error
