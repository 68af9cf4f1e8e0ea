"""The queue in the notebook."""

import time
from types import SimpleNamespace

import pytest

import kit.ui
from kit import hosts
from kit.events import to_line
from kit.hosts import Gpu
from kit.queueing.changing import New, add, pause
from kit.queueing.store import Entry, Queue
from kit.runs.lock import at_work_in
from kit.settings import Settings, links
from kit.ui import queue_gpus, queue_list
from kit.ui.monitor.session import Session
from kit.ui.queue_list import QueueList
from tests.ui.runs import until, whole_run

pytestmark = pytest.mark.usefixtures("kernel")
SETTINGS = Settings().replace(
    pretrained_model_name_or_path="base.safetensors", train_data_dir="images", output_name="cat"
)


@pytest.fixture
def queue(tmp_path, monkeypatch):
    monkeypatch.setattr(queue_list, "PERIOD", 0.05)
    return Queue(tmp_path / "queue")


def shown(queue, settings=SETTINGS):
    return QueueList(queue, lambda: settings)


def buttons(view, row):
    return {each.description: each for each in view.rows.children[row].children[1:]}


def texts(view):
    return [row.children[0].value for row in view.rows.children]


def become(queue, number, state, **more):
    with queue.changing() as content:
        [entry] = [each for each in content.entries if each.number == number]
        content.put(Entry(**{**vars(entry), "state": state, **more}))


def test_the_forms_settings_are_added_and_rows_have_what_their_state_allows(queue):
    view = shown(queue)
    assert view.start.disabled
    assert not queue.folder.exists()
    view.add.click()
    assert texts(view) == ["1: <b>cat</b>, waiting"]
    assert Settings.load(queue.settings_file(1)) == SETTINGS
    assert list(buttons(view, 0)) == ["To the top", "Pause", "Remove"]
    assert not view.start.disabled
    view.add.click()
    assert "is in the queue already" in view.line.value
    buttons(view, 0)["Pause"].click()
    assert list(buttons(view, 0)) == ["Go on", "Remove"]
    buttons(view, 0)["Go on"].click()
    become(queue, 1, "failed")
    view.refresh.click()
    buttons(view, 0)["Retry"].click()
    buttons(view, 0)["Remove"].click()
    assert texts(view) == []


def test_a_row_says_on_which_gpus_its_run_trains(queue):
    add(queue, [New("cat", "o", ""), New("dog", "o", "")], folder=queue.folder.parent)
    become(queue, 1, "started", gpu="0,1")
    become(queue, 2, "started", gpu="3")
    told = ["1: <b>cat</b>, at work on GPUs 0 and 1", "2: <b>dog</b>, at work on GPU 3"]
    assert texts(shown(queue)) == told


def test_a_token_that_the_queue_does_not_keep_is_told_at_once(queue, monkeypatch):
    monkeypatch.setattr(links, "_tokens", {})
    link = "https://civitai.com/api/download/models/1?token=s3cr3t"
    view = shown(queue, SETTINGS.replace(pretrained_model_name_or_path=link))
    view.add.click()
    assert "cat waits as run 1." in view.line.value
    assert "Set CIVITAI_TOKEN to it where kit queue run works" in view.line.value
    assert "s3cr3t" not in view.line.value + queue.settings_file(1).read_text("utf-8")


@pytest.fixture
def begun(monkeypatch):
    """The words and the environment of each process that Start begins; none is begun."""
    given = []

    class Process:
        def __init__(self, words, *, env, **more):
            given.append((words, env))

        def poll(self):
            return 0

    monkeypatch.setattr("kit.ui.queue_list.subprocess.Popen", Process)
    return given


def test_a_run_that_this_kernel_has_just_begun_is_not_added(queue, monkeypatch, tmp_path):
    settings = SETTINGS.replace(output_dir=str(tmp_path / "out"))
    trains = SimpleNamespace(
        is_running=lambda: True,
        run_dir=tmp_path / "out" / "cat.run",
        where="in processes of its own",
    )
    view = shown(queue, settings)
    with monkeypatch.context() as now:
        now.setattr(Session, "current", trains)
        view.add.click()
    assert "cat trains at this moment, in processes of its own" in view.line.value
    assert "another output_name" in view.line.value
    assert texts(view) == []
    other = shown(queue, settings.replace(additional_parameters="--output_name dog"))
    other.add.click()
    assert texts(other) == ["1: <b>dog</b>, waiting"]


def test_a_run_on_each_gpu_that_is_chosen_in_the_form(queue, monkeypatch, begun):
    t4, chosen = Gpu("Tesla T4", 16106), [0]
    monkeypatch.setattr(queue_gpus, "there", lambda: (t4, t4, t4))
    add(queue, [New("cat", "o", "")], folder=queue.folder.parent)
    view = QueueList(queue, lambda: SETTINGS, chosen_gpus=lambda: chosen)
    assert view.gpus.menu.layout.display is None
    assert view.gpus.menu.label == "one run after another"
    view.start.click()
    chosen[:] = [0, 2]
    view.refresh.click()
    assert view.gpus.menu.label == "one run on each of GPUs 0 and 2"
    view.start.click()
    view.gpus.menu.label = "one run on each of GPUs 0, 1 and 2"  # by hand, and so it stays
    chosen[:] = [1]
    view.start.click()
    assert [words[7:] for words, _ in begun] == [[], ["--gpus", "0,2"], ["--gpus", "0,1,2"]]


@pytest.mark.parametrize("count", [0, 1])
def test_with_one_gpu_or_none_the_queue_is_started_as_ever(queue, monkeypatch, begun, count):
    monkeypatch.setattr(queue_gpus, "there", lambda: (Gpu("Tesla T4", 16106),) * count)
    add(queue, [New("cat", "o", "")], folder=queue.folder.parent)
    view = QueueList(queue, lambda: SETTINGS, chosen_gpus=lambda: [0] * count)
    assert view.gpus.menu.layout.display == "none"
    view.start.click()
    [(words, _)] = begun
    assert words[2:] == ["kit", "queue", "run", "--queue", str(queue.folder)]


def test_who_works_it_off_gets_the_secrets_that_this_kernel_knows(queue, monkeypatch, begun):
    monkeypatch.setattr(hosts, "_asked", {"HF_TOKEN": "hf_secret"})
    monkeypatch.setattr(links, "_tokens", {"civitai.com": "s3cr3t"})
    add(queue, [New("cat", "o", "")], folder=queue.folder.parent)
    shown(queue).start.click()
    [(words, env)] = begun
    assert env["HF_TOKEN"] == "hf_secret"
    assert "s3cr3t" in env[links.HANDED_ON]
    assert not any("s3cr3t" in word for word in words)


def test_the_order_changes_and_the_whole_queue_pauses(queue):
    add(queue, [New("cat", "o", ""), New("<i>dog", "o", "")], folder=queue.folder.parent)
    view = shown(queue)
    buttons(view, 1)["To the top"].click()
    assert texts(view) == ["2: <b>&lt;i&gt;dog</b>, waiting", "1: <b>cat</b>, waiting"]
    view.pause.click()
    assert queue.read().paused
    assert view.pause.description == "Go on"
    view.pause.click()
    assert not queue.read().paused


def test_a_row_that_stays_as_it_is_keeps_its_buttons(queue):
    add(queue, [New("cat", "o", "")], folder=queue.folder.parent)
    view = shown(queue)
    before = view.rows.children
    view.refresh.click()
    assert view.rows.children == before


def test_settings_that_are_refused_are_told_and_not_added(queue):
    view = shown(queue, SETTINGS.replace(gpu_ids="first"))
    view.add.click()
    assert "gpu_ids" in view.line.value
    assert texts(view) == []
    without = QueueList(queue, lambda: None)
    without.add.click()
    assert "no form" in without.line.value


def test_what_another_process_does_is_followed(queue):
    add(queue, [New("cat", "o", "")], folder=queue.folder.parent)
    with at_work_in(queue.folder / "working"):
        view = shown(queue)
        assert view.start.disabled
        pause(queue, [1])
        until(lambda: texts(view) == ["1: <b>cat</b>, paused"])
    until(lambda: not view.start.disabled)
    until(lambda: not view._watching.is_alive())


def test_start_works_it_off_in_a_process_of_its_own(queue):
    add(queue, [New("cat", "o", "no settings")], folder=queue.folder.parent)
    view = shown(queue)
    view.start.click()
    assert view.start.disabled
    end = time.monotonic() + 60
    while queue.read().entries[0].state != "failed":
        assert time.monotonic() < end
        time.sleep(0.1)
    until(lambda: not view._watching.is_alive())
    assert "is no TOML" in texts(view)[0]
    assert "cat: failed" in (queue.folder / queue_list.LOG).read_text("utf-8")


def test_why_the_queue_could_not_be_worked_off_is_told(queue, monkeypatch):
    add(queue, [New("cat", "o", "")], folder=queue.folder.parent)
    view = shown(queue)
    told = "kit: The queue is being worked off already.\n"

    class Process:
        def __init__(self, words, *, stdout, **more):
            stdout.write(told.encode())

        def poll(self):
            return 2

    (queue.folder / queue_list.LOG).write_text("kit: of an earlier one\n", "utf-8")
    monkeypatch.setattr("kit.ui.queue_list.subprocess.Popen", Process)
    view.start.click()
    view._follow()
    assert view.line.value == "The queue is being worked off already."


def test_the_door_shows_it(tmp_path, monkeypatch, kernel):
    monkeypatch.setenv("LORA_KIT_QUEUE", str(tmp_path / "queue"))
    view = kit.ui.queue()
    assert view.queue.folder == tmp_path / "queue"
    view._ipython_display_()
    assert view.root.layout.width == "100%"


def test_a_run_is_shown_beneath_the_list_with_its_buttons_while_it_is_at_work(queue, tmp_path):
    [entry] = add(queue, [New("cat", "o", "")], folder=tmp_path)
    run_dir, place = tmp_path / "o" / "cat.run", queue.place(entry.number)
    become(queue, 1, "started")
    with at_work_in(place), at_work_in(run_dir):
        view = shown(queue)
        buttons(view, 0)["Show"].click()
        assert "has told nothing yet" in view.line.value
        (place / "run_dir.txt").write_text(str(run_dir))
        lines = [to_line(event) for event in list(whole_run(30))[:7]]
        (run_dir / "events.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        buttons(view, 0)["Show"].click()
        [dashboard] = view.run.children
        controls = view._follower.dashboard.controls
        assert dashboard is view._follower.dashboard.root
        controls.stop.click()
        assert len(list((run_dir / "requests").iterdir())) == 1
        buttons(view, 0)["Show"].click()
        assert view.run.children == ()
