"""`await kit.wait()`: at once without a run, deaf to nothing while there is one."""

import asyncio
import signal
import threading
import time
from queue import Empty
from types import SimpleNamespace

import pytest

import kit.ui
from kit.errors import Diverged
from kit.ui.monitor import waiting
from kit.ui.monitor.session import Session
from tests.ui.runs import Script, until

pytestmark = pytest.mark.usefixtures("kernel")


def test_it_returns_at_once_where_nothing_runs(capsys):
    asyncio.run(kit.ui.wait())
    assert capsys.readouterr().out == "Nothing is running yet.\n"


class Attended:
    """A kernel whose cell was run by somebody who could answer a question."""

    def get_parent(self, channel):
        return {"content": {"allow_stdin": True}}


@pytest.fixture
def attended(monkeypatch):
    shell = SimpleNamespace(kernel=Attended())
    monkeypatch.setattr(waiting, "get_ipython", lambda: shell)


def test_before_train_it_waits_for_it_and_then_for_the_runs_end(small_plan, attended, capsys):
    def press_train():
        time.sleep(0.3)
        Session.start(small_plan, train=Script(steps=3, pace=0.01).train)

    threading.Thread(target=press_train, daemon=True).start()
    asyncio.run(kit.ui.wait())
    assert Session.current.dashboard.history.state == "done"
    told = capsys.readouterr().out.splitlines()
    assert "waits for Train, 30 minutes at most" in told[0]
    name = small_plan.run.name
    assert told[1:] == [
        f"{name} trains; this cell waits for its end.",
        f"{name} is done, at step 3 of 3.",
    ]


class Concurrent(Attended):
    """As ipykernel 7.4: a widget's message beside a running cell is neither busy nor idle."""

    def __init__(self):
        self.told = []
        self.session = SimpleNamespace(
            feed_identities=lambda message, copy: ([], ["a signature", message]),
            unpack=lambda frame: frame,
        )

    async def dispatch_shell(self, message, /, subshell_id=None, *, concurrent=False):
        self.told.append(("handled", message))

    def _publish_status(self, status, channel, parent):
        self.told.append((status, parent.get("header", "the cell")))


def test_while_it_waits_the_page_hears_when_a_widgets_message_was_handled():
    kernel = Concurrent()

    async def messages():
        with waiting._Kernel(kernel).telling_idle():
            await kernel.dispatch_shell("first", concurrent=True)
            await kernel.dispatch_shell("ordinary", subshell_id="s")
        await kernel.dispatch_shell("later", concurrent=True)

    asyncio.run(messages())
    assert kernel.told == [
        ("handled", "first"), ("idle", "first"), ("busy", "the cell"),
        ("handled", "ordinary"), ("handled", "later"),
    ]  # fmt: skip


def test_after_a_run_it_waits_for_the_next(small_plan, attended):
    first = Session.start(small_plan, train=Script(steps=1, pace=0.01).train)
    first.join(20)
    later = threading.Timer(
        0.3, lambda: Session.start(small_plan, train=Script(steps=1, pace=0.01).train)
    )
    later.start()
    asyncio.run(kit.ui.wait())
    assert Session.current is not first
    assert not Session.current.is_running()


def test_a_train_that_never_comes_is_not_waited_for_forever(attended, capsys, monkeypatch):
    monkeypatch.setattr(waiting, "PATIENCE", 0.2)
    asyncio.run(kit.ui.wait())
    assert "No run was begun" in capsys.readouterr().out


def test_the_stop_sign_ends_the_waiting_for_train(attended, capsys):
    def press():
        until(
            lambda: getattr(signal.getsignal(signal.SIGINT), "__module__", "") == waiting.__name__
        )
        press_stop()

    threading.Thread(target=press, daemon=True).start()
    asyncio.run(kit.ui.wait())
    assert "No run was begun" not in capsys.readouterr().out


def test_a_program_that_runs_the_notebook_is_not_kept(capsys, monkeypatch):
    kernel = SimpleNamespace(get_parent=lambda _: {"content": {"allow_stdin": False}})
    monkeypatch.setattr(waiting, "get_ipython", lambda: SimpleNamespace(kernel=kernel))
    asyncio.run(kit.ui.wait())
    assert capsys.readouterr().out == "Nothing is running yet.\n"


def test_vs_code_is_not_kept_busy(small_plan, capsys, monkeypatch):
    monkeypatch.setenv("VSCODE_PID", "1")
    session = Session.start(small_plan, train=Script().train)
    asyncio.run(kit.ui.wait())
    assert session.is_running()
    assert "VS Code" in capsys.readouterr().out


def test_it_waits_until_the_run_is_over_and_raises_what_ended_it(small_plan):
    error = Diverged("The loss is no number.")
    session = Session.start(small_plan, train=Script(error=error, pace=0.01).train)
    with pytest.raises(Diverged):
        asyncio.run(kit.ui.wait())
    assert not session.is_running()


def press_stop():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def test_the_stop_sign_asks_the_first_time_and_ends_at_once_the_second(small_plan):
    before = signal.getsignal(signal.SIGINT)
    script = Script()
    script.ignores_requests = True
    session = Session.start(small_plan, train=script.train)
    asked = []

    def press_twice():
        script.began.wait(20)
        # Before that, on a busy machine, it would end pytest itself.
        until(
            lambda: getattr(signal.getsignal(signal.SIGINT), "__module__", "") == waiting.__name__
        )
        press_stop()
        until(lambda: session.control.stop_requested)
        asked.append(session.is_running())
        press_stop()

    threading.Thread(target=press_twice, daemon=True).start()
    asyncio.run(kit.ui.wait())
    assert asked == [True]
    assert session.dashboard.history.state == "stopped"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_cell_that_is_cancelled_is_a_stop_sign_too(small_plan):
    """In a thread of a kernel there are no signals; ipykernel cancels the cell instead."""
    session = Session.start(small_plan, train=Script().train)

    async def cancelled():
        task = asyncio.ensure_future(kit.ui.wait())
        await asyncio.sleep(0.2)
        task.cancel()
        await task

    asyncio.run(cancelled())
    assert session.dashboard.history.state == "stopped"


class OldKernel:
    """What kit.wait() knows of ipykernel 6: a queue of (priority, function, arguments)."""

    def __init__(self, items):
        self.items, self.parents, self.session = list(items), [], self
        self.msg_queue, self._parent_ident = self, {"shell": b"cell"}

    def empty(self):
        return not self.items

    def get_nowait(self):
        if not self.items:
            raise Empty
        return self.items.pop(0)

    def put_nowait(self, item):
        self.items.append(item)

    def get_parent(self, channel):
        return {"cell": 3}

    def set_parent(self, ident, parent):
        self.parents.append((ident, parent))

    def feed_identities(self, message, copy):
        kind, _, code = message.partition(" ")
        return [], [b"signature", {"msg_type": kind}, {}, {}, {"code": code}]

    def unpack(self, frame):
        if frame.get("msg_type") == "broken":
            raise ValueError(frame)
        return frame


def test_ipykernel_6_hands_over_widgets_messages_and_keeps_the_rest_waiting():
    handled = []

    async def late(message):
        handled.append(message)

    def item(message, dispatch):
        return (10, dispatch, (message,))

    others = [item("execute_request 1 + 1", handled.append), item("broken", handled.append)]
    call = "execute_request google.colab.output._js._invoke_function('upload', '[]', '{}')"
    kernel = OldKernel(
        [others[0], item("comm_msg", late), others[1], item("comm_open", handled.append)]
    )
    kernel.items.append(item(call, late))
    asyncio.run(waiting._Kernel(kernel).handle_widgets())
    assert handled == ["comm_msg", "comm_open", call]
    assert kernel.items == others
    assert kernel.parents == [(b"cell", {"cell": 3})] * 3


def test_newer_kernels_need_no_help():
    kernel = waiting._Kernel(object())
    asyncio.run(kernel.handle_widgets())
    assert kernel._queue is None
