"""Signs of life of machines that share no folder: in a store, which may be gone or stand still."""

import os
import socket
import threading
import time
from datetime import timedelta

import psutil
import pytest

from kit.processes import heartbeats, in_store, places
from kit.processes.in_store import InStore
from kit.processes.signs import Sign, is_gone, kill, machine, sign_from

torch_distributed = pytest.importorskip("torch.distributed")


def sign(rank, host="b", **more):
    return Sign(**{"rank": rank, "pid": 40 + rank, "host": host, "doing": "step 3"} | more)


class Place:
    """A place that holds what a test puts there."""

    def __init__(self, *held, at=None):
        self.held = {each.rank: each for each in held}
        self.at = at or time.monotonic

    def put(self, own, *, at_once=False):
        self.held[own.rank] = own

    def found(self, rank):
        return self.held.get(rank)

    def seen_at(self):
        return self.at()

    def renew(self, seconds):
        pass


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def server():
    """A store as process 0 or a launcher keeps it."""
    return torch_distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


@pytest.fixture
def meeting():
    """Makes places in a store, and ends them."""
    made = []

    def meet(connect, *others, **more):
        made.append(InStore(connect, others, **more))
        return made[-1]

    yield meet
    for each in made:
        each.stop()


def to(port, seconds=5.0):
    def connect():
        return torch_distributed.TCPStore(
            "127.0.0.1",
            port,
            is_master=False,
            wait_for_workers=False,
            timeout=timedelta(seconds=seconds),
        )

    return connect


def test_signs_words_and_the_end_travel_by_a_store(server, meeting):
    first, second = meeting(to(server.port), 1), meeting(to(server.port), 0)
    assert first.found(1) is None
    heart = heartbeats.Heart(1, [second])
    heart.doing = "step 8"
    heart.last_words("the cable is out")  # comes back when it is there
    first.renew(5)
    assert first.found(1).words == "the cable is out"
    assert heartbeats.Watch([first], [1]).lost() == "Process 1 failed at step 8: the cable is out"
    heart.stop()
    first.say_over()
    second.renew(5)
    assert second.is_over and not first.found(0)
    later = meeting(to(server.port), 1, start="1")  # as a launcher begins anew, in the same store
    later.renew(5)
    assert later.found(1) is None and not later.is_over


def test_a_store_that_is_gone_keeps_nobody_waiting_and_may_come_back(meeting):
    server = torch_distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    port = server.port
    here, there = meeting(to(port, 0.5), 1), meeting(to(port, 0.5), 0)
    there.put(sign(1), at_once=True)
    here.renew(5)
    del server
    began = time.monotonic()
    here.put(sign(0, words="no memory"), at_once=True)
    assert time.monotonic() - began < in_store.AT_ONCE + 1
    assert here.found(1) == sign(1)  # as it was
    back = torch_distributed.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    there.put(sign(1, beat=2), at_once=True)
    here.renew(5)
    assert back and here.found(1) == sign(1, beat=2)


class Stuck:
    """A store that stands still: nothing comes back."""

    def __init__(self):
        self.free = threading.Event()

    def set(self, key, value):
        self.free.wait(20)

    def get(self, key):
        self.free.wait(20)

    def check(self, keys):
        self.free.wait(20)
        return False


def test_a_store_that_stands_still_keeps_nobody_waiting(meeting, monkeypatch):
    monkeypatch.setattr(in_store, "AT_ONCE", 0.05)
    store = Stuck()
    place = meeting(lambda: store, 1)
    began = time.monotonic()
    place.put(sign(0), at_once=True)
    place.renew(0.05)
    assert place.found(1) is None
    place.stop()
    assert time.monotonic() - began < 2
    store.free.set()


def test_the_time_in_which_this_process_stood_still_makes_no_sign_old(meeting, clock):
    store = Stuck()
    place = meeting(lambda: store, 1)
    place.seen_at()
    clock[0] += 100  # its thread stood still, too
    assert place.seen_at() <= 1000 + in_store.LOOK
    for _ in range(40):  # but a store that does not answer who looks again and again is silent
        clock[0] += 1
        seen = place.seen_at()
    assert seen >= 1040
    store.free.set()


def test_the_newest_sign_counts_wherever_it_stands(clock):
    folder, store = Place(sign(1, beat=9)), Place(sign(1, beat=7))
    watch = heartbeats.Watch([store, folder], [1])
    assert watch.last(1).beat == 9
    folder.held[1] = sign(1, beat=99, pid=7)  # which an earlier start has left
    assert watch.last(1).beat == 7
    folder.held.clear()  # somebody deleted it
    watch.lost()
    clock[0] += heartbeats.SILENT + 1
    store.held[1] = sign(1, beat=8)
    assert watch.lost() == ""
    clock[0] += heartbeats.SILENT + 1
    assert watch.lost().startswith("Process 1 (pid 41 on b) hangs at step 3: it gave no sign")
    assert "or its machine or the network is down" in watch.lost()


def test_a_place_that_was_not_looked_at_proves_no_silence(clock):
    place = Place(sign(1), at=lambda: 1000.0)
    watch = heartbeats.Watch([place], [1])
    watch.lost()
    clock[0] += 10 * heartbeats.SILENT
    assert watch.lost() == ""


def test_behind_a_closed_connection_those_whose_beats_stopped_are_named(clock):
    place = Place(*[sign(rank, host) for rank, host in enumerate("aabbc")])
    watch = heartbeats.Watch([place], [0, 1, 2, 3, 4])
    watch.begin()
    for beat in range(4):
        for rank in (0, 1, 4):
            place.held[rank] = sign(rank, place.held[rank].host, beat=beat)
        assert watch.vanished(4.0) == ""
        clock[0] += 1
    told = watch.vanished(4.0)
    assert told.startswith(
        "Process 2 (pid 42 on b) and process 3 (pid 43 on b) ended at step 3 without a word"
    )
    assert not watch.lives(2) and watch.lives(4)


def test_where_the_store_went_with_the_first_machine_that_one_is_named(clock):
    here = socket.gethostname()
    place = Place(*[sign(rank, host) for rank, host in enumerate(["a", "a", here, "c"])])
    watch = heartbeats.Watch([place], [0, 1, 3])
    watch.begin()
    watch.lost()
    clock[0] += 5
    assert watch.vanished(4.0).startswith(
        "Process 0 (pid 40 on a) and process 1 (pid 41 on a) ended at step 3"
    )


def test_what_others_have_heard_is_passed_on_as_it_is(clock):
    gone = "Process 2 (pid 42 on b) ended at step 3"
    place = Place(sign(1, words=gone, heard=True), sign(2))
    watch = heartbeats.Watch([place], [1, 2])
    assert watch.lost() == gone
    place.held[2] = sign(2, words="no memory left")  # its own words are better
    assert watch.lost() == "Process 2 failed at step 3: no memory left"


def test_a_machine_of_the_same_name_is_another_one():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    own = sign(1, socket.gethostname(), pid=child, machine=machine())
    assert is_gone(own)
    assert not is_gone(sign(1, socket.gethostname(), pid=child, machine="another start"))
    born = psutil.Process().create_time()
    assert not kill(sign(1, socket.gethostname(), pid=os.getppid(), born=born, machine="another"))


def test_a_sign_is_read_as_it_was_written():
    told = sign(1, words="a „word“\n", heard=True, machine="m", beat=3, born=1.5)
    assert sign_from(told.to_text(), "1.json") == told
    assert sign_from(told.to_text().encode(), "1.json") == told
    assert sign_from(told.to_text()[:-3], "1.json") is None


def test_a_machine_without_the_first_ones_folder_makes_its_own(tmp_path):
    first, run_dir = sign(0, "a"), tmp_path / "out" / "toy.run"
    assert places.make_own(run_dir, first)
    folder = places.Folder(run_dir)
    folder.put(sign(2, words="of an earlier start"))
    assert places.make_own(run_dir, first)
    assert places.read(run_dir) == []
    folder.put(sign(2))
    folder.put(sign(3))
    places.leave_own(run_dir, 2, well=True)
    assert places.read(run_dir) == [sign(3)]
    places.leave_own(run_dir, 3, well=True)
    assert not run_dir.exists()
    places.make_own(run_dir, first)
    folder.put(sign(2, words="no memory left"))
    places.leave_own(run_dir, 2, well=False)  # its launcher looks for that
    assert places.read(run_dir)[0].words == "no memory left"


def test_who_shares_the_folder_of_the_first_leaves_it_as_it_is(tmp_path):
    places.clear(tmp_path)
    folder = places.Folder(tmp_path)
    folder.put(sign(0, "a", beat=5))
    folder.put(sign(1, "a"))
    assert not places.make_own(tmp_path, sign(0, "a", beat=3))
    assert len(places.read(tmp_path)) == 2
