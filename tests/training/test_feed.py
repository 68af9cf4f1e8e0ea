"""Batches made ahead are those made when they are due; what goes wrong does so when it is due."""

import threading
from functools import partial

import pytest

from kit.errors import DatasetError
from kit.training import preparation
from kit.training.feed import Feed
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, leave_after, lora, losses, run, same, toy_settings


class Numbers:
    """A builder whose batches are their numbers; it notes who makes them."""

    def __init__(self, bad=()):
        self.made, self.bad = [], bad

    def batch(self, micro_step):
        self.made.append((micro_step, threading.current_thread().name.startswith("batches")))
        if micro_step in self.bad:
            raise DatasetError(f"picture {micro_step}", "", "")
        return micro_step


@pytest.fixture
def feeds():
    """Makes feeds, and ends their threads."""
    made = []

    def make(*args, **kwargs):
        made.append(Feed(*args, **kwargs))
        return made[-1]

    yield make
    for feed in made:
        feed.close()


def test_the_next_batches_are_made_in_a_thread_and_none_behind_the_end(feeds):
    builder = Numbers()
    feed = feeds(builder, end=6, ahead=2)
    assert list(feed.micro_batches(range(6))) == [0, 1, 2, 3, 4, 5]
    assert sorted(builder.made) == [(0, False), *((number, True) for number in range(1, 6))]


def test_without_ahead_each_is_made_where_it_is_taken(feeds):
    builder = Numbers()
    assert list(feeds(builder, end=3).micro_batches(range(2))) == [0, 1]
    assert builder.made == [(0, False), (1, False)]


def test_a_run_that_goes_back_gets_the_same_batches_again(feeds):
    feed = feeds(Numbers(), end=9, ahead=3)
    assert [feed.batch(number) for number in (0, 1, 2, 0, 1, 2, 3, 3, 8)] == [
        0, 1, 2, 0, 1, 2, 3, 3, 8,
    ]  # fmt: skip


def test_an_error_comes_where_its_batch_is_taken_and_again_if_asked_again(feeds):
    feed = feeds(Numbers(bad={2}), end=9, ahead=3)
    assert [feed.batch(0), feed.batch(1)] == [0, 1]
    for _ in range(2):
        with pytest.raises(DatasetError, match="picture 2"):
            feed.batch(2)
    assert feed.batch(3) == 3


def test_a_run_that_is_fed_ahead_is_the_same_and_leaves_no_thread(tmp_path, monkeypatch):
    model = write_tiny(tmp_path / "model", "sd1", thin=True)
    images = draw_images(tmp_path / "images", count=3)

    def settings(out, **changes):
        return toy_settings(
            model, images, out, max_train_steps=7, keep_tokens=1, noise_offset=0.1,
            shuffle_caption=True, train_batch_size=2, gradient_accumulation_steps=2, **changes,
        )  # fmt: skip

    plain = run(settings(tmp_path / "a"))
    as_beside_a_gpu = partial(preparation._feed, beside="mps")
    monkeypatch.setattr(
        preparation, "_feed", lambda *given, beside, **named: as_beside_a_gpu(*given, **named)
    )
    first = leave_after(3, settings(tmp_path / "b"))
    assert losses(first) + losses(run(settings(tmp_path / "b"))) == losses(plain)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))
    assert not [t for t in threading.enumerate() if t.name.startswith("batches")]
