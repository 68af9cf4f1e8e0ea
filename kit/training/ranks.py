"""The processes that train one run together: how they meet, and what they tell each other.

Process 0 decides and the others obey: whatever they do together begins with an order of process 0,
so that no two of them ever wait in different places. Small things (orders, settings, states) travel
between hosts over gloo, gradients between GPUs over NCCL (not yet run) or over gloo. Nothing waits
blindly: who waits looks at the others' signs of life, and names the one that is lost.

Only this file imports torch.distributed. One process alone meets nobody: `ALONE` does nothing.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kit.caching.division import Division
from kit.errors import DeviceError, ProcessLost, in_a_line
from kit.processes import Processes
from kit.processes.ends import lost_process, not_for_ever
from kit.processes.heartbeats import FOLDER, Heart, Watch, clear, is_gone, tidy
from kit.training.orders import MET, Dismissed, Order

NEVER = timedelta(days=30)  # a pause may last; who waits looks after the others by itself
MEETING, MEETING_FIRST = 300.0, 3600.0  # seconds; the first one plans before it comes
LEAST_PATIENCE = 40.0  # seconds for a process whose signs come, and whose part of a step does not
TIMES_LONGER = 10.0  # than the longest part of a step of our own so far
FIRST_PATIENCE = 900.0  # before that is known: compilers, graphs
STOOD_STILL = 5.0  # seconds between two looks: this process itself was stopped meanwhile
LAST_WORDS = 4.0  # seconds in which a process that is lost may still say why
FIRST_WORDS = 20.0  # seconds in which process 0, while it lives, may keep a state and say why
OVER = "lora-kit/over"  # in the store by which the processes have met
MOST_TEXT = 2000  # bytes of an error's text


class Ranks:
    """This process among those of a run."""

    def __init__(self, here: Processes) -> None:
        self.count, self.rank, self._local_rank = here.count, here.rank, here.local_rank
        self._watch: Watch | None = None
        self.heart: Heart | None = None
        self._run_dir: Path | None = None
        self._looked = 0.0
        self.is_awaited = False  # others wait for our part of what was ordered
        self._longest = 0.0  # seconds of our own part of a step
        self._told_rates: dict[str, float] = {}

    @property
    def is_first(self) -> bool:
        """It decides, writes and tells."""
        return self.rank == 0

    def share(self, micro_steps: range) -> range:
        """This process's own of a step's micro-steps: every so many, so that short steps divide."""
        return micro_steps[self.rank :: self.count]

    def begin_beating(self, run_dir: Path) -> None:
        """Give signs of life there, and look for those of the others."""
        if self.is_first:
            clear(run_dir)  # before the others know where to look
        self._run_dir = run_dir
        self.heart = Heart(run_dir, self.rank)
        others = (rank for rank in range(self.count) if rank != self.rank)
        self._watch = Watch(run_dir, others)

    def beat_on(self) -> None:
        """The run's folder was deleted, and is there again: signs of life have a place, too."""
        if self._run_dir is not None:
            clear(self._run_dir)

    def doing(self, what: str) -> None:
        """What the signs of life say from now on: "step 12", "drawing"."""
        if self.heart is not None:
            self.heart.doing = what

    def took(self, seconds: float) -> None:
        """Our own part of a step took so long: others may take a multiple of it."""
        self._longest = max(self._longest, seconds)

    # ------------------------------------------------------------------ what process 0 says

    def order(self, what: Order, number: int = 0, payload: bytes = b"") -> None:
        """Tell the others what is done next; nothing where there are none.

        Raises: ProcessLost.
        """
        if self.count > 1:
            self.is_awaited = what in MET
            self._send(torch.tensor([what, number, len(payload)]))
            if payload:
                self._send(torch.frombuffer(bytearray(payload), dtype=torch.uint8))

    def awaited(self) -> tuple[Order, int, bytes]:
        """What process 0 tells us to do.

        Raises: ProcessLost; Dismissed where it is over.
        """
        before = self.heart.doing if self.heart is not None else ""
        self.doing("waiting for process 0")
        head = torch.zeros(3, dtype=torch.int64)
        self._send(head)
        what, number, size = head.tolist()
        body = torch.zeros(size, dtype=torch.uint8)
        if size:
            self._send(body)
        self.doing(before)
        if what == Order.END:
            raise Dismissed
        self.is_awaited = what in MET
        return Order(what), number, body.numpy().tobytes()

    def spread(self, value: Any = None) -> Any:
        """What process 0 gives, on all of them: a plan."""
        if self.count == 1:
            return value
        if self.is_first:
            self.order(Order.STATE, payload=pickle.dumps(value))
            return value
        return pickle.loads(self.awaited()[2])  # of our own making, a moment ago

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Process 0, then one of each other machine, then all: each finds what was fetched."""
        turn = 0 if self.is_first else 1 if self._local_rank == 0 else 2
        for _ in range(turn):
            self.meet()
        yield
        for _ in range(2 - turn):
            self.meet()

    def tell_rates(self, rates: dict[str, float]) -> None:
        """Process 0 tells what a person or a rollback multiplied the rates by, if it is new."""
        if self.count > 1 and rates != self._told_rates:
            self._told_rates = dict(rates)
            self.order(Order.RATES, payload=pickle.dumps(rates))

    # ------------------------------------------------------------------ what all do together

    def add_up(self, buffer: Tensor) -> None:
        """The sum over all processes, in place.

        Raises: ProcessLost.
        """
        limit = max(LEAST_PATIENCE, TIMES_LONGER * self._longest) if self._longest else 0.0
        self._finish(_dist().all_reduce(buffer, async_op=True), limit or FIRST_PATIENCE)
        self.is_awaited = False

    def texts(self, own: str) -> list[str]:
        """A short text of each process, on all of them."""
        data = own.encode("utf-8", "replace")[:MOST_TEXT]
        mine = torch.zeros(MOST_TEXT, dtype=torch.uint8)
        mine[: len(data)] = torch.tensor(list(data), dtype=torch.uint8)
        theirs = self._gathered(mine)
        return [bytes(t.tolist()).rstrip(b"\0").decode("utf-8", "replace") for t in theirs]

    def meet(self) -> None:
        """Go on when all have come so far, however long that takes.

        Raises: ProcessLost.
        """
        if self.count == 1:
            return
        if self.is_first:
            self.order(Order.MEET)
        else:
            self.awaited()
        mark = torch.zeros(1)
        self._finish(_dist().all_reduce(mark, async_op=True))
        self.is_awaited = False

    def total(self, numbers: list[float], trouble: str = "") -> list[float]:
        """The sums over all processes. trouble: why a process has none.

        Raises: RuntimeError with another one's trouble; ProcessLost.
        """
        if self.count == 1:
            return numbers
        sums = torch.tensor([*numbers, float(bool(trouble))], dtype=torch.float64)
        self._finish(_dist().all_reduce(sums, async_op=True))
        self.is_awaited = False
        *found, troubles = sums.tolist()
        if troubles:
            self._raise_trouble(trouble)
        return found

    def collected(self, own: bytes, trouble: str = "") -> list[bytes]:
        """What each of them has made. trouble: as of `total`."""
        if self.count == 1:
            return [own]
        sizes = self._gathered(torch.tensor([len(own), bool(trouble)]))
        if any(int(failed) for _, failed in sizes):
            self.is_awaited = False
            self._raise_trouble(trouble)
            return []
        data = torch.zeros(max(1, *(int(size) for size, _ in sizes)), dtype=torch.uint8)
        if own:
            data[: len(own)] = torch.frombuffer(bytearray(own), dtype=torch.uint8)
        parts = self._gathered(data)
        self.is_awaited = False
        return [
            part[: int(size)].numpy().tobytes()
            for part, (size, _) in zip(parts, sizes, strict=True)
        ]

    def _raise_trouble(self, own: str) -> None:
        """Of another one; our own is raised where it was met."""
        for rank, text in enumerate(self.texts(own)):
            if text and rank != self.rank and not own:
                raise RuntimeError(f"process {rank}: {text}")

    def _gathered(self, tensor: Tensor) -> list[Tensor]:
        theirs = [torch.zeros_like(tensor) for _ in range(self.count)]
        self._finish(_dist().all_gather(theirs, tensor, async_op=True))
        return theirs

    @property
    def division(self) -> Division:
        """What is encoded beforehand, and by whom."""
        return Division(self.count, self.rank, self.meet)

    def look(self) -> None:
        """Are the others there still? For where process 0 works by itself, or was asked to stop.

        Raises: ProcessLost.
        """
        if self._watch is not None and (lost := self._watch.lost()):
            raise lost_process(lost)

    def look_now_and_then(self) -> None:
        """The same, at most once a second, where nobody waits for process 0's orders.

        Raises: ProcessLost; Dismissed where it is over.
        """
        if self._watch is not None and time.monotonic() - self._looked > 1.0:
            self._looked = time.monotonic()
            if not self.is_first and _store().check([OVER]):
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

    def part(self, error: BaseException | None) -> None:
        """It is over, for whatever reason; the others are told, where they can hear it."""
        if self.heart is not None:
            if error is not None and not isinstance(error, GeneratorExit | Dismissed):
                self.heart.last_words(in_a_line(error))
            self.heart.stop()
        if isinstance(error, ProcessLost) or self.is_awaited:
            return  # whoever waits hears the connection close with this process
        if self.is_first:
            with suppress(ProcessLost, RuntimeError):
                _store().set(OVER, "1")  # for who encodes pictures, and waits for no order yet
                self.order(Order.END)
            if self._run_dir is not None:
                tidy(self._run_dir, well=error is None or isinstance(error, GeneratorExit))
        with suppress(Exception):
            _dist().destroy_process_group()

    # ------------------------------------------------------------------ how it waits

    def _send(self, tensor: Tensor) -> None:
        """From process 0 to all; others wait for it as long as it gives signs of life."""
        self._finish(_dist().broadcast(tensor, src=0, async_op=True))

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
                self.look()
                if now - began > limit:
                    raise lost_process(self._watch.late(now - began) if self._watch else "")
            waited = now - began
            time.sleep(0.0002 if waited < 0.05 else 0.002 if waited < 2.0 else 0.02)
        try:
            work.wait()
        except RuntimeError as error:
            raise lost_process(self._found_out(str(error))) from error

    def _found_out(self, heard: str) -> str:
        """Who has closed the connection; its last words may come a moment later."""
        until = time.monotonic() + LAST_WORDS
        while self._watch is not None and time.monotonic() < until:
            if lost := self._watch.lost():
                return lost
            time.sleep(0.1)
        heard = (heard.strip().splitlines() or [""])[0]
        return f"Another process closed the connection ({heard}); its own output says why"


ALONE = Ranks(Processes())


def _give_up() -> None:
    """End NCCL's kernel, which would wait for who is lost, and all that frees memory for it.

    Not yet run.
    """
    if torch.cuda.is_available():
        with suppress(Exception):  # the first fault is what a person must know of
            _dist().group.WORLD._get_backend(torch.device("cuda")).abort()


@contextmanager
def together(here: Processes) -> Iterator[Ranks]:
    """The processes of this run, met; in the end they part. Alone, nobody is met.

    Raises: DeviceError where this torch cannot; ProcessLost.
    """
    if here.count == 1:
        yield ALONE
        return
    dist = _dist()
    if not dist.is_available():
        raise DeviceError(
            "This torch was built without torch.distributed.",
            "Several processes need it.",
            "Train with one process, or install another build of torch.",
        )
    is_gpu = torch.cuda.is_available() and dist.is_nccl_available()
    with not_for_ever(MEETING if here.is_first else MEETING_FIRST):
        dist.init_process_group("cpu:gloo,cuda:nccl" if is_gpu else "gloo", timeout=NEVER)
    ranks = Ranks(here)
    try:
        yield ranks
    except BaseException as error:
        ranks.part(error)
        raise
    ranks.part(None)


def _store() -> Any:
    return _dist().distributed_c10d._get_default_store()


def _dist() -> Any:
    import torch.distributed as dist

    return dist
