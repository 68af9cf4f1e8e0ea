"""A choice in words: which file to keep, why, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator

from kit.choosing.measures import Measured, mean_of
from kit.choosing.picking import Choice

LITTLE = 0.2  # of likeness: it has hardly learned the subject
NEAR = 0.02  # of the score: files that nobody could tell apart
BY_THEN = {
    "memorising": "By then it has begun to memorise its pictures.",
    "spoiled": "By then it explains even its own pictures worse than the bare base does.",
}


def sentences(choice: Choice) -> Iterator[str]:
    """The file to keep, why, how sure, and what follows for the next run."""
    best, last = choice.best, choice.last
    knows = _knows_it_best(choice)
    if knows is not None and _likeness(knows) < LITTLE:  # to choose among them means nothing
        yield "None of these files has learned the subject yet: train longer, or at a higher rate."
        most = f"{_likeness(knows):.0%} of the pictures of {knows.file} at most"
        yield f"It is recognised in {most if _likeness(knows) else 'none of their pictures'}."
        return
    yield f"Keep {best.file} ({_at(best)})."
    yield from _why(best, last)
    if knows is not None and _likeness(best) < LITTLE:
        yield (
            f"It has hardly learned the subject; {knows.file} ({_at(knows)}) knows it best, in "
            f"{_likeness(knows):.0%} of its pictures."
        )
    yield _how_sure(choice)
    yield from _what_next(choice)


def _why(best: Measured, last: Measured) -> Iterator[str]:
    told = list(_shares(best))
    if told:
        text = " and ".join(told)
        yield f"{text[0].upper()}{text[1:]}."
    if best == last:
        return
    beside = list(_shares(last))
    if beside:
        yield f"The last file ({_at(last)}): {' and '.join(beside)}."
    if last.losses.word != best.losses.word and last.losses.word in BY_THEN:
        yield BY_THEN[last.losses.word]


def _knows_it_best(choice: Choice) -> Measured | None:
    """The file with the greatest likeness; None where it was not measured."""
    measured = [file for file in choice.ranked if file.likeness]
    return max(measured, key=_likeness) if measured else None


def _likeness(file: Measured) -> float:
    return mean_of(file.likeness) or 0.0


def _shares(file: Measured) -> Iterator[str]:
    if (likeness := mean_of(file.likeness)) is not None:
        yield f"the subject is recognised in {likeness:.0%} of its pictures"
    if (fidelity := mean_of(file.fidelity)) is not None:
        yield f"other prompts are {fidelity:.0%} as without it"


def _how_sure(choice: Choice) -> str:
    if len(choice.ranked) == 1:
        return "It is the only file, so there is nothing to choose between."
    second = choice.ranked[1]
    wins = f"of other pictures {choice.share:.0%} would have chosen it, too"
    if choice.sureness == "sure":
        return f"By these measures it is sure: {wins}."
    if choice.sureness == "likely":
        return f"By these measures it is likely: {wins}; next comes {second.file} ({_at(second)})."
    return (
        f"This is close: {wins}. {second.file} ({_at(second)}) may be as good; look at both in the "
        "pictures."
    )


def _what_next(choice: Choice) -> Iterator[str]:
    best, last = choice.best, choice.last
    if best == last and len(choice.ranked) > 1:
        yield "It is the last one: a longer run may be better still."
    elif best.step == min(file.step for file in choice.ranked) and len(choice.ranked) > 2:
        yield (
            "It is the earliest one: a lower learning rate, or files more often "
            "(save_every_n_steps), would find a better one."
        )


def table(choice: Choice) -> list[list[str]]:
    """A row for each file, the best first, under TITLES."""
    return [
        [
            file.file,
            str(file.step),
            _percent(mean_of(file.likeness)),
            _percent(mean_of(file.fidelity)),
            _percent(file.losses.gain),
            file.losses.word or "-",
            _percent(file.losses.prior, signed=True),
            f"{wins:.0%}",
        ]
        for file, wins in zip(choice.ranked, choice.wins, strict=True)
    ]


TITLES = (
    "file",
    "step",
    "subject",
    "other prompts",
    "loss gained",
    "meter",
    "class word",
    "chosen",
)
MEANINGS = {
    "subject": "in how many pictures it is recognised, rather than what the bare base draws",
    "other prompts": "how much is drawn as by the bare base: 0 % as if another prompt were drawn",
    "loss gained": "how much better than the bare base it explains held-out pictures (or trained "
    "ones, where none is held out)",
    "class word": "how much worse than the bare base it explains what that draws for the class "
    "word: what the word has come to mean",
    "chosen": "how often it was best with the pictures drawn anew",
}


def _percent(value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.0%}" if signed else f"{value:.0%}"


def _at(file: Measured) -> str:
    return f"step {file.step}"
