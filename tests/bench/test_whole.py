"""`kit bench --whole-run`: a training as a program, beside the bare step. No time is looked at."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from kit.bench import against, suite, whole
from kit.bench.report import COLUMNS, table
from kit.bench.sd_scripts import Checkout
from kit.bench.whole import beside_step, whole_run
from kit.bench.work import Work
from kit.cli import main
from kit.errors import KitError
from tests.support.tiny import write_tiny

SMALL = Work("sd15", 64)


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A small base model in the place of the one of real size."""
    model = write_tiny(tmp_path / "model", "sd1", thin=True)
    monkeypatch.setattr(against, "saved_base", lambda folder, key, dtype: model)
    return model


@pytest.fixture
def left_behind(monkeypatch):
    """What lies in the output folder when the program has ended."""
    found, ran = [], whole.run_program

    def looked_at(command, **how):
        ended = ran(command, **how)
        room = Path(command[-1]).parent / "out"
        found.extend(sorted(path.name for path in room.rglob("*") if path.is_file()))
        return ended

    monkeypatch.setattr(whole, "run_program", looked_at)
    return found


def test_a_whole_run_saves_two_files_and_tells_its_steps(base, left_behind):
    told = whole_run(SMALL, steps=6)
    assert told["steps"] == 6
    assert min(told["seconds"], told["seconds_with_warm_up"], told["cpu_seconds"]) > 0
    files = [name for name in left_behind if name.endswith(".safetensors")]
    assert files == ["bench-step00000003.safetensors", "bench.safetensors"]
    assert {"events.jsonl", "loss.png"} <= set(left_behind)


def test_a_run_whose_time_is_over_says_so(base):
    told = whole_run(SMALL, steps=400, seconds=0.5)
    assert told["why_not"] == "its time was over after 0 of 400 steps"
    assert beside_step(told, 1.0) == told


def test_the_share_is_the_steps_time_of_the_runs():
    assert beside_step({"seconds": 0.016, "steps": 400}, 0.015)["share_of_step"] == 0.9375


@pytest.fixture
def measured(monkeypatch):
    """The bare step takes 15 ms, a run 16 a step."""
    asked = []

    def run(work, *, steps, seconds):
        asked.append((steps, seconds))
        return {"steps": steps, "seconds": 0.016}

    def measure(work, **how):
        return {
            "work": vars(work), "hardware": {"device": "a GPU"}, "host_peak_mib": 1,
            "device_peak_mib": 1, "phase_seconds": {}, "tflop": 1,
            "ours": {"seconds": {"median": 0.015}, "images_per_second": 1.0},
        }  # fmt: skip

    monkeypatch.setattr(suite, "whole_run", run)
    monkeypatch.setattr(suite, "measure", measure)
    return asked


def test_it_is_one_more_row_of_the_table(measured, capsys):
    main(["bench", "--whole-run", "400", "--seconds", "60"])
    row = capsys.readouterr().out.splitlines()[4]
    assert [cell.strip() for cell in row.strip("|").split("|")][-1] == "0.94"
    assert measured == [(400, 60.0)]
    main(["bench", "--whole-run", "400", "--json"])
    assert json.loads(capsys.readouterr().out)["whole_run"]["share_of_step"] == 0.9375
    main(["bench"])
    assert len(measured) == 2
    assert capsys.readouterr().out.splitlines()[4].split("|")[-2].strip() == "-"


@pytest.mark.parametrize(
    ("device", "asked", "wanted"), [("cuda", 0, [400, 0]), ("cpu", 0, [0, 0]), ("cpu", 9, [9, 0])]
)
def test_of_all_works_the_first_is_trained_where_that_takes_seconds(
    tmp_path, monkeypatch, device, asked, wanted
):
    given = []

    def here(work, *, whole, **_):
        given.append(whole)
        return "not here"

    monkeypatch.setattr(suite, "_in_process", here)
    monkeypatch.setattr(suite, "choose_device", lambda: SimpleNamespace(type=device))
    works = [SMALL, Work("sd21", 64)]
    with pytest.raises(KitError, match="Nothing could be measured"):
        suite.several(tmp_path, minutes=5, works=works, whole=asked, tell=lambda line: None)
    assert given == wanted


def test_beside_a_program_it_is_refused(tmp_path):
    beside = Checkout(tmp_path, "python")
    how = {"beside": beside, "steps": 1}
    with pytest.raises(KitError, match="--whole-run 9 has no effect beside a program"):
        suite.one(SMALL, warm_up=1, seconds=0, began=0, whole=9, **how)
    with pytest.raises(KitError, match="--whole-run 9 has no effect beside a program"):
        suite.several(tmp_path, minutes=1, whole=9, **how)


@pytest.mark.parametrize("word", ["2", "-1", "0"])
def test_too_few_steps_are_refused(word, capsys):
    with pytest.raises(SystemExit):
        main(["bench", f"--whole-run={word}"])
    assert "too few: 3 at least" in capsys.readouterr().err


def test_the_table_has_a_column_for_it():
    result = {
        "work": vars(SMALL), "ours": {"seconds": {"median": 1.0}, "images_per_second": 1.0},
        "whole_run": {"why_not": "its time was over"},
    }  # fmt: skip
    assert table([result]).splitlines()[2].count("|") == len(COLUMNS) + 1
