"""TensorBoard and Weights & Biases: what they are told, how a run goes on there, what breaks."""

import io
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from kit import catalog
from kit.errors import SettingsError
from kit.events import Event, Finished, Noticed, Stepped, Validated
from kit.runs.run import Run
from kit.settings import Settings, effective
from kit.settings.rules import notices, problems
from kit.sinks import listening
from kit.sinks.background import Background
from kit.sinks.scalars import scalars
from kit.sinks.wandb_log import WeightsAndBiases
from tests.support.loggers import (
    event_files,
    read_tensorboard,
    read_wandb,
    remembering_wandb,
    story,
)

STEP_TAGS = {"loss/current", "loss/average", "lr/unet", "lr/textencoder", "norm/grad_norm"}


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "out", "cat", "safetensors", "print")


@pytest.fixture
def wandb(monkeypatch, tmp_path):
    module, started, told = remembering_wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return started, told


def live(run, settings, events=None):
    """Tell a run's story; returns what other listeners hear."""
    heard: list[Event] = []
    with listening(run, heard.append, settings=settings) as tell:
        for event in events or story(run):
            tell(event)
    return heard


def noticed(heard):
    return [event.text for event in heard if isinstance(event, Noticed)]


# ------------------------------------------------------------------------------- TensorBoard


@pytest.fixture
def boarded(tmp_path):
    return Settings().replace(logging_dir=str(tmp_path / "logs"))


def test_tensorboard_reads_the_tags_that_users_know(run, boarded, tmp_path):
    assert noticed(live(run, boarded)) == []
    (file,) = tmp_path.joinpath("logs").rglob("*tfevents*")
    assert event_files(tmp_path / "logs") == ["TIME/network_train/EVENTS"]
    told = read_tensorboard(file.parent)
    assert told.keys() == {*STEP_TAGS, "loss/epoch_average", "sample_0"}
    assert [step for step, _ in told["loss/current"]] == [1, 2, 3, 4]
    assert told["lr/unet"][1] == (2, pytest.approx(5e-4))
    assert told["lr/textencoder"][0] == (1, pytest.approx(1e-4))
    assert told["loss/epoch_average"] == [(1, 1.0), (2, 1.0)]
    ((step, (width, height, png)),) = told["sample_0"]
    assert (step, width, height) == (4, 64, 64)
    assert Image.open(io.BytesIO(png)).size == (64, 64)


def test_the_rate_in_effect_of_an_adaptive_optimizer_has_a_tag_of_its_own():
    step = Stepped(1, 1.0, 0.5, 0.5, rates={"unet": 2e-4}, given_rates={"unet": 1.0})
    told = scalars(step)
    assert (told["lr/unet"], told["lr/d*lr/unet"]) == (1.0, 2e-4)


def measured(step, epoch, **changes):
    return Validated(step, epoch, 0.3, 0.5, bands=(0.2, None), **{"loss_average": 0.1, **changes})


def with_validation(run):
    """A story of four steps, two an epoch, with two validations."""
    told = story(run)
    places = [i for i, event in enumerate(told) if isinstance(event, Stepped)]
    told.insert(places[-1] + 1, measured(4, 2.0, gap=0.2, auc=0.75))
    told.insert(places[0] + 1, measured(1, 0.5, prior_loss=0.25, prior_base_loss=0.125))
    return told


def test_tensorboard_shows_validation_under_the_tags_of_sd_scripts(run, boarded, tmp_path):
    live(run, boarded, with_validation(run))
    (file,) = tmp_path.joinpath("logs").rglob("*tfevents*")
    told = {
        name.removeprefix("loss/validation/"): [(x, pytest.approx(y)) for x, y in values]
        for name, values in read_tensorboard(file.parent).items()
        if name.startswith("loss/validation/")
    }
    assert told["step_average"] == [(1, 0.3), (4, 0.3)]
    assert told["step_divergence"] == [(1, 0.2), (4, 0.2)]
    assert told["epoch_average"] == [(2, 0.3)] and told["epoch_divergence"] == [(2, 0.2)]
    assert told["base_model"] == [(1, 0.5), (4, 0.5)] and told["band_0"] == [(1, 0.2), (4, 0.2)]
    assert told["overfit_auc"] == [(4, 0.75)] and told["overfit_gap"] == [(4, 0.2)]
    assert "band_1" not in told
    assert told["class_word"] == [(1, 0.25)] and told["class_word_base_model"] == [(1, 0.125)]


def test_weights_and_biases_hears_validation_too(run, wandb):
    _, told = wandb
    live(run, Settings().replace(log_with="wandb"), with_validation(run))
    first, last = [(step, each) for step, each in told if "loss/validation/step_average" in each]
    assert (first[0], last[0]) == (1, 4)
    assert "loss/validation/epoch_average" not in first[1]
    assert last[1]["loss/validation/epoch_average"] == 0.3 and last[1]["epoch"] == 2.0
    assert last[1]["global_step"] == 4 and last[1]["loss/validation/overfit_auc"] == 0.75


def test_a_run_that_goes_on_continues_its_curves_and_takes_back_what_is_made_again(
    run, boarded, tmp_path
):
    live(run, boarded, story(run, steps=6, loss=1.0)[:-1])
    live(replace(run, from_step=3), boarded, story(run, steps=8, start=3, loss=9.0))
    files = list(tmp_path.joinpath("logs").rglob("*tfevents*"))
    assert len(files) == 2
    assert len({file.parent for file in files}) == 1
    told = read_tensorboard(files[0].parent)["loss/average"]
    assert told == [(1, 1.0), (2, 1.0), (3, 1.0), *((step, 9.0) for step in range(4, 9))]


def test_a_run_that_begins_anew_has_a_folder_of_its_own(run, boarded, tmp_path):
    live(run, boarded)
    live(run, boarded)
    assert len(list(tmp_path.joinpath("logs").iterdir())) == 2


def test_settings_go_along_as_a_text_without_places_and_secrets(run, boarded, tmp_path):
    asked = boarded.replace(log_config=True, train_data_dir="/home/anna/cats", network_dim=7)
    live(run, asked)
    (file,) = tmp_path.joinpath("logs").rglob("*tfevents*")
    ((_, text),) = read_tensorboard(file.parent)["settings"]
    assert "| network_dim | 7 |" in text
    assert "| train_data_dir | cats |" in text
    assert "anna" not in text


def test_a_logging_folder_that_cannot_be_written_is_told_once_and_ends_nothing(run, tmp_path):
    (tmp_path / "logs").write_text("a file")
    heard = live(run, Settings().replace(logging_dir=str(tmp_path / "logs")))
    (text,) = noticed(heard)
    assert text.startswith("TensorBoard failed and is muted; the run goes on")
    assert isinstance(heard[-1], Finished)


def test_tensorboard_is_written_without_torch_and_tensorflow():
    code = (
        "import sys; from kit.sinks.tensorboard_log import _load\n"
        "_load('summary.writer.record_writer:RecordWriter')\n"
        "print({'torch', 'tensorflow'} & {*sys.modules})"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


# ---------------------------------------------------------------------------- Weights & Biases


def test_weights_and_biases_hears_the_same_tags_with_step_and_epoch(run, wandb):
    started, told = wandb
    live(run, Settings().replace(log_with="wandb", log_config=True, network_dim=7))
    (options,) = started
    assert (options["project"], options["name"], options["mode"]) == (
        "network_train", "cat", "offline",
    )  # fmt: skip
    assert options["config"]["network_dim"] == 7
    assert told[-1] == (-1, "finished")
    assert told[0][0] == 1
    assert told[0][1].keys() == {*STEP_TAGS, "global_step", "epoch"}
    assert told[1][1]["loss/epoch_average"] == 1.0
    assert (4, {"sample_0": ("image", "a cat")}) in told


def test_the_same_run_goes_on_there(run, wandb):
    started, _ = wandb
    asked = Settings().replace(log_with="wandb")
    live(run, asked)
    live(replace(run, from_step=2), asked, story(run, start=2))
    live(run, asked)
    first, again, anew = (options["id"] for options in started)
    assert first == again != anew


def test_a_key_is_used_and_told_nobody(run, wandb, monkeypatch, tmp_path):
    started, _ = wandb
    monkeypatch.setenv("WANDB_API_KEY", "s3cret")
    heard = live(run, Settings().replace(log_with="wandb", log_config=True))
    assert started[0]["mode"] == "online"
    assert any("shows this run at https://wandb.example/run" in text for text in noticed(heard))
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert "s3cret" not in repr((started, heard))
    assert not [path for path in files if b"s3cret" in path.read_bytes()]


def test_without_a_key_it_is_said_how_to_send_the_run_later(run, wandb):
    (text,) = noticed(live(run, Settings().replace(log_with="wandb")))
    assert "no key" in text
    assert "wandb sync" in text


def test_a_service_that_does_not_answer_slows_nothing_and_is_told_once(run, wandb, monkeypatch):
    def unreachable(**options):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(sys.modules["wandb"], "init", unreachable)
    heard = live(run, Settings().replace(log_with="wandb"))
    (told,) = (text for text in noticed(heard) if "muted" in text)
    assert "WeightsAndBiases failed and is muted; the run goes on: no route to host" in told


def test_with_a_key_and_no_network_it_is_logged_offline_and_can_be_sent(run, wandb, monkeypatch):
    started, told = wandb
    begin = sys.modules["wandb"].init

    def unreachable(**options):
        if options["mode"] == "online":
            raise TimeoutError("no answer in 30 s (key s3cret)")
        return begin(**options)

    monkeypatch.setattr(sys.modules["wandb"], "init", unreachable)
    monkeypatch.setenv("WANDB_API_KEY", "s3cret")
    (text,) = noticed(live(run, Settings().replace(log_with="wandb")))
    assert "cannot be reached (no answer in 30 s (key ***))" in text
    assert f"`wandb sync {run.dir / 'wandb'}/offline-run-*`" in text
    assert started[0]["mode"] == "offline"
    assert [step for step, _ in told] == [1, 2, 3, 4, 4, -1]  # all curves


def test_a_run_that_is_on_its_way_is_sent_later_by_its_own_folder(run):
    logger = WeightsAndBiases(run, Settings())
    assert f"`wandb sync {run.dir / 'wandb'}/offline-run-*`" in logger.left
    where = str(run.dir / "wandb" / "run-20261128_1-abc" / "files")
    logger._there = SimpleNamespace(offline=False, dir=where)
    assert f"`wandb sync {run.dir / 'wandb'}/run-20261128_1-abc`" in logger.left


def test_what_was_not_sent_in_time_is_told_with_how_to_send_it(run):
    class Slow:
        left = "`wandb sync there` sends it"

        def __call__(self, event):
            time.sleep(0.3)

    sink = Background(Slow(), patience=0.01)
    (told,) = sink(Finished(1, "done"))
    assert told.text.endswith("it is left behind: `wandb sync there` sends it")


REAL = """
import sys
from pathlib import Path
from kit.settings import Settings
from kit.sinks import listening
from kit.runs.run import Run
from tests.support.loggers import story
run = Run(Path(sys.argv[1]), "cat", "safetensors", "print")
asked = Settings().replace(log_with="wandb", log_config=True, network_dim=7)
with listening(run, settings=asked) as tell:
    for event in story(run):
        tell(event)
"""


@pytest.mark.long  # with a stand-in: ...it_is_logged_offline_and_can_be_sent, above
def test_a_real_run_with_a_key_and_no_network_is_in_its_file(tmp_path):
    where = {"cwd": Path(__file__).parents[2], "text": True, "capture_output": True}
    unreachable = {
        "WANDB_API_KEY": "k" * 40,
        "WANDB_BASE_URL": "http://127.0.0.1:9",
        "WANDB_ERROR_REPORTING": "false",
        "HOME": str(tmp_path),
    }
    env = {**{k: v for k, v in os.environ.items() if k != "WANDB_MODE"}, **unreachable}
    code = REAL.replace("from kit.sinks import", "from kit.sinks import wandb_log,").replace(
        "asked =", "wandb_log.SECONDS_TO_START = 3\nasked ="
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=env, **where)
    files = (tmp_path / "cat.run" / "wandb").glob("offline-run-*/*.wandb")
    (lines,) = [[r for r in read_wandb(file) if r.HasField("history")] for file in files]
    assert len(lines) >= 4
    events = (tmp_path / "cat.run" / "events.jsonl").read_text()
    assert "cannot be reached" in events
    assert "k" * 40 not in events


@pytest.mark.slow
def test_a_real_run_offline_is_in_its_file(tmp_path):
    where = {"cwd": Path(__file__).parents[2], "text": True, "capture_output": True}
    quiet = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "HOME": str(tmp_path)}
    env = {**os.environ, **quiet}
    subprocess.run([sys.executable, "-c", REAL, str(tmp_path)], check=True, env=env, **where)
    (file,) = (tmp_path / "cat.run" / "wandb").glob("offline-run-*/*.wandb")
    (began,) = [record.run for record in read_wandb(file) if record.HasField("run")]
    assert json.loads((tmp_path / "cat.run" / "logs.json").read_text())["wandb"] == began.run_id
    config = {item.key: json.loads(item.value_json) for item in began.config.update}
    assert (began.project, began.display_name) == ("network_train", "cat")
    assert (config["network_dim"], config["output_name"]) == (7, "last")
    told = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in line}
        for line in (record.history.item for record in read_wandb(file))
        if line
    ]
    assert [line["loss/current"] for line in told] == [1, 1 / 2, 1 / 3, 1 / 4]
    assert told[1].keys() >= {*STEP_TAGS, "loss/epoch_average", "global_step", "epoch"}
    assert any(name.startswith("sample_0") for name in told[-1])
    assert list(file.parent.glob("files/media/images/sample_0*.png"))


# ------------------------------------------------------------------------------ in the background


def test_whoever_tells_a_background_listener_does_not_wait(run):
    may_go, heard = threading.Event(), []

    def slow(event):
        may_go.wait(30)
        heard.append(event)

    background = Background(slow)
    for event in story(run)[:-1]:
        background(event)
    assert heard == []
    may_go.set()
    background(Finished(4, "done"))
    assert len(heard) == len(story(run))
    background.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("kit-function")]


def test_at_the_end_there_is_patience_and_no_more(run):
    never = threading.Event()
    background = Background(lambda event: never.wait(30) and None, patience=0.05)
    (notice,) = background(Finished(4, "done"))
    assert "still not through after 0.05 s" in notice.text
    never.set()
    background.close()


def test_what_a_background_listener_notices_is_told_with_a_later_event(run):
    def notices_it(event):
        return [Noticed("look")] if isinstance(event, Stepped) else ()

    background = Background(notices_it)
    told = [notice for event in story(run) for notice in background(event)]
    background.close()
    assert told == [Noticed("look")] * 4


# ---------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ({}, ()),
        ({"logging_dir": "logs"}, ("tensorboard",)),
        ({"logging_dir": "logs", "log_with": "wandb"}, ("wandb",)),
        ({"logging_dir": "logs", "log_with": "all"}, ("tensorboard", "wandb")),
    ],
)
def test_a_logging_folder_alone_means_tensorboard(changes, chosen):
    assert effective.loggers(Settings().replace(**changes).logs) == chosen


@pytest.mark.parametrize("log_with", ["tensorboard", "all"])
def test_tensorboard_without_a_folder_is_refused(log_with):
    (text,) = problems(Settings().replace(log_with=log_with))
    assert text.startswith("[logs] logging_dir: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[wandb]\nentty = 'me'", "[wandb] takes no entty; did you mean entity?"),
        ("[comet]\na = 1", "there is no logger [comet]; there are [tensorboard] and [wandb]"),
        ("entity = 'me'", "outside of a table"),
        ("[wandb", "log_tracker_config"),
    ],
)
def test_a_tracker_file_that_is_wrong_is_refused_before_anything_is_loaded(tmp_path, text, said):
    path = tmp_path / "trackers.toml"
    path.write_text(text)
    (told,) = problems(Settings().replace(log_with="wandb", log_tracker_config=str(path)))
    assert told.startswith("[logs] log_tracker_config: ")
    assert said in told


def test_a_tracker_file_that_is_missing_is_refused():
    (told,) = problems(Settings().replace(log_with="wandb", log_tracker_config="no.toml"))
    assert "no.toml cannot be read" in told


def test_what_has_no_effect_is_told():
    changes = {"log_with": "wandb", "logging_dir": "logs", "log_prefix": "x"}
    told = notices(Settings().replace(**changes))
    assert "logging_dir has no effect: the run is logged with Weights & Biases" in told
    assert any(text.startswith("log_prefix has no effect") for text in told)
    told = notices(Settings().replace(log_config=True))
    assert any("the run is not logged" in text for text in told)


def test_a_secret_in_a_file_of_settings_is_refused_with_where_it_belongs():
    with pytest.raises(SettingsError, match="WANDB_API_KEY") as caught:
        Settings.of({"wandb_api_key": "s3cret"})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("row", catalog.LOGGERS.values(), ids=catalog.LOGGERS)
def test_a_row_tells_its_settings_and_its_code(row):
    assert set(row.uses) <= Settings().flat().keys()
    assert callable(catalog.load(row.code))
