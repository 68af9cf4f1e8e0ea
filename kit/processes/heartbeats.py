"""Signs of life of the processes of one run: each beats, and who waits for others watches them.

A thread for each place (`kit.processes.places`) says anew every second who the process is and what
it is at, so what stands still or is gone leaves an old sign. Whoever waits for another process
looks there: only so a process that hangs can be named. `words` is what ended it. Needs no torch.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kit.processes.places import Place
from kit.processes.signs import Sign, born, is_gone, is_stopped, kill, machine

PERIOD = 1.0  # seconds between two beats
SILENT = 30.0  # seconds without a beat
SILENT_THERE = 300.0  # at what may hold every thread of a process: reading a model, writing a file
THERE = ("loading", "writing")
JOINING = 5.0  # seconds for a last beat; a drive may hang


class Heart:
    """Beats for this process, from threads of its own; `doing` is what it is at."""

    def __init__(self, rank: int, places: Sequence[Place]) -> None:
        self._rank, self._places, self.doing = rank, places, "loading"
        self._beats = 0
        self._born = born(os.getpid())
        self._words, self._heard = "", False
        self._counting = threading.Lock()
        self._over = threading.Event()
        self._beat(at_once=True)
        # One that has to wait for a drive or a network keeps no other waiting.
        self._threads = [
            threading.Thread(target=self._live, args=[place], name="heartbeat", daemon=True)
            for place in places
        ]
        for thread in self._threads:
            thread.start()

    @property
    def has_spoken(self) -> bool:
        """It has said what ends this process."""
        return bool(self._words)

    def last_words(self, words: str, *, heard: bool = False) -> None:
        """Say what ends this process. heard: that is another one's end."""
        self._words, self._heard = words, heard
        self._beat(at_once=True)

    def stop(self) -> None:
        """No further beat."""
        self._over.set()
        for thread in self._threads:
            thread.join(JOINING)

    def _live(self, place: Place) -> None:
        while not self._over.wait(PERIOD):
            place.put(self._sign())

    def _beat(self, *, at_once: bool = False) -> None:
        for place in self._places:
            place.put(self._sign(), at_once=at_once)

    def _sign(self) -> Sign:
        with self._counting:
            self._beats += 1
            who = self._rank, os.getpid(), socket.gethostname()
            return Sign(
                *who, self.doing, self._beats, self._words, self._born, self._heard, machine()
            )


@dataclass(frozen=True)
class _Seen:
    """A sign of another process; all times by our own clock.

    It decides how old a sign is: a machine that slept, or another one's clock, are no reason.
    """

    sign: Sign
    since: float  # when it was found first
    until: float  # when it still stood there

    @property
    def silence(self) -> float:
        """Seconds."""
        return max(0.0, self.until - self.since)

    @property
    def is_silent(self) -> bool:
        """It hangs, by what it was at."""
        if self.silence <= SILENT:
            return False
        beats = not self.sign.doing.startswith(THERE) or is_stopped(self.sign)
        return beats or self.silence > SILENT_THERE


_given_up: dict[Sign, Watch] = {}  # those who hang, as this process has told


class Watch:
    """Looks after the others, while this process waits for them.

    places: the first one counts where two hold signs of different starts.
    """

    def __init__(self, places: Sequence[Place], others: Iterable[int]) -> None:
        self._places, self._others = places, tuple(others)
        self._seen: dict[int, _Seen] = {}
        self._lost: set[int] = set()  # as we have told

    def signs(self) -> list[Sign]:
        """The last that is known of each."""
        self._look()
        return [seen.sign for seen in self._seen.values()]

    def last(self, rank: int) -> Sign | None:
        """The last sign of a process, wherever it stands."""
        return _newest([sign for place in self._places if (sign := place.found(rank))])

    def lives(self, rank: int) -> bool:
        """It gives signs of life."""
        self._look()
        seen = self._seen.get(rank)
        is_lost = seen is None or rank in self._lost or is_gone(seen.sign) or seen.is_silent
        return not is_lost

    def lost(self) -> str:
        """Which of them is lost and why, as a sentence; "" where all are alive."""
        self._look()
        signs = [seen.sign for seen in self._seen.values()]
        for sign in signs:
            if sign.words and not sign.heard:
                return f"Process {sign.rank} failed {sign.at}: {sign.words}"
        for sign in signs:
            if not sign.words and is_gone(sign):
                return (
                    f"Process {sign.rank} (pid {sign.pid}) ended {sign.at} without a word: it was "
                    "killed, by a person or because the machine had no memory left"
                )
        for sign in signs:
            if sign.words:
                return sign.words
        for seen in self._seen.values():
            if seen.is_silent:
                return self._hangs(seen)
        return ""

    def vanished(self, seconds: float) -> str:
        """Who of other machines gave no sign for so long, since a connection was closed.

        Their processes cannot be looked at from here. A sentence; "" where that is nobody.
        """
        self._look()
        now = time.monotonic()
        silent = [
            seen.sign
            for seen in self._seen.values()
            if not seen.sign.is_here and now - seen.since >= seconds
        ]
        # With process 0's machine all signs in the store are gone, other machines' too.
        with_first = {sign.host for sign in silent if sign.rank == 0}
        silent = [sign for sign in silent if not with_first or sign.host in with_first]
        if not silent:
            return ""
        self._lost |= {sign.rank for sign in silent}
        names = " and ".join(sign.name for sign in silent).replace(" and P", " and p")
        return (
            f"{names} ended {silent[0].at} without a word: the connection was closed, and no sign "
            "of life came any more. Killed, by a person or because the machine had no memory left; "
            "or the machine or the network is down"
        )

    def _hangs(self, seen: _Seen) -> str:
        """It does; whoever asks ends with this answer."""
        sign = seen.sign
        _given_up[sign] = self
        self._lost.add(sign.rank)
        return f"{sign.name} hangs {sign.at}: it gave no sign of life for {seen.silence:.0f} s" + (
            "" if sign.is_here else "; or its machine or the network is down"
        )

    def late(self, seconds: float) -> str:
        """Who does not come to where the others wait; who gives signs of life may still do so.

        A sign may be from before the step, such as "loading": there is nothing to load any more.
        """
        self._look()
        for seen in self._seen.values():
            if seen.silence > SILENT:
                return self._hangs(seen)
        busy = [f"process {sign.rank} at {sign.doing or 'nothing'}" for sign in self.signs()]
        where = f" ({'; '.join(busy)})" if busy else ""
        return f"A process hangs: its part did not come for {seconds:.0f} s{where}"

    def begin(self) -> None:
        """Nobody looked for a while: what is old counts from now."""
        now = time.monotonic()
        self._seen = {rank: _Seen(seen.sign, now, now) for rank, seen in self._seen.items()}

    def renew(self, seconds: float) -> None:
        """Find anew what stands in the places; wait so long for each at most."""
        for place in self._places:
            place.renew(seconds)

    def _look(self) -> None:
        now = time.monotonic()
        places = [(place, place.seen_at()) for place in self._places]
        for rank in self._others:
            found = [(sign, at) for place, at in places if (sign := place.found(rank))]
            sign = _newest([sign for sign, _ in found])
            if sign is None:  # it went with the folder: no sign is no silence
                self._seen.pop(rank, None)
                continue
            before = self._seen.get(rank)
            since = before.since if before and before.sign == sign else now
            self._seen[rank] = _Seen(sign, since, max(at for _, at in found))


def _newest(found: Sequence[Sign]) -> Sign | None:
    of_it = [sign for sign in found if sign.is_of(found[0])]
    return max(of_it, key=lambda sign: sign.beat, default=None)


def end_given_up() -> None:
    """Kill what this process has told to hang, where it is of this machine; the last thing it does.

    A launcher asks politely first and waits: torchrun 30 s, which one that is stopped cannot hear.
    Who gives a sign again is left alone.
    """
    for sign, watch in _given_up.items():
        if watch.last(sign.rank) == sign:
            kill(sign)
    _given_up.clear()
