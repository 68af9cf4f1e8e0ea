"""`kit demo` that is asked to stop: what there is is shown, and nothing is graded."""

import pytest
from PIL import Image

from kit.control import RunControl
from kit.demo import run as demo
from kit.events import Began, Finished, Loaded, Sampled, Saved
from kit.training.loop import train


@pytest.fixture(autouse=True)
def not_graded(monkeypatch):
    def refuse(lora, seed):
        raise AssertionError("a demo that was stopped is graded")

    monkeypatch.setattr(demo, "_measure", refuse)


def test_stopped_while_it_is_prepared_nothing_is_left(tmp_path, monkeypatch, capsys):
    control = RunControl()

    def stopped(plan):
        for event in train(plan, control):
            if isinstance(event, Began):
                control.stop()
            yield event

    monkeypatch.setattr(demo, "train", stopped)
    assert demo.main(tmp_path, steps=3) == Finished(0, "asked to stop")
    assert "pictures" not in capsys.readouterr().out.splitlines()[-1]
    assert not list(tmp_path.glob("*.run"))


@pytest.mark.parametrize("drawn", [0, 3])
def test_stopped_on_its_way_it_shows_what_it_drew(tmp_path, monkeypatch, capsys, drawn):
    picture = tmp_path / "one.png"
    Image.new("RGB", (64, 64)).save(picture)
    lora = str(tmp_path / "zib-ball-step00000002.safetensors")
    end = Finished(2, "asked to stop", lora)
    samples = [Sampled(0, index, str(picture), "", 1) for index in range(drawn)]
    events = [Loaded("sd1", "cpu", "no", 1, 1, 0), *samples, Saved(2, 1, lora), end]
    monkeypatch.setattr(demo, "train", lambda plan: iter(events))
    assert demo.main(tmp_path, steps=3) == end
    assert (tmp_path / "samples.png").exists() == bool(drawn)
    told = capsys.readouterr().out
    assert f"LoRA        {lora}" in told
    assert ("pictures    " in told) == bool(drawn)
