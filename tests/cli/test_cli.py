"""The command `kit`, in this process; what needs torch is stood in for."""

import importlib
import json
import os
import pkgutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from kit import __version__, cli
from kit.cli import COMMANDS, main
from kit.cli.command import Command
from kit.demo import BASE
from kit.errors import ModelError
from kit.events import Began, Finished, Loaded, Noticed, Saved, Stepped
from kit.hosts import Gpu
from kit.planning import plan
from kit.runs.made_of import keep
from kit.runs.measured import Measured, remember, work_of
from kit.runs.record import RunRecord, write_record
from kit.settings import Settings, declarations
from kit.sinks import read_events
from tests.support.pictures import folder_of


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with six images in images/10_cat."""
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "images", {"10_cat": [(64, 64)] * 6})
    return tmp_path


@pytest.fixture
def stand_in(monkeypatch):
    """Put functions in the place of a module that would load torch."""

    def put(module, **functions):
        made = types.ModuleType(module)
        vars(made).update(functions)
        monkeypatch.setitem(sys.modules, module, made)

    return put


ROOT = Path(__file__).parents[2]
SMALL = ["--set", "train_data_dir=images", "--set", "resolution=64"]


def refused(capsys, *words):
    """What is printed where the exit code is 2."""
    assert main(list(words)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("kit: ")
    assert "Traceback" not in err
    return err


# ------------------------------------------------------------------------------------ commands


def test_no_word_at_all_shows_the_help(capsys):
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"    {name} " in text
        assert command.help.split(",")[0] in " ".join(text.split())


def test_every_command_that_is_made_can_be_called():
    for module in pkgutil.iter_modules(cli.__path__):
        made = vars(importlib.import_module(f"kit.cli.{module.name}"))
        for name, value in made.items():
            if isinstance(value, Command):
                told = f"kit/cli/{module.name}.py: {name} has no row in COMMANDS"
                assert value in COMMANDS.values(), told


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_line_in_the_tour(name):
    told = f"write a line for kit {name} into the docstring of kit/cli/__init__.py"
    assert f"\n    kit {name} " in cli.__doc__, told


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(capsys, name):
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    assert f"usage: kit {name} " in capsys.readouterr().out


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"LoRA Kit {__version__}\n"


@pytest.mark.parametrize(("wrong", "meant"), [("trian", "train"), ("setings", "settings")])
def test_a_wrong_command_is_told_with_the_nearest(capsys, wrong, meant):
    text = refused(capsys, wrong, "run.toml")
    assert f"kit {wrong}: there is no such command; did you mean {meant}?" in text
    assert f"There are {', '.join(COMMANDS)}." in text


@pytest.mark.parametrize(
    ("words", "told", "takes"),
    [
        (
            ["plan", "--jsn"],
            "kit plan: --jsn is nothing that it takes; did you mean --json?",
            "--set",
        ),
        (["balance", "images"], "kit balance: images is nothing that it takes", "--dataset-folder"),
        (["demo", "--stepz=5"], "kit demo: --stepz=5 is nothing that it takes; did", "--steps"),
        (["queue", "table", "--foo"], "kit queue table: --foo is nothing that it takes", "--json"),
    ],
)
def test_a_word_that_a_command_does_not_take_is_told_with_those_that_it_takes(
    capsys, words, told, takes
):
    text = refused(capsys, *words)
    assert told in text
    assert takes in text.splitlines()[1]


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch):
    def broken(_settings, **_):
        raise ZeroDivisionError

    monkeypatch.setattr("kit.cli.unfinished.plan", broken)
    with pytest.raises(ZeroDivisionError):
        main(["plan"])


def test_ctrl_c_ends_without_a_traceback(monkeypatch, capsys):
    def pressed(_settings, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr("kit.cli.unfinished.plan", pressed)
    assert main(["plan"]) == 130
    assert capsys.readouterr().err == "\nkit: interrupted\n"


# ---------------------------------------------------------------------------------------- plan


def test_the_plan_is_printed_in_words(folder, capsys):
    assert main(["plan", *SMALL, "--set", "output_name=cats"]) == 0
    text = capsys.readouterr().out
    assert "6 images, with repeats 60" in text
    assert "cats.safetensors" in text
    assert "! pretrained_model_name_or_path is blank" in text
    assert text.endswith("Time and memory are not known on this machine yet.\n")


def test_the_plan_tells_time_and_memory_as_the_form_does(folder, capsys, monkeypatch):
    monkeypatch.setenv("LORA_KIT_CACHE", str(folder / "cache"))
    monkeypatch.setattr("kit.planning.forecast.gpu", lambda: Gpu("Tesla T4", 15_000))
    asked = Settings().replace(resolution="64", pretrained_model_name_or_path=str(BASE))
    work = work_of(asked, "sd1")
    remember(Measured("Tesla T4", work, 2.0, 9_800))
    words = [*SMALL, "--set", f"pretrained_model_name_or_path={BASE}"]
    words += ["--set", "max_train_steps=420"]
    assert main(["plan", *words]) == 0
    assert capsys.readouterr().out.endswith("\nAbout 14 min on this T4, 9.8 of 15 GB.\n")
    assert main(["plan", *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["forecast"]
    assert told == "About 14 min on this T4, 9.8 of 15 GB"


def test_the_plan_is_printed_as_numbers(folder, capsys):
    words = [*SMALL, "--set", "train_batch_size=4", "--set", "basic.epoch=3", "--json"]
    assert main(["plan", *words]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["images"] == 6
    assert numbers["batches_per_epoch"] == numbers["steps_per_epoch"] == 15
    assert numbers["total_steps"] == 45
    assert numbers["saves"] == [15, 30]
    assert any("is blank" in notice for notice in numbers["notices"])


def test_planning_writes_nothing(folder):
    before = sorted(folder.rglob("*"))
    assert main(["plan", *SMALL]) == 0
    assert sorted(folder.rglob("*")) == before


def test_settings_come_from_a_file_and_changes_count_more(folder, capsys):
    Path("run.toml").write_text(
        'train_data_dir = "images"\nresolution = 64\nepoch = 2\nseed = 5\n', "utf-8"
    )
    assert main(["plan", "run.toml", "--json", "--set", "epoch=3"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert (numbers["total_steps"], numbers["seed"]) == (180, 5)


def test_the_last_of_two_changes_counts(folder, capsys):
    assert main(["plan", *SMALL, "--json", "--set", "epoch=3", "--set", "basic.epoch=2"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["epochs"] == 2
    assert err == "! --set epoch=3 is not used: '2' comes after it\n"  # never in silence


def test_an_empty_change_is_a_blank(folder, capsys):
    words = ["--set", "save_every_n_epochs=", "--set", "epoch=3", "--json"]
    assert main(["plan", *SMALL, *words]) == 0
    assert json.loads(capsys.readouterr().out)["saves"] == []


def test_a_value_may_contain_an_equals_sign(folder, capsys):
    words = ["--set", "optimizer_args=weight_decay=0.1 eps=1e-8"]
    assert main(["plan", *SMALL, *words]) == 0


def test_all_problems_are_told_at_once(folder, capsys):
    Path("run.toml").write_text("network_dimm = 3\n", "utf-8")
    words = ["plan", "run.toml"]
    for change in ("epoch=0", "epohc=3", "noise.network_dim=4", "network_dim", "=3"):
        words += ["--set", change]
    text = refused(capsys, *words)
    assert "6 settings need a change:" in text
    for problem in (
        "network_dimm: no such setting; did you mean network_dim?",
        "[basic] epoch: 0 is outside of what is possible",
        "epohc: no such setting; did you mean epoch?",
        "--set noise.network_dim=4: network_dim is in [network], not [noise]",
        "--set network_dim: write NAME=VALUE, such as network_dim=16",
        "--set =3: write NAME=VALUE",
    ):
        assert problem in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["plan", "none.toml"], "none.toml: cannot be read"),
        (["plan"], "train_data_dir is blank."),
        (["plan", "--set", "train_data_dir=nowhere"], "train_data_dir = nowhere does not exist."),
        (["plan", *SMALL, "--set", "random_crop=true"], "[images] random_crop: "),
    ],
)
def test_what_a_person_can_change_is_told_without_a_traceback(folder, capsys, words, told):
    assert told in refused(capsys, *words)


# --------------------------------------------------------------------------------------- train


def a_training(planned, control=None):
    planned.run.dir.mkdir(parents=True)
    yield Began(str(planned.run.dir), planned.run.name, planned.total_steps)
    yield Noticed("from the run")
    yield Loaded("Stable Diffusion 1.x", "cpu", "no", 1, 1, 0)
    for step in range(1, planned.total_steps + 1):
        yield Stepped(step, 0.1, 0.5, 0.5, {"unet": 1e-4})
    path = str(planned.run.file(""))
    yield Saved(planned.total_steps, 1, path)
    yield Finished(planned.total_steps, "done", path)


def test_training_is_shown_and_kept(folder, capsys, stand_in):
    stand_in("kit.training.loop", train=a_training)
    assert main(["train", *SMALL, "--set", "max_train_steps=5", "--set", "output_name=cats"]) == 0
    out, err = capsys.readouterr()
    assert "6 images, with repeats 60" in out
    assert "! " not in out, "a run's notices come as its events"
    assert "! from the run" in err
    assert "steps 5/5 (100 %)" in err
    assert "done, at step 5" in err
    run = folder / "output" / "cats.run"
    assert [type(event).__name__ for event in read_events(run / "events.jsonl")] == [
        "Began", "Noticed", "Loaded", *["Stepped"] * 5, "Saved", "Finished"
    ]  # fmt: skip
    assert (run / "loss.png").exists()


def test_an_error_of_the_training_is_told_without_a_traceback(folder, capsys, stand_in):
    def train(planned, control):
        planned.run.dir.mkdir(parents=True)
        yield Began(str(planned.run.dir), planned.run.name, planned.total_steps)
        raise ModelError("pretrained_model_name_or_path is blank.", do="Set it.")

    stand_in("kit.training.loop", train=train)
    assert main(["train", *SMALL]) == 2
    assert capsys.readouterr().err.endswith(
        "kit: pretrained_model_name_or_path is blank.\nSet it.\n"
    )


@pytest.mark.parametrize(("reason", "code"), [("done", 0), ("asked to stop", 3)])
def test_a_stopped_training_has_an_exit_code_of_its_own(folder, stand_in, reason, code):
    stand_in("kit.training.loop", train=lambda plan, control: iter([Finished(1, reason)]))
    assert main(["train", *SMALL]) == code


def test_one_of_several_processes_ends_with_0_after_a_stop(folder, stand_in, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    stand_in("kit.training.loop", train=lambda plan, control: iter([Finished(1, "asked to stop")]))
    assert main(["train", *SMALL]) == 0
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert main(["train", *SMALL]) == 3


def test_the_demo_is_for_one_process(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["demo"]) == 2
    assert "kit demo is for one process, and 2 were launched" in capsys.readouterr().err


def test_a_terminal_tells_both_commands_where_a_caption_was_corrected(folder, capsys, stand_in):
    found = plan(Settings().replace(train_data_dir="images", resolution="64"))
    found.run.own_state.mkdir(parents=True)
    (found.run.own_state / "state.pt").touch()
    write_record(found.run.dir, RunRecord(found.run.fingerprint, found.seed, 20))
    assert keep(found.run.dir, found.made_of) == ""
    (folder / "images" / "10_cat" / "002.txt").write_text("a dog")
    asked = ["train", *SMALL, "--set", "training_comment=two words"]
    told = refused(capsys, *asked)
    assert "last is not finished (step 20)" in told
    assert 'caption of 10_cat/002.png changed (it began "cat")' in told
    command = "kit train --set train_data_dir=images --set resolution=64 --set "
    command += "'training_comment=two words'"
    assert f"To go on with it:            {command} --go-on\n" in told
    assert f"To begin anew as last-2: {command} --begin-anew\n" in told

    begun = []

    def train(plan, control):
        begun.append(plan)
        yield Finished(1, "done")

    stand_in("kit.training.loop", train=train)
    assert main([*asked, "--go-on"]) == 0
    assert main([*asked, "--begin-anew"]) == 0
    assert [(plan.run.name, plan.from_step) for plan in begun] == [("last", 20), ("last-2", 0)]
    capsys.readouterr()
    assert main(["plan", *SMALL, "--json"]) == 0
    unfinished = json.loads(capsys.readouterr().out)["unfinished"]
    assert (unfinished["name"], unfinished["asks"]) == ("last", True)


def test_settings_are_refused_before_the_training_is_loaded(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "kit.training.loop", None)
    assert "epoch: 0 is outside" in refused(capsys, "train", *SMALL, "--set", "epoch=0")


def test_a_missing_torch_is_told_with_what_to_install(folder):
    # In a process of its own: half of the modules are loaded here already.
    script = "import sys; sys.modules['torch'] = None; from kit.cli import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script, "train", *SMALL],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 2
    assert "kit: The package torch is not installed or does not load" in done.stderr
    assert "Traceback" not in done.stderr


def test_output_that_nobody_reads_to_the_end_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m kit settings | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stdout == "[model]\n"
    assert done.stderr == ""


# -------------------------------------------------------------------- settings, demo, inspect


def test_settings_are_printed_as_a_file_that_can_be_used(folder, capsys):
    assert main(["settings"]) == 0
    text = capsys.readouterr().out
    Path("run.toml").write_text(text, "utf-8")
    assert Settings.load("run.toml") == Settings()
    assert main(["settings", "--toml"]) == 0
    assert capsys.readouterr().out == text


def test_settings_are_printed_as_a_list_for_programs(capsys):
    assert main(["settings", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(declarations())
    for row in rows:
        assert set(row) == {
            "name", "section", "box", "label", "help", "type", "default", "optional", "choices",
            "between", "unit", "gui_key", "families", "source", "possible",
            "shapes_run", "resumes", "search",
        }  # fmt: skip
        assert row["type"] in {"int", "float", "bool", "str", "choice", "path", "text"}
        assert set(row["families"]) <= {"sd1", "sd2", "sdxl"}
    by_name = {row["name"]: row for row in rows}
    assert by_name["network_dim"]["default"] == 8
    assert by_name["optimizer_type"]["gui_key"] == "optimizer"
    assert by_name["seed"]["default"] is None


def test_settings_are_printed_as_tables(capsys):
    assert main(["settings", "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    assert len(rows) == len(declarations())
    assert {line.replace("\\|", "").count("|") for line in rows} == {6}
    assert "## Parameters / Basic" in lines
    assert any(r"folders named \<repeats\>\_\<word\>" in line for line in rows)


def test_only_one_form_of_settings_can_be_asked_for(capsys):
    with pytest.raises(SystemExit) as left:
        main(["settings", "--json", "--toml"])
    assert left.value.code == 2


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ([], (Path("output"), 1, None)),
        (["--out", "there", "--seed", "7", "--steps", "30"], (Path("there"), 7, 30)),
    ],
)
def test_the_demo_is_handed_its_options(stand_in, words, asked):
    heard = []

    def run(out, *, seed, steps):
        heard.append((out, seed, steps))
        return Finished(3, "done", "zib-ball.safetensors")

    stand_in("kit.demo.run", main=run)
    assert main(["demo", *words]) == 0
    assert heard == [asked]


def test_a_demo_that_was_stopped_ends_as_a_training_does(stand_in):
    stand_in("kit.demo.run", main=lambda out, *, seed, steps: Finished(3, "asked to stop"))
    assert main(["demo"]) == 3


def test_a_file_is_inspected_for_people_and_for_programs(stand_in, capsys):
    stand_in(
        "kit.tools.inspecting",
        inspect=lambda path: {"file": path.name, "ranks": {"8": 3}},
        describe=lambda report: f"the file {report['file']}",
    )
    assert main(["inspect", "cat.safetensors"]) == 0
    assert capsys.readouterr().out == "the file cat.safetensors\n"
    assert main(["inspect", "cat.safetensors", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ranks"] == {"8": 3}


def test_a_file_that_cannot_be_inspected_is_refused(tmp_path, capsys):
    path = tmp_path / "cat.safetensors"
    path.write_bytes(b"no")
    assert "cat.safetensors" in refused(capsys, "inspect", str(path))
