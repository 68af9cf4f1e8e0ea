import pytest
from PIL import Image

from kit.demo import BASE
from kit.events import Sampled
from kit.planning import plan
from kit.settings import Settings
from kit.ui.monitor.session import Session


@pytest.fixture
def images(tmp_path):
    """Three pictures that are repeated four times."""
    folder = tmp_path / "images" / "4_cat"
    folder.mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (128, 128), (60 * i, 90, 160)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"a cat number {i}", encoding="utf-8")
    return folder.parent


@pytest.fixture
def settings(images, tmp_path):
    return Settings().replace(
        train_data_dir=str(images),
        output_dir=str(tmp_path / "output"),
        output_name="cat",
        resolution="128",
        min_bucket_reso=64,
        epoch=5,
        seed=7,
    )


@pytest.fixture
def ready(settings):
    """Nothing stands in the way of training them: a base model, and what this machine computes."""
    return settings.replace(
        pretrained_model_name_or_path=str(BASE), resolution="64", mixed_precision="no"
    )


@pytest.fixture
def small_plan(settings):
    return plan(settings)


@pytest.fixture
def picture(tmp_path):
    """Draws a sample picture and tells where it lies."""

    def draw(step, index=0):
        path = tmp_path / "output" / "sample" / f"cat_{step:06d}_{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (512, 384), (step % 255, 80 * index, 120)).save(path)
        return Sampled(step, index, str(path), f"a cat on <a> sofa {index}", seed=1)

    return draw


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """A kernel in which nothing has run yet; what runs at the end of the test is stopped."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Session, "current", None)
    monkeypatch.setattr("kit.ui.door._form", None)
    monkeypatch.setattr("kit.ui.door._follower", None)
    shown = []
    monkeypatch.setattr("kit.ui.look.display", shown.append)
    yield shown
    if (session := Session.current) is not None:
        for _ in range(3):  # a request, then at once
            session.interrupt()
            session.join(5)
        assert not session.is_running()
