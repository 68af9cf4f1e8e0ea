"""The processes that train one run together: how they meet, and what they tell each other.

Process 0 decides and the others obey: whatever they do together begins with an order of process 0,
so that no two of them ever wait in different places. Small things (orders, settings, states) travel
between hosts over gloo, gradients between GPUs over NCCL (not yet run) or over gloo. Nothing waits
blindly: who waits looks at the others' signs of life, and names the one that is lost.

How they wait for each other: `kit.training.waiting`. torch.distributed is imported there and in
`kit.training.sharding` alone. One process alone meets nobody: `ALONE` does nothing.
"""

from __future__ import annotations

import os
import pickle
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
from kit.processes.ends import OutOfStep, not_for_ever, out_of_step
from kit.processes.heartbeats import Heart, Watch
from kit.processes.in_store import AT_ONCE, InStore
from kit.processes.places import Folder, clear, leave_own, make_own, tidy
from kit.training.orders import MET, Dismissed, Order
from kit.training.waiting import Waiting, distributed, own_connection

NEVER = timedelta(days=30)  # a pause may last; who waits looks after the others by itself
MEETING, MEETING_FIRST = 300.0, 3600.0  # seconds; the first one plans before it comes
MOST_TEXT = 2000  # bytes of an error's text


class Ranks(Waiting):
    """This process among those of a run."""

    def __init__(self, here: Processes) -> None:
        super().__init__(here.rank)
        self.count, self._local_rank = here.count, here.local_rank
        self.is_awaited = False  # others wait for our part of what was ordered
        self._told_rates: dict[str, float] = {}
        self._has_own_folder = False  # which is none of process 0's

    def share(self, micro_steps: range) -> range:
        """This process's own of a step's micro-steps: every so many, so that short steps divide."""
        return micro_steps[self.rank :: self.count]

    def waits_idle(self, micro_steps: range) -> bool:
        """Others make one more of a step's micro-steps, through layers that lie here, too."""
        most = -(-len(micro_steps) // self.count)
        return self.is_sharded and len(self.share(micro_steps)) < most

    def begin_beating(self, run_dir: Path) -> None:
        """Give signs of life there, and look for those of the others."""
        others = [rank for rank in range(self.count) if rank != self.rank]
        start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._in_store = in_store = InStore(own_connection, others, start=start)
        if self.is_first:
            clear(run_dir)  # before the others know where to look
        else:
            in_store.renew(AT_ONCE)
            first = in_store.found(0)
            self._has_own_folder = first is not None and make_own(run_dir, first)
        self._run_dir = run_dir
        places = (in_store, Folder(run_dir))
        self.heart = Heart(self.rank, places)
        self._watch = Watch(places, others)

    def beat_on(self) -> None:
        """The run's folder was deleted, and is there again: signs of life have a place, too."""
        if self._run_dir is not None:
            clear(self._run_dir)

    def doing(self, what: str) -> None:
        """What the signs of life say from now on: "step 12", "drawing"."""
        if self.heart is not None:
            self.heart.doing = what

    @contextmanager
    def writing(self) -> Iterator[None]:
        """While process 0 writes a LoRA file: safetensors before 0.8 holds every thread as long."""
        before = self.heart.doing if self.heart is not None else ""
        self.doing("writing a file")
        try:
            yield
        finally:
            self.doing(before)

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
        self.finish(distributed().all_reduce(buffer, async_op=True))
        self.is_awaited = False

    @contextmanager
    def abreast(self, passes: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Where the base is sharded: all go through its layers at once inside the block.

        What breaks off here cannot be made up for. passes: what all of them raise together, each
        in the same place.

        Raises: OutOfStep.
        """
        if not self.is_sharded:
            yield
            return
        self.is_awaited = True
        try:
            yield
        except passes:
            self.is_awaited = False
            raise
        except ProcessLost:
            raise
        except Exception as error:
            raise out_of_step(error) from error
        self.is_awaited = False

    def agreed(self, own: bool) -> bool:
        """What process 0 says, where all go through the layers at once; else our own."""
        if not self.is_sharded:
            return own
        return self.total([float(own and self.is_first)])[0] > 0

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
        self._finish(distributed().all_reduce(mark, async_op=True))
        self.is_awaited = False

    def total(self, numbers: list[float], trouble: str = "") -> list[float]:
        """The sums over all processes. trouble: why a process has none.

        Raises: RuntimeError with another one's trouble; ProcessLost.
        """
        if self.count == 1:
            return numbers
        sums = torch.tensor([*numbers, float(bool(trouble))], dtype=torch.float64)
        self._finish(distributed().all_reduce(sums, async_op=True))
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
        self._finish(distributed().all_gather(theirs, tensor, async_op=True))
        return theirs

    @property
    def division(self) -> Division:
        """What is encoded beforehand, and by whom."""
        return Division(self.count, self.rank, self.meet)

    def part(self, error: BaseException | None) -> None:
        """It is over, for whatever reason; the others are told, where they can hear it."""
        well = error is None or isinstance(error, GeneratorExit | Dismissed)
        heart, self.heart = self.heart, None  # what is heard from now on is no news to the others
        if heart is not None and error is not None and not (well or heart.has_spoken):
            is_other = isinstance(error, ProcessLost) and not isinstance(error, OutOfStep)
            heart.last_words(in_a_line(error), heard=is_other)
        # Whoever waits for our part hears the connection close with this process.
        is_silent = isinstance(error, ProcessLost) or self.is_awaited
        if self.is_first and not is_silent:
            if self._in_store is not None:  # for who encodes pictures, and waits for no order yet
                self._in_store.say_over()
            with suppress(ProcessLost, RuntimeError):
                self.order(Order.END)
        self._stop_beating(heart)
        if self._run_dir is not None and self._has_own_folder:
            leave_own(self._run_dir, self.rank, well=well)
        if is_silent:
            return
        if self.is_first and self._run_dir is not None:
            tidy(self._run_dir, well=well)
        with suppress(Exception):
            distributed().destroy_process_group()

    def _stop_beating(self, heart: Heart | None) -> None:
        if heart is not None:
            heart.stop()
        if self._in_store is not None:
            self._in_store.stop()

    def _send(self, tensor: Tensor) -> None:
        """From process 0 to all; others wait for it as long as it gives signs of life."""
        self._finish(distributed().broadcast(tensor, src=0, async_op=True))


ALONE = Ranks(Processes())


@contextmanager
def together(here: Processes) -> Iterator[Ranks]:
    """The processes of this run, met; in the end they part. Alone, nobody is met.

    Raises: DeviceError where this torch cannot; ProcessLost.
    """
    if here.count == 1:
        yield ALONE
        return
    dist = distributed()
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
