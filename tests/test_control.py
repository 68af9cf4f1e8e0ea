import os
import signal
import threading
import time

import pytest

from kit.control import RateWish, SaveWish, Wishes, interrupt_asks


def test_wishes_are_taken_once_and_in_their_order():
    wishes = Wishes()
    wishes.wish(SaveWish())
    wishes.wish(RateWish(factor=2.0))
    assert wishes.take() == [SaveWish(), RateWish(factor=2.0)]
    assert wishes.take() == []


@pytest.mark.parametrize("what", ["go_on", "stop", "wish"])
def test_a_rest_ends_when_something_is_wished(what):
    wishes = Wishes()
    wishes.pause()
    thread = threading.Thread(target=wishes.rest, daemon=True)
    thread.start()
    time.sleep(0.05)
    assert thread.is_alive()
    getattr(wishes, what)(*[SaveWish()] * (what == "wish"))
    thread.join(20)
    assert not thread.is_alive()


def test_without_a_pause_nothing_rests():
    Wishes().rest()


def test_the_first_interrupt_is_a_wish_also_while_it_rests_and_the_second_is_now():
    wishes = Wishes()
    wishes.pause()
    main = threading.main_thread().ident
    threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
    with interrupt_asks(wishes):
        wishes.rest()
        assert wishes.stop_asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
