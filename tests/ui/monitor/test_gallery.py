import io
from pathlib import Path

import ipywidgets as widgets
from PIL import Image

from kit.events import Sampled
from kit.ui.monitor.gallery import PROMPTS_SHOWN, SIDE, Gallery, Results, shown_steps, thumbnail


def grid_of(*drawn):
    samples = {}
    for sample in drawn:
        samples.setdefault(sample.step, {})[sample.index] = sample
    return samples


def test_the_newest_four_steps_are_shown_beside_the_base_models():
    assert shown_steps({step: {} for step in (0, 10, 20, 30, 40, 50)}) == [0, 20, 30, 40, 50]
    assert shown_steps({30: {}, 10: {}}) == [10, 30]


def test_there_is_a_row_for_each_prompt_and_a_column_for_each_step(picture):
    gallery = Gallery()
    gallery.update(grid_of(*(picture(step, i) for step in (0, 10) for i in (0, 1))))
    grids = [child for child in gallery.root.children if isinstance(child, widgets.GridBox)]
    assert [len(grid.children) for grid in grids] == [2, 2]
    assert len(gallery.pictures) == 4


def test_a_thumbnail_is_a_small_jpeg(picture):
    image = Image.open(io.BytesIO(thumbnail(Path(picture(3).path))))
    assert image.format == "JPEG"
    assert max(image.size) == SIDE


def test_a_tiny_picture_is_enlarged_without_blur(tmp_path):
    path = tmp_path / "tiny.png"
    halves = Image.new("L", (64, 32))
    halves.paste(255, (32, 0, 64, 32))
    halves.save(path)
    image = Image.open(io.BytesIO(thumbnail(path))).convert("L")
    assert image.size == (320, 160)
    assert image.getpixel((150, 80)) < 8
    assert image.getpixel((170, 80)) > 247


def test_old_pictures_make_room_and_the_others_are_not_sent_again(picture):
    gallery = Gallery()
    samples = grid_of(*(picture(step) for step in (0, 10, 20, 30, 40)))
    gallery.update(samples)
    before = dict(gallery._cells)
    samples[50] = {0: picture(50)}
    gallery.update(samples)
    assert samples[10][0].path not in gallery.pictures
    assert len(gallery.pictures) == 5
    assert gallery._cells[samples[20][0].path] is before[samples[20][0].path]


def test_a_picture_that_is_gone_is_said_not_raised(tmp_path):
    gallery = Gallery()
    gallery.update({1: {0: Sampled(1, 0, str(tmp_path / "gone.png"), "a cat", 1)}})
    assert gallery.pictures == {}
    cells = [child for child in gallery.root.children if isinstance(child, widgets.GridBox)]
    assert "not found" in cells[0].children[0].children[0].value


def test_a_hundred_prompts_do_not_flood_the_cell(picture):
    gallery = Gallery()
    gallery.update({1: {i: picture(1, i % 3) for i in range(100)}})
    assert len(gallery.root.children) == 2 * PROMPTS_SHOWN


def test_prompts_cannot_become_markup(picture):
    gallery = Gallery()
    samples = grid_of(picture(1))
    gallery.update(samples)
    for html in (gallery.root.children[0].value, Results("", samples)._repr_html_()):
        assert "&lt;a&gt; sofa" in html
        assert "<a>" not in html


def test_results_stay_in_the_notebook(picture, tmp_path):
    file = tmp_path / "cat.safetensors"
    file.write_bytes(bytes(1_500_000))
    results = Results(str(file), grid_of(picture(0), picture(9)))
    html = results._repr_html_()
    assert html.count("data:image/jpeg;base64,") == 2
    assert "(1.5 MB)" in html
    assert "before training" in html
    assert repr(results) == str(file)


def test_results_of_nothing_say_so():
    assert "no LoRA file yet" in Results("", {})._repr_html_()
