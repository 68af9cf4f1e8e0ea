"""How long a process waits for the others: by its own clock, which may have stood still."""

from types import SimpleNamespace

import pytest
import torch

from kit.errors import ProcessLost
from kit.processes import Processes
from kit.processes.heartbeats import Heart, Watch
from kit.processes.places import Folder, clear, path_of, read_one
from kit.processes.signs import Sign
from kit.training import ranks, waiting
from kit.training.shared_gradient import SharedGradient


class Work:
    """Something that all processes do together, which is done so many looks later."""

    def __init__(self, looks):
        self.looks = looks

    def is_completed(self):
        self.looks -= 1
        return self.looks < 0

    def wait(self):
        pass


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass between two looks, a jump at a time; the last one stays."""
    now, jumps = [100.0], [0.01]

    def sleep(_):
        now[0] += jumps.pop(0) if len(jumps) > 1 else jumps[0]

    monkeypatch.setattr(waiting.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(waiting.time, "sleep", sleep)
    return jumps


@pytest.fixture
def here(tmp_path):
    (tmp_path / "toy.run").mkdir()
    made = ranks.Ranks(Processes(2, 0))
    made._watch = Watch([Folder(tmp_path / "toy.run")], [1])
    return made


def sign(here, tmp_path):
    heart = Heart(1, [Folder(tmp_path / "toy.run")])
    heart.doing = "step 3"
    heart.last_words("")
    heart.stop()
    here._watch.signs()


def test_a_process_that_was_stopped_with_the_others_blames_nobody(here, tmp_path, clock):
    clear(tmp_path / "toy.run")
    sign(here, tmp_path)
    clock[:] = [0.01, 3600.0, 0.5]  # the machine slept
    here._finish(Work(20), 40.0)
    clock[:] = [0.5]
    with pytest.raises(ProcessLost, match=r"Process 1 .* hangs at step 3"):
        here._finish(Work(200))


def test_who_is_late_is_lost(here, clock):
    clock[:] = [0.5]
    here._finish(Work(60), 40.0)
    with pytest.raises(ProcessLost, match=r"its part did not come for 4\d s"):
        here._finish(Work(100), 40.0)


def test_who_closed_a_connection_on_another_machine_is_named_and_the_others_hear_it_first(
    here, tmp_path, clock
):
    class Closed(Work):
        def wait(self):
            raise RuntimeError("Connection closed by peer")

    run_dir = tmp_path / "toy.run"
    clear(run_dir)
    Folder(run_dir).put(Sign(1, 4711, "elsewhere", "step 3"))
    here.heart = Heart(0, [Folder(run_dir)])
    with pytest.raises(ProcessLost, match=r"^Process 1 \(pid 4711 on elsewhere\) ended at step 3"):
        here.finish(Closed(2))
    here.heart.stop()
    own = read_one(path_of(run_dir, 0))
    assert own.heard and own.words.startswith("Process 1 (pid 4711 on elsewhere) ended at step 3")


def test_a_first_step_may_take_as_long_as_compilers_do(tmp_path, monkeypatch):
    weight = torch.nn.Parameter(torch.zeros(3))
    here, limits = ranks.Ranks(Processes(2, 1)), []

    class Dist:
        def all_reduce(self, buffer, async_op):
            return Work(0)

    monkeypatch.setattr(ranks, "distributed", Dist)
    monkeypatch.setattr(ranks.Ranks, "_finish", lambda self, work, limit: limits.append(limit))
    shared = SharedGradient(here, torch.optim.SGD([weight], 0.1), gathered=2, rows=1)
    for step in (1, 2):
        shared.begin(step, range(2))
        shared.add_up([])
    assert limits == [waiting.FIRST_PATIENCE, waiting.LEAST_PATIENCE]


def test_what_nccl_still_waits_for_is_ended_before_a_state_is_kept(here, clock, monkeypatch):
    ended = []

    class World:
        def _get_backend(self, device):
            return SimpleNamespace(abort=lambda: ended.append(device.type))

    monkeypatch.setattr(
        waiting, "distributed", lambda: SimpleNamespace(group=SimpleNamespace(WORLD=World()))
    )
    clock[:] = [0.5]
    for is_gpu in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=is_gpu: there)
        with pytest.raises(ProcessLost):
            here._finish(Work(1000), 40.0)
    assert ended == ["cuda"]
