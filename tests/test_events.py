import dataclasses
import json
import math

import pytest

from kit import events
from kit.errors import KitError
from kit.events import (
    Began,
    Cached,
    Event,
    Failed,
    Finished,
    Lightened,
    Loaded,
    Noticed,
    Paused,
    RateChanged,
    Resumed,
    RolledBack,
    Sampled,
    Saved,
    Skipped,
    StateKept,
    Stepped,
    Validated,
    from_line,
    to_line,
)

EXAMPLES = [
    Began("out/cat.run", "cat", 600),
    Noticed('a "quoted" line\nand another, with ümlaut and \u2028'),
    Cached("latents", 3, 24),
    Loaded("Stable Diffusion XL", "cpu", "no", 722, 85_000_000, 0),
    Stepped(7, 0.35, 0.125, 0.25, {"unet": 1e-4, "text_encoder": 5e-5}, 0.5, 1.25),
    Stepped(8, 0.4, 0.125, 0.25, bands=(0.1, None, 0.2, 0.3), megabytes=900),
    Validated(8, 0.4, 0.1, 0.2, (0.1, None), (0.2, None), 3, gap=0.1, auc=0.75, word="learning"),
    Validated(8, 0.4, 0.1, 0.2, on="trained", trained_loss=0.1, trained_base_loss=0.2),
    Validated(8, 0.4, 0.1, 0.2, on="trained", prior_loss=0.1, prior_base_loss=0.2),
    Sampled(10, 0, "out/sample/cat.png", "a cat", 42),
    Saved(20, 1, "out/cat-000001.safetensors", ("out/cat-000000.safetensors",)),
    StateKept(20, 1, "out/cat-000001-state", ("out/cat-000000-state",)),
    Paused(21),
    Resumed(21),
    RateChanged(22, {"unet": 0.5}),
    Skipped(23, "the loss is nan", ("cat.png",), 2),
    RolledBack(20, 24, "the loss is nan", "learning rate x 0.5"),
    Lightened(25, "gradient checkpointing", {"gradient_checkpointing": True}),
    Finished(600, "done", "out/cat.safetensors"),
    Failed("The loss is no longer a finite number."),
]


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_an_event_comes_back_from_its_line(event):
    assert from_line(to_line(event)) == event


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_an_event_is_one_line_of_plain_json(event):
    line = to_line(event)
    assert line.splitlines() == [line]
    assert line.isascii()
    assert json.loads(line)["event"] == type(event).__name__


def test_every_kind_of_event_can_be_read_back():
    kinds = {
        kind
        for kind in vars(events).values()
        if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event
    }
    assert set(events.EVENT_TYPES.values()) == kinds == {type(event) for event in EXAMPLES}


def test_a_loss_that_is_not_a_number_survives_its_line():
    back = from_line(to_line(Stepped(1, 0.1, math.nan, math.inf)))
    assert isinstance(back, Stepped)
    assert math.isnan(back.loss) and math.isinf(back.loss_average)


def test_events_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        EXAMPLES[0].name = "dog"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no json",
        '{"event": "Stepped", "step": 3, "epo',
        "[1, 2]",
        "5",
        "null",
        '{"step": 3}',
        '{"event": "Exploded"}',
        '{"event": "Noticed"}',
        '{"event": "Noticed", "text": "a", "more": 1}',
        '{"event": ["Noticed"]}',
    ],
)
def test_a_line_that_is_no_event_is_named_in_the_error(line):
    with pytest.raises(KitError, match=r"Not a line of events\.jsonl"):
        from_line(line)
