"""The token of a model's link reaches the processes that train, by their environment alone."""

import json
import os
import time
from pathlib import Path

import psutil
import pytest

from kit import demo
from kit.cli import main
from kit.errors import without_secrets
from kit.launching import own_process
from kit.launching.command import OF_A_LAUNCH, environment
from kit.launching.own_process import OwnProcess
from kit.queueing import working
from kit.settings import Settings, links
from tests.support.file_host import file_host
from tests.support.ldm import write_single_file
from tests.support.toys import draw_images, toy_settings

TOKEN = "s3cr3t-t0k3n"
LINK = f"https://files.org/m.safetensors?type=Model&token={TOKEN}"


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    """What a process knows that has just begun."""
    monkeypatch.setattr(links, "_tokens", {})
    monkeypatch.setattr(links, "_whole", {})
    monkeypatch.delenv(links.HANDED_ON, raising=False)


def test_what_is_handed_on_is_known_and_leaves_the_environment(monkeypatch):
    assert links.handed_on() == {}
    tidy = links.tidied(LINK)
    links.tidied("https://me:t0k3n-of-mine@other.org/m")
    given = links.handed_on()
    monkeypatch.setattr(links, "_tokens", {})
    monkeypatch.setattr(links, "_whole", {})
    monkeypatch.setattr("kit.errors._of_links", set())
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    links.take_over()
    assert links.HANDED_ON not in os.environ
    assert links.whole(tidy) == LINK
    assert links.token_for("files.org") == TOKEN
    assert links.token_for("other.org") == "t0k3n-of-mine"
    assert without_secrets(f"{TOKEN} t0k3n-of-mine") == "*** ***"
    assert links.handed_on() == given


@pytest.mark.parametrize("text", ["", "{", "[]", "[1, 2]", '[{"a": 1}, 3]', "null"])
def test_what_is_no_such_text_is_taken_for_none(monkeypatch, text):
    monkeypatch.setenv(links.HANDED_ON, text)
    links.take_over()
    assert links.HANDED_ON not in os.environ
    assert links.whole("https://files.org/m") == "https://files.org/m"


def test_every_kind_of_process_gets_it(monkeypatch):
    links.tidied(LINK)
    told = "import os; print(os.environ.get('LORA_KIT_LINKS'))"
    monkeypatch.setattr(own_process, "command", lambda *_: [own_process.sys.executable, "-c", told])
    process = OwnProcess("seed = 1")
    while process.poll() is None:
        time.sleep(0.05)
    [tokens, known] = json.loads((process.folder / "log.txt").read_text())
    process.forget()
    assert TOKEN in known[links.tidied(LINK)]
    for variables in (environment(2), working._environment("")):
        assert json.loads(variables[links.HANDED_ON])[0] == tokens == {"files.org": TOKEN}


def test_a_token_that_was_typed_behind_set_is_not_shown_nor_handed_on_by_words(tmp_path, capsys):
    model = f"pretrained_model_name_or_path={LINK}"
    images = draw_images(tmp_path / "images")
    words = ["--set", f"train_data_dir={images}", "--set", f"output_dir={tmp_path / 'o'}"]
    assert main(["plan", *words, "--set", "num_processes=2", "--set", model]) == 0
    told = capsys.readouterr().out
    assert "accelerate launch" in told
    assert "pretrained_model_name_or_path=https://files.org/m.safetensors?type=Model" in told
    assert TOKEN not in told


@pytest.mark.parametrize(
    ("host", "do"),
    [
        ("civitai.com/api/download/models/1", "Set CIVITAI_TOKEN to it where kit queue run works"),
        ("huggingface.co/a/b/resolve/main/m.safetensors", "Set HF_TOKEN to it where kit queue run"),
        ("files.org/m.safetensors", "Fetch the file beforehand, and give its path."),
    ],
)
def test_who_adds_it_to_the_queue_hears_at_once_how_it_can_be_had(tmp_path, capsys, host, do):
    link = f"https://{host}?token={TOKEN}"
    settings = Settings().replace(
        train_data_dir=str(draw_images(tmp_path / "images")), output_dir=str(tmp_path / "out"),
        pretrained_model_name_or_path=link,
    )  # fmt: skip
    file = tmp_path / "run.toml"
    file.write_text(settings.to_toml(), "utf-8")
    words = ["queue", "add", str(file), "--queue", str(tmp_path / "queue")]
    code = main([*words, "--set", f"pretrained_model_name_or_path={link}"])
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "! pretrained_model_name_or_path: the token of the link to " in told.out
    assert do in told.out
    assert TOKEN not in told.out
    assert holding(TOKEN, tmp_path) == []


def holding(text, *folders):
    """Files in which it stands."""
    files = (path for folder in folders for path in Path(folder).rglob("*") if path.is_file())
    return [path for path in files if text.encode() in path.read_bytes()]


@pytest.mark.long  # each way in which it is handed on is shown above
def test_two_processes_of_their_own_fetch_a_model_with_it_and_it_is_nowhere(tmp_path, monkeypatch):
    """As the notebook starts them: the form's settings, a process, the launcher, two that train."""
    for name in OF_A_LAUNCH:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("LORA_KIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(own_process.tempfile, "mkdtemp", lambda prefix: made(tmp_path / "own"))
    content = write_single_file(demo.BASE, tmp_path / "base.safetensors").read_bytes()
    with file_host() as host:
        host.files["/m.safetensors"], host.key = content, TOKEN
        settings = toy_settings(
            f"{host.url}/m.safetensors?token={TOKEN}", draw_images(tmp_path / "images"),
            tmp_path / "out", max_train_steps=2, num_processes=2,
        )  # fmt: skip
        process = OwnProcess(settings.to_toml())
        seen = set()
        while process.poll() is None:
            seen |= command_lines(process.pid)
            time.sleep(0.1)
    log = (process.folder / "log.txt").read_text("utf-8")
    assert "the base model has come" in log, log
    assert "does not fit its family" in log  # of a whole one's layers, which it is too small for
    assert [path for path, _, _ in host.asked] == ["/m.safetensors"]  # one fetches it for both
    assert (
        sum("train" in words for _, words in seen) >= 4
    )  # kit train, the launcher, two that train
    assert not any(TOKEN in word for _, words in seen for word in words)
    assert [path.name for path in (tmp_path / "cache").rglob("*.safetensors")] == ["m.safetensors"]
    assert holding(TOKEN, tmp_path / "out", tmp_path / "own", tmp_path / "cache") == []


def made(folder):
    folder.mkdir()
    return str(folder)


def command_lines(pid):
    """Of a process and all that it has started."""
    found = set()
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return found
    for each in family:
        try:
            found.add((each.pid, tuple(each.cmdline())))
        except psutil.Error:
            continue
    return found
