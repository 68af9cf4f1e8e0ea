"""How a process waits for the others of its run: never blindly, and not for who is lost.

Whoever waits looks at the others' signs of life meanwhile, and names the one that is lost.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from kit.errors import ProcessLost
from kit.processes.ends import lost_process
from kit.processes.heartbeats import Heart, Watch
from kit.processes.in_store import InStore
from kit.processes.places import FOLDER
from kit.processes.signs import is_gone
from kit.training.orders import Dismissed

LEAST_PATIENCE = 40.0  # seconds for a process whose signs come, and whose part of a step does not
TIMES_LONGER = 10.0  # than the longest part of a step of our own so far
FIRST_PATIENCE = 900.0  # before that is known: compilers, graphs
STOOD_STILL = 5.0  # seconds between two looks: this process itself was stopped meanwhile
LAST_WORDS = 6.0  # seconds in which a process that is lost may still say why
VANISHED = 4.0  # seconds without a sign behind a closed connection: that one was it
RENEWED = 0.5  # seconds to look for it once more
FIRST_WORDS = 20.0  # seconds in which process 0, while it lives, may keep a state and say why
STORE = timedelta(seconds=5)  # for an answer of the store by which the processes have met


class Waiting:
    """This process, which waits for the others of its run."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self._watch: Watch | None = None
        self.heart: Heart | None = None
        self._run_dir: Path | None = None
        self._in_store: InStore | None = None
        self._looked = 0.0
        self._longest = 0.0  # seconds of our own part of a step
        self.is_sharded = False  # the base lies on all of them: see `kit.training.sharding`

    @property
    def is_first(self) -> bool:
        """It decides, writes and tells."""
        return self.rank == 0

    def took(self, seconds: float) -> None:
        """Our own part of a step took so long: others may take a multiple of it."""
        self._longest = max(self._longest, seconds)

    def finish(self, work: Any) -> None:
        """Wait for a part of a step that all make, as long as such parts may take.

        Raises: ProcessLost; Dismissed where it is over.
        """
        limit = max(LEAST_PATIENCE, TIMES_LONGER * self._longest) if self._longest else 0.0
        self._finish(work, limit or FIRST_PATIENCE)

    def look(self) -> None:
        """Are the others there still? For where process 0 works by itself, or was asked to stop.

        Raises: ProcessLost.
        """
        if self._watch is not None and (lost := self._watch.lost()):
            raise self._loses(lost)

    def look_now_and_then(self) -> None:
        """The same, at most once a second, where nobody waits for process 0's orders.

        Raises: ProcessLost; Dismissed where it is over.
        """
        if self._watch is not None and time.monotonic() - self._looked > 1.0:
            self._looked = time.monotonic()
            if not self.is_first and self._is_over:
                raise Dismissed
            self.look()

    def the_first_speaks(self) -> bool:
        """Process 0 has said what ended it; as long as it lives that is waited for."""
        until, watch = time.monotonic() + FIRST_WORDS, self._watch
        while watch is not None and not any(s.rank == 0 and s.words for s in watch.signs()):
            if time.monotonic() > until or not watch.lives(0):
                return False
            time.sleep(0.1)
        return watch is not None

    @property
    def speaks_for_the_first(self) -> bool:
        """Process 0 is lost without a word, and none before us lives to tell it."""
        if self._watch is None or self._run_dir is None or not (self._run_dir / FOLDER).is_dir():
            return False
        signs = {sign.rank: sign for sign in self._watch.signs()}
        first = signs.get(0)
        others = [sign for rank, sign in signs.items() if 0 < rank < self.rank]
        return bool(first and not first.words) and all(is_gone(sign) for sign in others)

    @property
    def is_beside_the_first(self) -> bool:
        """What process 0 tells is read on this machine."""
        signs = self._watch.signs() if self._watch is not None else []
        return all(sign.is_here for sign in signs if sign.rank == 0)

    @property
    def _is_over(self) -> bool:
        """Process 0 has said so, in a place that needs no order."""
        return self._in_store is not None and self._in_store.is_over

    def _loses(self, found: str) -> ProcessLost:
        """What ends this process; the others hear it first, since to keep a state takes time."""
        if self.heart is not None and found:
            self.heart.last_words(found, heard=True)
        return lost_process(found)

    def _finish(self, work: Any, limit: float = float("inf")) -> None:
        """Wait until it is done; limit: seconds after which who is late counts as lost."""
        try:
            self._wait_for(work, limit)
        except ProcessLost:
            _give_up()
            raise

    def _wait_for(self, work: Any, limit: float) -> None:
        began = looked = now = time.monotonic()
        if self._watch is not None:
            self._watch.begin()
        while not work.is_completed():
            before, now = now, time.monotonic()
            if now - before > STOOD_STILL and self._watch is not None:  # the others too, as a rule
                self._watch.begin()
                began, looked = began + now - before, now
            if now - looked > 1.0:
                looked = now
                if self.is_sharded and not self.is_first and self._is_over:
                    raise Dismissed
                self.look()
                if now - began > limit:
                    raise self._loses(self._watch.late(now - began) if self._watch else "")
            waited = now - began
            time.sleep(0.0002 if waited < 0.05 else 0.002 if waited < 2.0 else 0.02)
        try:
            work.wait()
        except RuntimeError as error:
            raise self._loses(self._found_out(str(error))) from error

    def _found_out(self, heard: str) -> str:
        """Who has closed the connection; its last words may come a moment later."""
        until, watch = time.monotonic() + LAST_WORDS, self._watch
        while watch is not None and time.monotonic() < until:
            watch.renew(RENEWED)
            if lost := watch.lost() or watch.vanished(VANISHED):
                return lost
            time.sleep(0.1)
        heard = (heard.strip().splitlines() or [""])[0]
        return f"Another process closed the connection ({heard}); its own output says why"


def _give_up() -> None:
    """End NCCL's kernel, which would wait for who is lost, and all that frees memory for it.

    Not yet run.
    """
    if torch.cuda.is_available():
        with suppress(Exception):  # the first fault is what a person must know of
            distributed().group.WORLD._get_backend(torch.device("cuda")).abort()


def own_connection() -> Any:
    """One more connection to the store by which the processes have met, for a thread of its own.

    Raises: RuntimeError where nobody answers.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    more = {"is_master": False, "wait_for_workers": False, "timeout": STORE}
    return distributed().TCPStore(host, port, **more)


def distributed() -> Any:
    """torch.distributed, which takes its time to be imported."""
    import torch.distributed as dist

    return dist
