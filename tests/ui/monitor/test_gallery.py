import io
import re
from pathlib import Path

import ipywidgets as widgets
from PIL import Image

from kit.events import Sampled
from kit.ui.monitor.gallery import PROMPTS_SHOWN, Gallery, pages_of, shown_rows
from kit.ui.monitor.pictures import SIDE, picture_html, thumbnail
from kit.ui.monitor.results import Results


def grid_of(*drawn):
    samples = {}
    for sample in drawn:
        samples.setdefault(sample.step, {})[sample.index] = sample
    return samples


def sampled(step, index=0, *, wished=False):
    return Sampled(step, index, f"{step}-{index}.png", f"prompt {index}", 1, wished)


def rows_in(gallery):
    return [part for part in gallery.pictures_box.children if isinstance(part, widgets.HBox)]


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


def test_all_rounds_can_be_turned_to_and_none_comes_twice(picture):
    samples = grid_of(*(picture(step, i) for step in range(0, 100, 10) for i in (0, 1)))
    gallery = Gallery()
    gallery.update(samples)
    seen = [set(gallery.pictures)]
    assert pages_of(samples) == 3
    for _ in range(2):
        assert not gallery.older.disabled
        gallery.older.click()
        seen.append(set(gallery.pictures))
    assert gallery.older.disabled
    base = {drawn.path for drawn in samples[0].values()}
    assert all(base <= page for page in seen), "the base model's stay at the left"
    assert [len(page - base) for page in seen] == [8, 8, 2]
    assert set().union(*seen) == {s.path for row in samples.values() for s in row.values()}
    assert "page 1 of 3" in gallery.line.value


def test_a_page_stays_while_newer_rounds_are_drawn(picture):
    gallery = Gallery()
    samples = grid_of(*(picture(step) for step in range(10, 100, 10)))
    gallery.update(samples)
    gallery.older.click()
    gallery.older.click()
    assert set(gallery.pictures) == {samples[10][0].path}
    gallery.newer.click()
    gallery.newer.click()
    assert gallery.newer.disabled


def test_every_prompt_can_be_seen(picture):
    gallery = Gallery()
    gallery.update({1: {i: picture(1, i) for i in range(12)}})
    assert gallery.every.description == "All 12 prompts"
    assert len(gallery.pictures) == PROMPTS_SHOWN
    gallery.every.value = True
    assert len(gallery.pictures) == 12


def test_a_click_enlarges_by_html_alone(picture):
    html, _ = picture_html(picture(7), Path(picture(7).path))
    (mark,) = set(re.findall(r"popovertarget='([^']*)'", html))
    assert f"<div id='{mark}' popover" in html
    assert "<script" not in html
    assert "onclick" not in html
    assert "aria-label='Enlarge: a cat on &lt;a&gt; sofa 0, step 7'" in html


def test_the_large_picture_waits_on_the_server_until_it_is_looked_at(picture, monkeypatch):
    sample = picture(7)
    alone, _ = picture_html(sample, Path(sample.path))
    monkeypatch.setattr("kit.ui.monitor.pictures.address_of", lambda path: f"/files/{path.name}")
    served, _ = picture_html(sample, Path(sample.path))
    assert "src='/files/cat_000007_0.png' alt" in served
    assert alone.count("data:image/jpeg") == 2
    assert served.count("data:image/jpeg") == 1


def test_there_is_a_row_for_each_prompt_and_a_column_for_each_step(picture):
    gallery = Gallery()
    gallery.update(grid_of(*(picture(step, i) for step in (0, 10) for i in (0, 1))))
    assert [len(row.children) for row in rows_in(gallery)] == [2, 2]
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
    assert "not found" in rows_in(gallery)[0].children[0].value


def test_a_hundred_prompts_do_not_flood_the_cell(picture):
    gallery = Gallery()
    gallery.update({1: {i: picture(1, i % 3) for i in range(100)}})
    assert len(gallery.pictures_box.children) == 2 * PROMPTS_SHOWN


def test_prompts_cannot_become_markup(picture):
    gallery = Gallery()
    samples = grid_of(picture(1))
    gallery.update(samples)
    cell = rows_in(gallery)[0].children[0].value
    for html in (gallery.pictures_box.children[0].value, cell, Results("", samples)._repr_html_()):
        assert "&lt;a&gt; sofa" in html
        assert "<a> sofa" not in html
