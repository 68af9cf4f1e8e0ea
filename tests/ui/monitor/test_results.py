import json
import os
import struct

import pytest
from PIL import Image

import kit.ui
from kit.errors import KitError, OutputError
from kit.events import Began, Finished, Loaded, Saved, to_line
from kit.ui.monitor.pictures import sides_for
from kit.ui.monitor.results import Results, files_of, find_file, newest_run, words_of


def lora(path, **metadata):
    """A LoRA file without tensors."""
    text = json.dumps({"__metadata__": metadata}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


@pytest.fixture
def run_dir(tmp_path, picture):
    """A run of two prompts with twelve rounds, that ended with a LoRA."""
    folder = tmp_path / "output" / "cat.run"
    folder.mkdir(parents=True)
    dirs = json.dumps({"10_zxcat cat": {"n_repeats": 10, "img_count": 3}})
    file = lora(folder.parent / "cat.safetensors", ss_dataset_dirs=dirs)
    early = lora(folder.parent / "cat-000001.safetensors")
    os.utime(early, (1, 1))
    lora(folder.parent / "catalogue.safetensors")  # of another run
    events = [
        Began(str(folder), "cat", 110),
        Loaded("SD", "cpu", "no", 1, 1, from_step=0),
        *(picture(step, i) for step in range(0, 120, 10) for i in (0, 1)),
        Saved(50, 1, str(early)),
        Saved(110, 2, str(file)),
        Finished(110, "done", str(file)),
    ]
    (folder / "events.jsonl").write_text("".join(to_line(e) + "\n" for e in events), "utf-8")
    (folder / "run.toml").write_text("", "utf-8")
    return folder


def test_they_are_found_on_disk_in_a_new_kernel(kernel, run_dir):
    found = kit.ui.results()
    assert found.path == str(run_dir.parent / "cat.safetensors")
    assert len(found.samples) == 12


def test_the_run_that_was_at_work_last_is_the_newest(kernel, run_dir):
    other = run_dir.parent / "dog.run"
    other.mkdir()
    (other / "events.jsonl").write_text(to_line(Began("dog.run", "dog", 1)) + "\n", "utf-8")
    os.utime(run_dir / "events.jsonl", (1, 1))
    assert newest_run([run_dir.parent]) == other
    assert kit.ui.results(run_dir).path.endswith("cat.safetensors")
    assert newest_run([run_dir.parent / "nowhere"]) is None


def test_a_folder_without_a_run_is_told(kernel, tmp_path):
    with pytest.raises(OutputError, match="nothing to show"):
        kit.ui.results(tmp_path / "dog.run")


def test_every_round_is_shown_and_all_of_them_as_one_picture(run_dir):
    html = Results.of_run(run_dir)._repr_html_()
    assert html.count("class='kit-open'") == 24
    assert "samples.jpg" in html
    sheet = Image.open(run_dir / "samples.jpg")
    assert sheet.format == "JPEG"
    assert sheet.width > 12 * 384  # twelve columns
    assert sheet.getpixel((450, 120)) != (255, 255, 255)


def test_where_to_put_it_and_what_to_write_are_told(run_dir):
    html = Results.of_run(run_dir)._repr_html_()
    for text in (
        "stable-diffusion-webui/models/Lora/",
        "stable-diffusion-webui-forge/models/Lora/",
        "ComfyUI/models/loras/",
        "&lt;lora:cat:1&gt; zxcat cat",
        "<th>trigger word</th>",
        "Download cat.safetensors" if "Download cat" in html else "kit-copy",
    ):
        assert text in html, text


def test_a_file_that_tells_nothing_has_no_trigger_words(tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    assert words_of(broken) == []
    assert words_of(lora(tmp_path / "plain.safetensors")) == []


def test_all_files_of_the_run_and_none_of_others_are_listed(run_dir):
    names = [file.path.name for file in files_of(Results.of_run(run_dir).saved, run_dir)]
    assert names[:2] == ["cat.safetensors", "cat-000001.safetensors"]
    assert "catalogue.safetensors" not in names
    assert sum(name.endswith(".png") for name in names) == 24
    assert {"run.toml", "events.jsonl"} <= set(names)


def test_a_file_that_goes_while_it_is_listed_ends_nothing(run_dir, monkeypatch):
    """A dashboard that raises would be muted for the rest of the run."""
    gone = run_dir.parent / "cat-000009.safetensors"
    monkeypatch.setattr("kit.ui.monitor.results._files_in", lambda folder: [gone])
    assert gone in [file.path for file in files_of([], run_dir)]


def test_a_run_that_was_moved_is_found_where_it_lies_now(run_dir, tmp_path):
    moved = tmp_path / "drive"
    run_dir.parent.rename(moved)
    results = Results.of_run(moved / "cat.run")
    assert find_file(results.path, results.run_dir) == moved / "cat.safetensors"
    assert results._repr_html_().count("class='kit-open'") == 24


def test_a_lora_that_is_gone_is_said(run_dir):
    results = Results.of_run(run_dir)
    (run_dir.parent / "cat.safetensors").unlink()
    assert "(no longer there)" in results._repr_html_()


def test_results_of_nothing_say_so():
    assert "no LoRA file yet" in Results("", {})._repr_html_()


def test_a_folder_that_cannot_be_written_costs_only_the_one_picture(run_dir, monkeypatch):
    def refuse(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kit.ui.monitor.sheet.write_atomically", refuse)
    html = Results.of_run(run_dir)._repr_html_()
    assert "No space left on device" in html
    assert html.count("class='kit-open'") == 24


@pytest.mark.parametrize("count", [1, 20, 100, 1000, 5000])
def test_many_pictures_are_sent_small(count):
    small, large = sides_for(count)
    assert 64 <= small <= 320
    assert 256 <= large <= 640
    assert count * small**2 <= max(81 * 320**2, count * 64**2)


def test_colab_gets_a_button_beside_them(run_dir, monkeypatch):
    shown = []
    monkeypatch.setattr("kit.ui.monitor.results.display", lambda thing, **_: shown.append(thing))
    Results.of_run(run_dir)._ipython_display_()
    assert len(shown) == 1
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    Results.of_run(run_dir)._ipython_display_()
    assert shown[-1].children[-1].description == "Download cat.safetensors"


def test_a_damaged_run_is_named(run_dir):
    (run_dir / "events.jsonl").write_text("damaged\n{}\n", "utf-8")
    with pytest.raises(KitError, match="Not a line of events"):
        Results.of_run(run_dir)
