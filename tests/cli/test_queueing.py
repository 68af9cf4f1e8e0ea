"""`kit queue`."""

import json
import sys

import pytest

from kit.cli import main
from kit.events import Began, Finished, Saved, Stepped, Validated, to_line
from kit.queueing import working
from kit.queueing.outcome import RUN_DIR
from kit.queueing.starting import ENDED
from kit.queueing.store import Entry, Queue
from kit.settings import Settings


@pytest.fixture
def queue(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(working, "PERIOD", 0.05)
    monkeypatch.setenv("LORA_KIT_QUEUE", str(tmp_path / "queue"))
    for name in ("cat", "dog"):
        settings = Settings().replace(
            pretrained_model_name_or_path="base.safetensors",
            train_data_dir="images",
            output_name=name,
        )
        (tmp_path / f"{name}.toml").write_text(settings.to_toml(), "utf-8")
    return Queue(tmp_path / "queue")


def refused(capsys, *words):
    assert main(list(words)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("kit: ")
    return err


def told(capsys, *words, code=0):
    assert main(list(words)) == code
    return capsys.readouterr().out


def run(queue, number, *happened, code=0, name="cat"):
    """Let a run have told this, and ended with this code."""
    run_dir = queue.folder.parent / "output" / f"{name}.run"
    run_dir.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{to_line(event)}\n" for event in happened)
    (run_dir / "events.jsonl").write_text(text, "utf-8")
    (queue.place(number) / RUN_DIR).write_text(str(run_dir), "utf-8")
    (queue.place(number) / ENDED).write_text(json.dumps({"code": code}), "utf-8")
    with queue.changing() as content:
        [entry] = [each for each in content.entries if each.number == number]
        content.put(Entry(**{**vars(entry), "state": "started"}))


def ended(name, loss, seconds):
    path = f"output/{name}.safetensors"
    return (
        Began(f"output/{name}.run", name, 2),
        Stepped(1, 0.5, 9.0, 9.0, seconds=seconds / 2),
        Stepped(2, 1.0, loss, loss, seconds=seconds / 2),
        Saved(2, 1, path),
        Finished(2, "done", path),
    )


def test_an_empty_queue_says_how_to_fill_it_and_makes_no_folder(queue, capsys):
    assert told(capsys, "queue") == "The queue is empty: kit queue add run.toml\n"
    assert told(capsys, "queue", "run") == "The queue is empty: kit queue add run.toml\n"
    assert not queue.folder.exists()


def test_runs_are_added_listed_ordered_and_taken_out(queue, capsys):
    assert told(capsys, "queue", "add", "cat.toml", "dog.toml", "--set", "network_dim=4") == (
        "1 cat: waits\n2 dog: waits\nkit queue run works it off\n"
    )
    assert Settings.load(queue.settings_file(2)).network.network_dim == 4
    told(capsys, "queue", "move", "2", "1")
    assert told(capsys, "queue").splitlines()[1:] == [
        "1.  2    dog   waiting",
        "2.  1    cat   waiting",
        "Nobody works it off: kit queue run",
    ]
    told(capsys, "queue", "pause")
    assert "It is paused" in told(capsys, "queue", "list")
    told(capsys, "queue", "resume")
    told(capsys, "queue", "pause", "1")
    assert "cat   paused" in told(capsys, "queue", "--queue", str(queue.folder))
    told(capsys, "queue", "remove", "1", "--queue", str(queue.folder))
    assert [entry.name for entry in queue.read().entries] == ["dog"]


def test_the_list_tells_how_far_each_has_come(queue, capsys):
    told(capsys, "queue", "add", "cat.toml", "dog.toml")
    run(queue, 1, *ended("cat", 0.25, 8.0))
    (queue.folder.parent / "output").mkdir(exist_ok=True)
    run(queue, 2, *ended("dog", 0.5, 8.0)[:2], code=2, name="dog")
    lines = told(capsys, "queue").splitlines()
    assert lines[1] == "1.  1    cat   done    2/2   0.2500  output/cat.safetensors"
    assert lines[2] == "2.  2    dog   failed  1/2   9.0000"
    assert lines[3] == "2: exit code 2"


def test_settings_that_are_refused_are_not_added(queue, capsys):
    err = refused(capsys, "queue", "add", "cat.toml", "dog.toml", "--set", "gpu_ids=first")
    assert err.startswith("kit: 2 settings need a change:\n  - cat.toml: [machine] gpu_ids")
    assert queue.read().entries == []


def test_a_token_in_a_link_is_in_no_file_of_the_queue(queue, capsys):
    link = "https://civitai.com/api/download/models/1?token=abcdef0123456789"
    out = told(capsys, "queue", "add", "cat.toml", "--set", f"pretrained_model_name_or_path={link}")
    assert "! pretrained_model_name_or_path: the token of the link to civitai.com" in out
    files = [path for path in queue.folder.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert not any("abcdef0123456789" in path.read_text("utf-8") for path in files)


def test_a_sweep_adds_all_combinations_or_none(queue, capsys):
    words = ["queue", "sweep", "cat.toml", "--set", "network_dim=8,16", "--set", "seed=7"]
    refused(capsys, *words, "--set", "unet_lr=1e-4,-3")
    refused(capsys, *words, "--set", 'resolution="512,768')
    assert queue.read().entries == []
    told(capsys, *words, "--set", "unet_lr=1e-4,3e-4")
    entries = queue.read().entries
    assert [entry.name for entry in entries] == [
        f"cat_network_dim{rank}_unet_lr{rate}" for rank in (8, 16) for rate in ("1e-4", "3e-4")
    ]
    assert {entry.sweep for entry in entries} == {1}
    assert {Settings.load(queue.settings_file(n)).basic.seed for n in (1, 2, 3, 4)} == {7}


def test_what_stands_twice_is_told_with_both_values(queue, capsys):
    there = str(queue.folder)
    assert main(["queue", "--queue", "a", "--queue", "b", "list", "--queue", there]) == 0
    err = capsys.readouterr().err.splitlines()
    assert err == [
        "! --queue a is not used: 'b' comes after it",
        f"! --queue b is not used: {there!r} comes after it",
    ]
    words = ["queue", "sweep", "cat.toml", "--set", "network_dim=4", "--set", "network_dim=8,16"]
    assert main([*words, "--queue", there, "--queue", there]) == 0
    out, err = capsys.readouterr()
    assert err == "! --set network_dim=4 is not used: '8,16' comes after it\n"
    assert "cat_network_dim16: waits" in out


def test_a_sweep_of_one_run_is_none(queue, capsys):
    err = refused(capsys, "queue", "sweep", "cat.toml", "--set", "network_dim=8")
    assert "no setting has more than one value" in err


def test_a_sweep_ends_in_one_table(queue, capsys):
    told(capsys, "queue", "add", "dog.toml")
    told(capsys, "queue", "sweep", "cat.toml", "--set", "network_dim=8,16")
    run(queue, 2, *ended("a", 0.25, 8.0), Validated(2, 1.0, 0.125, 0.5), name="a")
    run(queue, 3, *ended("b", 0.5, 6.0), name="b")
    assert told(capsys, "queue", "table").splitlines() == [
        "run  name               network_dim  state  loss  validation loss  seconds  file",
        "2    cat_network_dim8   8            done   0.25  0.125            8        "
        "output/a.safetensors",
        "3    cat_network_dim16  16           done   0.5                    6        "
        "output/b.safetensors",
    ]
    rows = json.loads(told(capsys, "queue", "table", "--json", "3"))
    assert rows == [
        {"run": 3, "name": "cat_network_dim16", "state": "done", "loss": 0.5,
         "validation loss": None, "seconds": 6.0, "file": "output/b.safetensors"}
    ]  # fmt: skip
    assert "no run 9" in refused(capsys, "queue", "table", "9")


def test_the_queue_is_worked_off_and_a_sweeps_table_is_its_end(queue, capsys, monkeypatch):
    told(capsys, "queue", "sweep", "cat.toml", "--set", "network_dim=8,16")
    code = "import sys; sys.exit(sys.argv[1] == '2')"
    monkeypatch.setattr(
        working, "train_command", lambda place, gpu: [sys.executable, "-c", code, place.name]
    )
    out = told(capsys, "queue", "run", code=2)
    assert "1 cat_network_dim8: begins" in out
    assert "2 cat_network_dim16: failed: exit code 1" in out
    assert [line.split() for line in out.splitlines()[-3:]] == [
        ["run", "name", "network_dim", "state"],
        ["1", "cat_network_dim8", "8", "done"],
        ["2", "cat_network_dim16", "16", "failed"],
    ]
    told(capsys, "queue", "retry", "2")
    assert queue.read().entries[1].state == "waiting"


@pytest.mark.parametrize("gpus", ["a", "-1", "0;1"])
def test_gpus_are_numbers(queue, capsys, gpus):
    assert "Write --gpus 0,1" in refused(capsys, "queue", "run", f"--gpus={gpus}")
