"""Two real trainings in a queue: one is stopped from a terminal, and goes on from its state."""

import json
import threading
import time

import pytest

from kit import demo
from kit.cli import main
from kit.events import Finished, Loaded, Stepped
from kit.hosts import gpus
from kit.queueing.outcome import LOG, numbers_of, run_dir_of
from kit.queueing.store import Queue
from kit.sinks.tail import Tail

pytestmark = pytest.mark.slow
STEPS = 40


def events_of(queue, number):
    run_dir = run_dir_of(queue.place(number))
    try:
        return Tail(run_dir / "events.jsonl").new()[0] if run_dir else []
    except FileNotFoundError:
        return []


def test_a_stopped_run_goes_on_and_a_sweep_ends_in_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORA_KIT_QUEUE", str(tmp_path / "queue"))
    queue = Queue(tmp_path / "queue")
    settings = demo.settings(steps=STEPS).replace(
        sample_prompts="",
        sample_every_n_steps=0,
        sample_at_first=False,
        reg_data_dir="",
        train_batch_size=1,
        output_name="ball",
        lr_warmup=0,
    )
    (tmp_path / "ball.toml").write_text(settings.to_toml(), "utf-8")
    assert main(["queue", "sweep", "ball.toml", "--set", "network_dim=2,4"]) == 0

    codes = []
    working = threading.Thread(target=lambda: codes.append(main(["queue", "run"])))
    working.start()
    end = time.monotonic() + 200
    while not any(isinstance(event, Stepped) for event in events_of(queue, 1)):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert main(["control", "output/ball_network_dim2", "stop"]) == 0
    working.join(400)
    assert codes == [0]
    assert [entry.state for entry in queue.read().entries] == ["stopped", "done"]
    stopped_at = numbers_of(queue.place(1)).step
    assert 0 < stopped_at < STEPS
    assert not (tmp_path / "output" / "ball_network_dim2.safetensors").exists()
    assert (tmp_path / "output" / "ball_network_dim4.safetensors").exists()

    assert main(["queue", "retry", "1"]) == 0
    capsys.readouterr()
    assert main(["queue", "run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0:3] for line in lines[-3:]] == [
        ["run", "name", "network_dim"],
        ["1", "ball_network_dim2", "2"],
        ["2", "ball_network_dim4", "4"],
    ]
    events = events_of(queue, 1)
    loaded = [event.from_step for event in events if isinstance(event, Loaded)]
    assert loaded[-1] == stopped_at
    assert [e.step for e in events if isinstance(e, Stepped)] == list(range(1, STEPS + 1))
    assert isinstance(events[-1], Finished)
    main(["queue", "table", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert all(row["loss"] > 0 and row["seconds"] > 0 for row in rows)
    assert [row["file"].rpartition("/")[2] for row in rows] == [
        "ball_network_dim2.safetensors", "ball_network_dim4.safetensors"
    ]  # fmt: skip
    assert not (tmp_path / "output" / "ball_network_dim2-2.run").exists()


@pytest.mark.long  # with a stand-in: test_working.py; two real ones: tests/launching
@pytest.mark.skipif(bool(gpus()), reason="on a CPU the numbers only say how many there are")
def test_a_run_of_two_processes_trains_in_a_queue_of_two_gpus(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORA_KIT_QUEUE", str(tmp_path / "queue"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    settings = demo.settings(steps=3).replace(
        sample_prompts="", sample_every_n_steps=0, sample_at_first=False, reg_data_dir="",
        train_batch_size=1, output_name="ball", num_processes=2,
    )  # fmt: skip
    (tmp_path / "ball.toml").write_text(settings.to_toml(), "utf-8")
    assert main(["queue", "add", "ball.toml"]) == 0
    assert main(["queue", "run", "--gpus", "0,1"]) == 0, capsys.readouterr().out
    assert "ball: begins on GPUs 0 and 1" in capsys.readouterr().out
    queue = Queue(tmp_path / "queue")
    [entry] = queue.read().entries
    assert (entry.state, entry.gpu) == ("done", "0,1")
    assert "2 processes" in (queue.place(1) / LOG).read_text("utf-8")
    assert (tmp_path / "output" / "ball.safetensors").exists()
