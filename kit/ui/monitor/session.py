"""The kernel's one training: a thread in the background, so that cells and buttons stay usable.

    session = Session.start(plan)        the Train button does this
    await wait()                         in a cell: stay busy until it ends

Only this works on every kernel tried (ipykernel 6.17 to 7.4): a loop in a cell is deaf to buttons
on most of them. The thread gets a copy of the caller's context, without which ipykernel 7.0 ends
it at the first widget that changes.
"""

from __future__ import annotations

import atexit
import contextvars
import ctypes
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import ClassVar, TypeAlias

from kit import catalog
from kit.basemodel.reading_ahead import read_ahead
from kit.control import RunControl
from kit.errors import KitError
from kit.events import Event
from kit.planning import Plan
from kit.sinks import Sink, listening
from kit.ui.monitor.choice import TRAINING
from kit.ui.monitor.dashboard import Dashboard

Train: TypeAlias = Callable[[Plan, RunControl], Generator[Event, None, None]]
# Named, not imported: torch loads in the thread, not with the form
TRAIN = "kit.training.loop:train"
PATIENCE = 4.0  # seconds; a kernel that is restarted waits about five before it is killed


class Session:
    """A run in the background, its dashboard, and what may be requested of it."""

    current: ClassVar[Session | None] = None  # the newest; there is never more than one at work
    _lock: ClassVar[threading.Lock] = threading.Lock()
    ends_with_kernel = True
    where = "in this kernel"
    pictures = 0  # that it learns from, where that is known

    def __init__(self, dashboard: Dashboard, control: RunControl, run_dir: Path) -> None:
        self.dashboard, self.control, self.run_dir = dashboard, control, run_dir
        self.error: BaseException | None = None
        self.when_over: list[Callable[[], None]] = []
        # A daemon, so that a kernel is restarted at once; see `_leave`.
        self._thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(self._work,),
            name=TRAINING,
            daemon=True,
        )

    @staticmethod
    def start(plan: Plan, *sinks: Sink, train: Train | None = None) -> Session:
        """Begin to train this plan; `sinks` hear of it, beside its dashboard and its folder.

        Raises: KitError while another run is at work.
        """
        return Session._begun(lambda: InKernel(plan, *sinks, train=train))

    @staticmethod
    def _begun(make: Callable[[], Session]) -> Session:
        with Session._lock:
            if (busy := Session.current) is not None and busy.is_running():
                raise busy.refusal()
            session = Session.current = make()
            session._thread.start()
        return session

    def is_running(self) -> bool:
        """The thread is at work."""
        return self._thread.is_alive()

    def _ipython_display_(self) -> None:
        """As a cell's last line it is its dashboard."""
        self.dashboard.show()

    def refusal(self) -> KitError:
        """Why no second run can start."""
        past = self.dashboard.history
        return KitError(
            f"A run is at work {self.where}: {past.name}, step {past.step} of {past.total_steps}.",
            "A kernel trains one LoRA at a time; kit.queue() trains one after another.",
            "Wait until it is done, or press Stop beside its progress: it can go on later.",
        )

    def interrupt(self) -> None:
        """The notebook's stop sign: the first time a request, the second time at once."""
        raise NotImplementedError

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, at most so many seconds."""
        self._thread.join(timeout)

    def _work(self) -> None:
        try:
            self._iterate()
        except KeyboardInterrupt:
            self.dashboard.break_off(
                "Stopped at once; it goes on from the last state kept.", "stopped"
            )
        except BaseException as error:  # whatever it is, the person must see it here
            self.error = error
            self.dashboard.fail(error)
        finally:
            self.dashboard.end()
            self._close()
            for tell in self.when_over:
                tell()

    def _iterate(self) -> None:
        """The run, from its begin to its end.

        Raises: what ends it.
        """
        raise NotImplementedError

    def _close(self) -> None:
        """What is left to do at the end."""


class InKernel(Session):
    """A training in a thread of this kernel."""

    def __init__(self, plan: Plan, *sinks: Sink, train: Train | None = None) -> None:
        control = RunControl()
        dashboard = Dashboard(plan, control=control, shows_itself=False)
        super().__init__(dashboard, control, plan.run.dir)
        self.plan, self.pictures = plan, plan.learned_from
        self._sinks, self._train = sinks, train

    def interrupt(self) -> None:
        """The notebook's stop sign: the first time a request, the second time at once."""
        if not self.control.stop_requested:
            self.control.stop()
            self.dashboard.tell_request()
        elif self.is_running() and self._thread.ident is not None:
            # Arrives when the thread next runs Python code; what the run has kept stays whole.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._thread.ident), ctypes.py_object(KeyboardInterrupt)
            )

    def _iterate(self) -> None:
        read_ahead(self.plan.settings.model.pretrained_model_name_or_path)
        train: Train = self._train or catalog.load(TRAIN)
        with (
            listening(
                self.plan.run, self.dashboard, *self._sinks, settings=self.plan.settings
            ) as tell,
            closing(train(self.plan, self.control)) as events,
        ):
            for event in events:
                tell(event)


@atexit.register
def _leave() -> None:
    """The kernel ends: finish the step and keep its state, if that does not take long."""
    session = Session.current
    if session is not None and session.ends_with_kernel and session.is_running():
        session.control.stop()
        session.join(PATIENCE)
