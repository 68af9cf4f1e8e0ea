"""How what is asked now differs from what an unfinished run is made of, and what follows.

A run goes on by itself where nothing differs that it learns from. Another picture, another caption
or another rounding is a person's to decide. Every other setting makes another run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kit.reading.texts import from_json
from kit.runs.made_of import MadeOf, Picture, earlier_identity, hashes_of, identity
from kit.settings import declarations

MOST = 6  # that are named
GATHERED = "gradient_accumulation_steps"  # in what a run is made of: times its processes


@dataclass(frozen=True)
class Differences:
    """In words, each by itself.

    decidable: pictures, captions, rounding; others: what no state can go on with.
    known: what is asked now, with the hashes that are known.
    """

    known: MadeOf
    decidable: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Something differs."""
        return bool(self.decidable or self.others)


@dataclass(frozen=True)
class Unfinished:
    """A run of the wanted name that is not finished, and was made otherwise."""

    name: str
    step: int
    differences: tuple[str, ...]
    can_go_on: bool

    @property
    def told(self) -> str:
        """The differences in a line."""
        more = len(self.differences) - MOST
        return "; ".join(self.differences[:MOST]) + (f"; and {more} more" if more > 0 else "")


def compare(kept: MadeOf, now: MadeOf) -> Differences:
    """What differs. Pictures of the same size and another time are read, each once."""
    decidable: list[str] = []
    others: list[str] = []
    for name, (old, new) in _changed_settings(kept, now):
        text = f"{name}: {_shown(old)} -> {_shown(new)}"
        if name == GATHERED and now.processes > 1:
            text = _gathered(old, new, now.processes)
        (decidable if resumes(name, captions_vary=now.captions_vary) == "asked" else others).append(
            text
        )
    others += _changed_places(kept, now)
    if _plain(kept.ways) != _plain(now.ways):
        others.append("dataset_config: its subsets have other settings")
    pictures, texts = _compared(kept.pictures, now)
    known = replace(now, pictures=pictures)
    return Differences(known, (*texts, *decidable), tuple(others))


def resumes(name: str, *, captions_vary: bool) -> str:
    """Whether a run goes on with another value: "freely", "asked" (a person decides), "never"."""
    if name == "cache_text_encoder_outputs" and captions_vary:
        return "never"  # a cache holds some variants of each caption, and others are drawn
    return declarations()[name].resumes


def _changed_settings(kept: MadeOf, now: MadeOf) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """By name, the old and the new value. A setting that is newer than the run had its default."""
    for name, new in now.settings.items():
        old = kept.settings.get(name, declarations()[name].default)
        is_free = resumes(name, captions_vary=now.captions_vary) == "freely"
        if not is_free and _plain(old) != _plain(new):
            yield name, (old, new)


def _changed_places(kept: MadeOf, now: MadeOf) -> Iterator[str]:
    """Files and folders with another content; the pictures' own are compared one by one."""
    for name in dict.fromkeys((*kept.files, *now.files)):
        if declarations()[name].resumes == "freely":
            continue
        old, new = kept.files.get(name, ""), now.files.get(name, "")
        if not new:
            yield f"{name}: it is blank now"
        elif not old:
            yield f"{name}: it was blank"
        elif identity(new) != old != earlier_identity(new):
            yield f"{name}: {new} is another one"


def _compared(kept: Sequence[Picture], now: MadeOf) -> tuple[tuple[Picture, ...], list[str]]:
    """Today's pictures with the hashes that are known, and what differs."""
    pairs = list(_pairs(kept, now.pictures))
    touched = [n for n, old in pairs if old and _must_be_read(old, now.pictures[n])]
    hashes = dict(zip(touched, hashes_of([now.paths[n] for n in touched]), strict=True))
    found, texts = list(now.pictures), dict[str, None]()
    for number, old in pairs:
        new = now.pictures[number]
        if old is None:
            texts[f"{new.name} is new"] = None
            continue
        is_same = old.size == new.size and (number not in hashes or hashes[number] == old.sha256)
        sha256 = hashes.get(number, old.sha256 if is_same else "")
        found[number] = replace(new, sha256=sha256)
        texts |= dict.fromkeys(_of_a_picture(old, new, is_same=is_same))
    used = {id(old) for _, old in pairs}
    texts |= {f"{old.name} is gone": None for old in kept if id(old) not in used}
    return tuple(found), list(texts)


def _pairs(kept: Sequence[Picture], now: Sequence[Picture]) -> Iterator[tuple[int, Picture | None]]:
    """Each of today's pictures, by number, with what it was before: by place, or else by name."""
    if _row(kept) == _row(now) or [p.size for p in kept] == [p.size for p in now]:
        yield from enumerate(kept)  # also where folders, or files, have got other names
        return
    by_name = {(each.is_reg, each.subset, each.name): each for each in kept}
    for number, each in enumerate(now):
        yield number, by_name.pop((each.is_reg, each.subset, each.name), None)


def _row(pictures: Sequence[Picture]) -> list[str]:
    """The files' names, one after the other."""
    return [each.name.rpartition("/")[2] for each in pictures]


def _must_be_read(old: Picture, new: Picture) -> bool:
    is_believed = (old.name, old.time) == (new.name, new.time)
    return old.size == new.size and not is_believed


def _of_a_picture(old: Picture, new: Picture, *, is_same: bool) -> Iterator[str]:
    if not is_same and old.size == new.size and not old.sha256:
        yield f"{new.name} was changed, or only touched: it was not read before"
    elif not is_same:
        yield f"{new.name} is another picture"
    if old.caption != new.caption:
        began = f'it began "{old.words}"' if old.words else "it was blank"
        yield f"caption of {new.name} changed ({began})"
    if old.repeats != new.repeats:
        yield f"repeats of {new.name.rpartition('/')[0]}: {old.repeats} -> {new.repeats}"
    if (old.is_reg, old.subset) != (new.is_reg, new.subset):
        yield f"{new.name} belongs to another data set"


def _gathered(old: int, new: int, processes: int) -> str:
    """Other steps than the run has made so far, and what keeps its own."""
    each, rest = divmod(old, processes)
    keeps = f"{GATHERED} = {each} keeps it"
    if rest:
        below = max(n for n in range(1, processes) if old % n == 0)
        keeps = f"{processes} processes cannot share it, {below} can"
    return f"{GATHERED} x processes: {old} -> {new} ({keeps})"


def _plain(value: Any) -> Any:
    """As it comes back from a file."""
    return from_json(json.dumps(value, default=str), "a setting")


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "blank"
    return str(value).lower() if isinstance(value, bool) else f"{value}"
