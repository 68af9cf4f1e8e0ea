"""Means by band, gains by picture, and the meter: by hand."""

import pytest

from kit.validation.answers import Answers
from kit.validation.meter import ENOUGH, MEMORISING, auc, carried, gap, read, word_of
from kit.validation.questions import Question


def answers(*rows):
    """rows: picture, timestep, loss, base's loss."""
    asked = tuple(Question(image, t, n) for n, (image, t, _, _) in enumerate(rows))
    return Answers(asked, tuple(r[2] for r in rows), tuple(r[3] for r in rows))


def test_means_are_over_all_questions_and_by_band():
    told = answers((0, 10, 0.1, 0.2), (0, 240, 0.3, 0.4), (1, 800, 0.8, 0.6))
    assert told.loss == pytest.approx(0.4) and told.base_loss == pytest.approx(0.4)
    assert told.bands == (0.2, None, None, 0.8)
    assert told.base_bands == (0.3, None, None, 0.6)
    assert told.pictures == 2


def test_a_gain_is_the_share_of_the_bases_loss_that_is_gone():
    told = answers((0, 10, 0.1, 0.2), (0, 800, 0.2, 0.4), (1, 800, 0.9, 0.6))
    assert told.gains() == pytest.approx([0.5, -0.5])
    assert told.gains(0) == pytest.approx([0.5])
    assert told.gains(1) == []


def test_gap_and_auc_by_hand():
    assert gap([0.1, 0.3], [0.5, 0.7]) == pytest.approx(0.4)
    assert auc([0.1, 0.3], [0.5, 0.7]) == 1
    assert auc([0.1, 0.6], [0.5, 0.7]) == 0.75
    assert auc([0.5, 0.5], [0.5, 0.5]) == 0.5
    assert auc([0.5], [0.5, 0.7]) is None and gap([], [0.1]) is None


def test_what_is_carried_over_by_hand():
    def of(*losses):
        return answers(*((image, 10, loss, 0.2) for image, loss in enumerate(losses)))

    assert of(0.1, 0.18).gain == pytest.approx(0.3)
    assert carried(of(0.16, 0.16), of(0.1, 0.14)) == pytest.approx(0.5)
    assert carried(of(0.21, 0.23), of(0.12, 0.12)) == pytest.approx(-0.25)
    assert carried(of(0.1, 0.1), of(0.198, 0.198)) is None, "nothing is gained yet"
    assert carried(of(0.1), of(0.1, 0.1)) is None


@pytest.mark.parametrize(
    ("share", "word"),
    [
        (1.2, "learning"), (ENOUGH, "learning"), (ENOUGH - 0.01, "enough"),
        (MEMORISING, "enough"), (MEMORISING - 0.01, "memorising"), (-2, "memorising"), (None, ""),
    ],
)  # fmt: skip
def test_the_word_follows_what_is_carried_over(share, word):
    assert word_of(share) == word


def test_the_meter_reads_every_band():
    held = answers((0, 10, 0.2, 0.2), (1, 20, 0.2, 0.2), (0, 800, 0.1, 0.2), (1, 810, 0.1, 0.2))
    trained = answers((2, 10, 0.1, 0.2), (3, 20, 0.1, 0.2), (2, 800, 0.1, 0.2), (3, 810, 0.1, 0.2))
    found = read(held, trained)
    assert found.gaps == (0.5, None, None, 0.0)
    assert found.aucs == (1.0, None, None, 0.5)
    assert found.auc == 1.0
    assert found.carried == pytest.approx(0.5) and found.word == "enough"


def test_a_lora_that_spoils_its_own_pictures_is_called_so():
    base = ((0, 10, 0.2), (1, 10, 0.2))
    held = answers(*((image, t, 0.3, loss) for image, t, loss in base))
    assert read(held, answers((2, 10, 0.21, 0.2), (3, 10, 0.21, 0.2))).word == "spoiled"
    assert read(held, answers((2, 10, 0.2, 0.2), (3, 10, 0.2, 0.2))).word == ""
    assert read(held, answers((2, 10, 0.1, 0.2), (3, 10, 0.1, 0.2))).word == "memorising"
