"""Which file to keep: from numbers alone."""

from pathlib import Path

import pytest

from kit.choosing.measures import Losses, Measured
from kit.choosing.picking import DRAWS, pick
from kit.choosing.record import NAME, Record, read_record, write_record
from kit.choosing.words import TITLES, sentences, table


def file(step, likeness, fidelity, **losses):
    return Measured(f"cat-{step}.safetensors", step, likeness, fidelity, Losses(**losses))


EARLY = file(10, (0.1, 0.2, 0.1, 0.2), (0.95, 0.99, 0.97, 0.98))
RIGHT = file(20, (0.8, 0.7, 0.8, 0.7), (0.9, 0.8, 0.9, 0.8))
LATE = file(30, (0.9, 0.8, 0.9, 0.9), (0.2, 0.3, 0.1, 0.2), word="memorising")


def test_the_best_mean_of_likeness_and_fidelity_is_kept():
    choice = pick([EARLY, RIGHT, LATE])
    assert [each.step for each in choice.ranked] == [20, 10, 30]
    assert choice.best == RIGHT and choice.last == LATE
    assert RIGHT.score() == pytest.approx((0.75 + 0.85) / 2)


def test_of_equal_files_the_earlier_one_is_kept():
    twin = file(25, RIGHT.likeness, RIGHT.fidelity)
    choice = pick([twin, RIGHT])
    assert choice.best.step == 20
    assert choice.wins == (1.0, 0.0)


def test_what_is_not_measured_does_not_count():
    alone = [file(1, (), (0.5,)), file(2, (), (0.6,))]
    assert pick(alone).best.step == 2
    nothing = [file(1, (), ()), file(2, (), ())]
    assert pick(nothing).best.step == 1


def test_how_sure_it_is_follows_the_pictures():
    sure = pick([EARLY, RIGHT, LATE])
    assert sure.share == 1.0 and sure.sureness == "sure"
    # Half of the pictures speak for each: one is better by a hair, and wins a little more often.
    one = file(1, (0.9, 0.9, 0.1, 0.1), (0.5,) * 4)
    other = file(2, (0.1, 0.1, 0.9, 0.89), (0.5,) * 4)
    close = pick([one, other])
    assert 0.4 < close.share < 0.8 and close.sureness != "sure"
    assert sum(close.wins) == pytest.approx(1)
    assert all(round(share * DRAWS) == pytest.approx(share * DRAWS) for share in close.wins)


def test_the_same_numbers_give_the_same_answer():
    assert pick([EARLY, RIGHT, LATE]) == pick([LATE, EARLY, RIGHT])


def told(*files):
    return " ".join(sentences(pick(files)))


def test_it_says_which_why_and_how_sure():
    text = told(EARLY, RIGHT, LATE)
    assert text.startswith("Keep cat-20.safetensors (step 20).")
    assert "The subject is recognised in 75% of its pictures and" in text
    assert "other prompts are 85% as without it." in text
    assert "The last file (step 30): the subject is recognised in 88%" in text
    assert "By then it has begun to memorise its pictures." in text
    assert "By these measures it is sure: of other pictures 100% would have chosen it, too." in text


def test_it_says_what_follows_for_the_next_run():
    assert "a longer run may be better" in told(file(1, (0.3,), (0.9,)), file(2, (0.6,), (0.9,)))
    early = [file(step, (0.9,), (0.9 - 0.2 * step,)) for step in (1, 2, 3)]
    assert "It is the earliest one" in told(*early)
    assert "the only file" in told(RIGHT)


def test_among_files_that_know_nothing_none_is_kept():
    text = told(file(1, (0.0,), (0.99,)), file(2, (0.1,), (0.5,)))
    assert text.startswith("None of these files has learned the subject yet: train longer")
    assert "recognised in 10% of the pictures of cat-2.safetensors at most" in text
    assert "Keep" not in text and "sure" not in text
    assert "recognised in none of their pictures." in told(file(1, (0.0, 0.0), (0.9,)))


def test_a_pick_that_hardly_knows_the_subject_says_who_does():
    text = told(file(1, (0.1,), (0.99,)), file(2, (0.8,), (0.2,)))
    assert text.startswith("Keep cat-1.safetensors")
    assert "hardly learned the subject; cat-2.safetensors (step 2) knows it best, in 80%" in text


def test_one_that_may_be_as_good_is_named():
    files = [
        file(step, tuple(0.9 if step == i else 0.3 for i in range(6)), ()) for step in range(6)
    ]
    files[2] = file(2, (0.3, 0.3, 0.91, 0.3, 0.3, 0.3), ())
    text = told(*files)
    assert text.startswith("Keep cat-2.safetensors")
    assert "This is close" in text and "cat-0.safetensors (step 0) may be as good" in text


def test_the_table_has_a_cell_for_each_title():
    rows = table(pick([EARLY, RIGHT, LATE]))
    assert all(len(row) == len(TITLES) for row in rows)
    assert rows[0][:4] == ["cat-20.safetensors", "20", "75%", "85%"]
    assert rows[0][4] == "-" and rows[2][5] == "memorising"


def test_a_choice_is_read_again_as_it_was_written(tmp_path):
    choice = pick([EARLY, RIGHT, LATE])
    record = Record(choice, "CLIP", "choice.jpg", ("one picture",))
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record


@pytest.mark.parametrize("text", ["", "[]", '{"files": [], "wins": []}', '{"files": 3, "wins": 1}'])
def test_a_damaged_choice_is_none(tmp_path, text):
    (tmp_path / NAME).write_text(text, "utf-8")
    assert read_record(tmp_path) is None
    assert read_record(Path(tmp_path) / "nowhere") is None
