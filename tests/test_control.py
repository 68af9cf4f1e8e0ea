import os
import signal
import threading
import time

import pytest

from kit.control import LrRequest, RunControl, SaveRequest, stop_on_interrupt


def test_requests_are_taken_once_and_in_their_order():
    control = RunControl()
    control.request(SaveRequest())
    control.request(LrRequest(factor=2.0))
    assert control.take() == [SaveRequest(), LrRequest(factor=2.0)]
    assert control.take() == []


@pytest.mark.parametrize("what", ["go_on", "stop", "request"])
def test_a_rest_ends_when_something_is_requested(what):
    control = RunControl()
    control.pause()
    thread = threading.Thread(target=control.wait_while_paused, daemon=True)
    thread.start()
    time.sleep(0.05)
    assert thread.is_alive()
    getattr(control, what)(*[SaveRequest()] * (what == "request"))
    thread.join(20)
    assert not thread.is_alive()


def test_without_a_pause_nothing_rests():
    RunControl().wait_while_paused()


def test_the_first_interrupt_is_a_request_also_while_it_rests_and_the_second_is_now():
    control = RunControl()
    control.pause()
    main = threading.main_thread().ident
    threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
    with stop_on_interrupt(control):
        control.wait_while_paused()
        assert control.stop_requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_every_polite_signal_asks_to_stop(name):
    control, number = RunControl(), getattr(signal, name)
    before = signal.getsignal(number)
    with stop_on_interrupt(control):
        os.kill(os.getpid(), number)
        time.sleep(0.05)
        assert control.stop_requested
    assert signal.getsignal(number) == before
