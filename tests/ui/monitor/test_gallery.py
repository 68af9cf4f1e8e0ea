import io
from pathlib import Path

import ipywidgets as widgets
from PIL import Image

from kit.events import Sampled
from kit.ui.monitor.gallery import PROMPTS_SHOWN, SIDE, Gallery, Results, shown_rows, thumbnail


def grid_of(*drawn):
    samples = {}
    for sample in drawn:
        samples.setdefault(sample.step, {})[sample.index] = sample
    return samples


def sampled(step, index=0, *, wished=False):
    return Sampled(step, index, f"{step}-{index}.png", f"prompt {index}", 1, wished)


def steps_of(samples):
    return {index: [s.step for s in drawn] for index, drawn in shown_rows(samples).items()}


def test_the_newest_four_steps_are_shown_beside_the_base_models():
    assert steps_of(grid_of(*map(sampled, (0, 10, 20, 30, 40, 50)))) == {0: [0, 20, 30, 40, 50]}
    assert steps_of(grid_of(sampled(30), sampled(10))) == {0: [10, 30]}


def test_what_was_asked_for_once_stays_while_others_are_drawn_anew():
    own = [sampled(step, index) for step in range(0, 60, 10) for index in range(PROMPTS_SHOWN)]
    asked = sampled(3, PROMPTS_SHOWN, wished=True)
    rows = steps_of(grid_of(*own, asked))
    assert rows == {
        i: [3] if i == PROMPTS_SHOWN else [0, 20, 30, 40, 50] for i in range(PROMPTS_SHOWN + 1)
    }


def test_of_many_that_were_asked_for_the_last_are_shown():
    asked = [sampled(1 + index, index, wished=True) for index in range(1, PROMPTS_SHOWN + 4)]
    rows = steps_of(grid_of(sampled(0), *asked))
    assert list(rows) == [0, *range(4, PROMPTS_SHOWN + 4)]


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
