"""What tells the subject from what the bare base draws, on features made by hand."""

import pytest
import torch

from kit.comparing.drawing import Drawn, Pictures
from kit.comparing.seeing import RIDGE, Recogniser, first_sight
from kit.settings.prompts import Prompt


def drawn(count, mean, seed, wide=3.0):
    """Features: the first tells the subject, the second is a background that differs widely."""
    noise = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    noise[:, 1] *= wide
    noise[:, 0] = mean + 0.1 * noise[:, 0]
    return noise


def test_the_subject_is_told_whatever_lies_around_it():
    know = Recogniser.of(drawn(12, 1.0, 1), drawn(12, 0.0, 2), drawn(12, 0.0, 3))
    assert sum(know(drawn(40, 1.0, 4))) / 40 > 0.95
    assert sum(know(drawn(40, 0.0, 5))) / 40 < 0.05
    assert all(0 <= share <= 1 for share in know(drawn(40, 0.5, 6)))
    nearest = (drawn(40, 1.0, 4) - drawn(12, 1.0, 1).mean(0)).norm(dim=1)
    others = (drawn(40, 1.0, 4) - drawn(12, 0.0, 2).mean(0)).norm(dim=1)
    assert (nearest < others).float().mean() < 0.8  # what nearness alone would have seen


def test_the_direction_is_the_ridges_solution():
    known, base, others = drawn(5, 1.0, 1), drawn(4, 0.0, 2), drawn(3, 0.0, 3)
    know = Recogniser.of(known, base, others)
    within = torch.cat([group - group.mean(0) for group in (known, base, others)]).double()
    within = within / know.scale_F
    spread = within.T @ within / len(within) + RIDGE * torch.eye(6).double()
    apart = (known.mean(0) - base.mean(0)).double() / know.scale_F
    assert torch.allclose(know.direction_F, torch.linalg.solve(spread, apart))


def test_one_picture_and_one_drawing_are_enough_to_say_something():
    know = Recogniser.of(drawn(1, 1.0, 1), drawn(1, 0.0, 2), drawn(0, 0.0, 3))
    assert know(drawn(1, 1.0, 1)) == [1.0] and know(drawn(1, 0.0, 2)) == [0.0]


class Eye:
    """Its pictures are numbers: places on one line."""

    name = "by hand"

    def __init__(self, read=None):
        self._read = read

    def sees(self, pictures):
        return torch.tensor([[float(picture), 0.0] for picture in pictures])

    def sees_places(self, pictures):
        return self.sees(pictures)

    def reads(self, texts):
        return None if self._read is None else torch.tensor(self._read)


ASKED = Drawn((Prompt("zib"),), (Prompt("a"), Prompt("b")))


def test_fidelity_is_held_against_how_different_other_prompts_are():
    sight = first_sight(Eye(), ASKED, Pictures((0,), (1, 5)), (9,))
    assert sight.fidelity(Pictures((0,), (1, 5))) == (1, 1)
    assert sight.fidelity(Pictures((0,), (2, 9))) == (0.75, 0.0)
    assert sight.fidelity(Pictures((0,), (1, 7))) == (1, 0.5)


def test_an_eye_that_reads_holds_pictures_against_their_prompts():
    """The base's: 1.0 and 1.0 at their own prompts, 0.2 and 0.4 at the other's, 0.7 apart."""
    eye = Eye(read=[[1.0, 0.0], [0.5, 0.0]])
    sight = first_sight(eye, ASKED, Pictures((0,), (1, 2)), (9,))
    assert sight.fidelity(Pictures((0,), (1, 2))) == (1, 1)
    lost, kept = sight.fidelity(Pictures((0,), (0.5, 2)))
    assert lost < 1 and kept == 1


def test_without_other_prompts_there_is_no_fidelity():
    asked = Drawn((Prompt("zib"),), ())
    sight = first_sight(Eye(), asked, Pictures((0,), ()), (9,))
    assert sight.fidelity(Pictures((9,), ())) == ()
    assert sight.likeness(Pictures((9,), ())) == (1.0,)


@pytest.mark.parametrize("texts", [("a", "a"), ("a",)])
def test_prompts_that_are_all_alike_still_have_a_measure(texts):
    asked = Drawn((Prompt("zib"),), tuple(map(Prompt, texts)))
    others = tuple(range(1, len(texts) + 1))
    sight = first_sight(Eye(), asked, Pictures((0,), others), (9,))
    assert sight.fidelity(Pictures((0,), others)) == (1,) * len(texts)
