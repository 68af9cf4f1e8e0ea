from pathlib import Path

import pytest

from kit.hosts import Host
from kit.settings import Settings
from kit.ui.form import remembered as module
from kit.ui.form.remembered import place, remember, remembered


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    found = Host("plain", tmp_path, tmp_path / "output", persistent=True)
    monkeypatch.setattr(module, "host", lambda: found)
    return found


def test_what_stood_in_the_form_comes_back():
    assert remembered() is None
    asked = Settings().replace(network_dim=12, sample_prompts="a cat\na dog")
    remember(asked)
    assert remembered() == asked
    assert [path.name for path in place().parent.iterdir()] == ["form.toml"]


def test_a_damaged_memory_is_no_memory():
    place().parent.mkdir()
    place().write_text("network_dim = [")
    assert remembered() is None
    place().write_text("a_setting_of_another_version = 3")
    assert remembered() is None


def test_a_place_that_cannot_be_written_is_left_alone(monkeypatch):
    monkeypatch.setattr(module, "place", lambda: Path("/proc/nowhere/form.toml"))
    remember(Settings())


def test_tokens_of_the_environment_reach_no_file(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    module.remember_state({"form": {"additional_parameters": "--token hf_secretsecret"}})
    assert "hf_secretsecret" not in place().with_name(module.STATE).read_text("utf-8")
    assert module.remembered_state()["form"] == {"additional_parameters": "--token ***"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 99, "form": {}}'])
def test_a_state_that_cannot_be_read_is_none(text):
    place().parent.mkdir()
    place().with_name(module.STATE).write_text(text, "utf-8")
    assert module.remembered_state() is None
