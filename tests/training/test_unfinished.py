"""An unfinished run whose pictures were touched, corrected or are computed otherwise."""

import os
import shutil

import pytest

from kit import planning
from kit.errors import KitError
from kit.events import Noticed
from kit.sinks import read_events
from kit.telling import train as kit_train
from kit.training.loop import train
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, leave_after, lora, losses, run, same, toy_settings


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)


@pytest.fixture
def asked(model, tmp_path):
    images = draw_images(tmp_path / "images")
    return lambda out, **changes: toy_settings(
        model, images, tmp_path / out, **{"max_train_steps": 6, "text_encoder_lr": 0} | changes
    )


def touch(folder):
    for file in folder.rglob("*.*"):
        os.utime(file, (1e9, 1e9))


def test_touched_and_moved_pictures_go_on_to_the_same_bits(asked, tmp_path):
    whole = run(asked("a"))
    first = leave_after(3, asked("b"))
    shutil.move(tmp_path / "images", tmp_path / "moved")
    touch(tmp_path / "moved")
    rest = run(asked("b", train_data_dir=str(tmp_path / "moved"), save_every_n_steps=5))
    assert losses(first) + losses(rest) == losses(whole)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))
    assert not [path for path in (tmp_path / "b").iterdir() if "toy-2" in path.name]


def test_a_run_with_a_corrected_caption_waits_for_an_answer(asked, tmp_path):
    for event in kit_train(planning.plan(asked("b"))):
        if getattr(event, "step", 0) == 3:
            break
    (tmp_path / "images" / "2_zib ball" / "1.txt").write_text("a red zib ball")
    before = sorted((tmp_path / "b").rglob("*"))
    plan = planning.plan(asked("b"))
    with pytest.raises(KitError, match=r'caption of 2_zib ball/1.png changed[\s\S]*"go on"'):
        list(train(plan))
    assert sorted((tmp_path / "b").rglob("*")) == before

    plan = planning.plan(asked("b"), unfinished="go on")
    rest = list(kit_train(plan))
    assert len(losses(rest)) == 3  # from the state's step, with the new data
    told = [e.text for e in read_events(plan.run.dir / "events.jsonl") if isinstance(e, Noticed)]
    assert any("goes on with toy at step 3, although caption of 2_zib" in text for text in told)
    assert len(losses(read_events(plan.run.dir / "events.jsonl"))) == 6
    assert (tmp_path / "b" / "toy.safetensors").exists()


def test_the_answer_is_given_once(asked, tmp_path):
    leave_after(2, asked("b"))
    (tmp_path / "images" / "2_zib ball" / "1.txt").write_text("a red zib ball")
    for event in train(planning.plan(asked("b"), unfinished="go on")):
        if getattr(event, "step", 0) == 4:
            break
    again = planning.plan(asked("b"))
    assert (again.run.name, again.run.from_step, again.run.asks) == ("toy", 4, False)


def test_another_run_may_begin_beside_it(asked, tmp_path):
    leave_after(2, asked("b"))
    changed = asked("b", cross_attention="none")
    assert planning.plan(changed).run.asks
    list(train(planning.plan(changed, unfinished="begin anew")))
    assert (tmp_path / "b" / "toy-2.safetensors").exists()
    assert planning.plan(asked("b")).run.from_step == 2  # the first stays as it is
