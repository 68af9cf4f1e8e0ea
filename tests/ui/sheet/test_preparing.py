import pytest
from PIL import Image

from kit.ui import Form


@pytest.fixture
def flat(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        Image.new("RGB", (128, 128), (0, i, 0)).save(folder / f"{i}.png")
    (folder / "0.txt").write_text("a ball", "utf-8")
    return folder


@pytest.fixture
def form(settings):
    form = Form(settings)
    form.images.prepare_button.click()
    return form


def answer(tool, **values):
    for name, value in values.items():
        tool.fields[name].value = value


def done(tool):
    """Press, and wait for the thread that does it."""
    import threading

    tool.do_button.click()
    for thread in threading.enumerate():
        if thread.name == "kit-preparing":
            thread.join(10)


def test_it_is_there_without_a_plan_and_without_torch(tmp_path, settings):
    form = Form(settings.replace(train_data_dir=str(tmp_path / "nowhere")))
    assert form.plan is None
    assert form.images.preparing.root.layout.display == "none"
    form.images.prepare_button.click()
    assert form.images.preparing.root.layout.display is None
    form.images.prepare_button.click()
    assert form.images.preparing.root.layout.display == "none"


def test_what_would_be_copied_is_shown_first_then_copied_then_offered(form, flat, tmp_path):
    tool = form.images.preparing.arranging
    answer(tool, instance_prompt="zib", class_prompt="ball", training_images=str(flat))
    answer(tool, training_repeats="10", destination=str(tmp_path / "set"))
    assert tool.do_button.layout.display == "none"
    tool.look_button.click()
    assert "10_zib ball: 5 files copied" in tool.report.value
    assert tool.do_button.description == "Copy 5 files"
    assert not (tmp_path / "set").exists()
    before = form.settings
    done(tool)
    assert len(list((tmp_path / "set/img/10_zib ball").iterdir())) == 5
    assert form.settings == before  # until it is asked for
    tool.use_button.click()
    assert form.settings.folders.train_data_dir == str(tmp_path / "set/img")
    assert [image.repeats for image in form.plan.images] == [10] * 4


def test_another_answer_takes_back_what_was_shown(form, flat, tmp_path):
    tool = form.images.preparing.arranging
    answer(tool, instance_prompt="zib", class_prompt="ball", training_images=str(flat))
    answer(tool, destination=str(tmp_path / "set"))
    tool.look_button.click()
    assert tool.do_button.layout.display is None
    answer(tool, destination=str(tmp_path / "other"))
    assert tool.do_button.layout.display == "none"
    assert tool.report.value == ""


def test_what_is_blank_or_wrong_stands_at_its_field(form):
    tool = form.images.preparing.arranging
    answer(tool, training_repeats="many")
    tool.look_button.click()
    assert "many" in tool.fields["training_repeats"].problem
    answer(tool, training_repeats="10")
    tool.look_button.click()
    assert "write the trigger word" in tool.fields["instance_prompt"].problem
    answer(tool, instance_prompt="a", class_prompt="b", training_images="/no/where")
    answer(tool, destination="/tmp/x")
    tool.look_button.click()
    assert "Training images = /no/where is no folder" in tool.report.value


def test_folders_are_balanced_as_they_were_shown(form, images):
    tool = form.images.preparing.balancing
    assert tool.fields["dataset_folder"].value == str(images)
    answer(tool, views="30")
    tool.look_button.click()
    assert "4_cat: 3 images, becomes 10_cat, seen 30 times an epoch" in tool.report.value
    assert tool.do_button.description == "Rename 1 folder"
    assert (images / "4_cat").is_dir()
    done(tool)
    assert "4_cat is now 10_cat" in tool.report.value
    assert [image.repeats for image in form.plan.images] == [10] * 3
    tool.look_button.click()
    assert tool.do_button.layout.display == "none"  # nothing is left to do


def test_a_tool_that_fails_says_so_and_can_be_asked_again(form, flat, tmp_path):
    tool = form.images.preparing.arranging
    (tmp_path / "file").write_text("")
    answer(tool, instance_prompt="zib", class_prompt="ball", training_images=str(flat))
    answer(tool, destination=str(tmp_path / "file" / "inside"))
    tool.look_button.click()
    done(tool)
    assert "cannot be written" in tool.report.value
    assert not tool.look_button.disabled
