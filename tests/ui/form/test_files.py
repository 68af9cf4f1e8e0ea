import base64
import json
import re

import pytest

from kit.settings import Settings
from kit.ui import Form
from kit.ui.form.files import uploaded

TOML = b"network_dim = 12"


@pytest.mark.parametrize(
    "value",
    [
        {"my.toml": {"metadata": {}, "content": TOML}},  # ipywidgets 7
        ({"name": "my.toml", "content": memoryview(TOML)},),  # ipywidgets 8
    ],
)
def test_an_upload_is_read_in_both_generations(value):
    assert list(uploaded(value)) == [("my.toml", TOML)]


def offered(form):
    return form.files.offer_changes.table.value


def test_an_uploaded_file_fills_the_form(monkeypatch):
    form = Form()
    monkeypatch.setattr("kit.ui.form.files.uploaded", lambda value: [("my.toml", TOML)])
    form.files._tell(form.files._take_upload)
    assert form.settings == Settings()  # what would change is shown first
    assert "<td>Network Rank (Dimension)</td><td>8</td><td>12</td>" in offered(form)
    form.files.offer_changes.apply_button.click()
    assert form.settings.network.network_dim == 12
    form.head.undo()
    assert form.settings == Settings()


def test_what_is_downloaded_is_what_stands_in_the_form(settings, tmp_path):
    form = Form(settings)
    links = dict(
        re.findall(r"download='([^']+)' href='[^']*base64,([^']+)'", form.files.download.value)
    )
    path = tmp_path / "downloaded.toml"
    path.write_bytes(base64.b64decode(links["run.toml"]))
    assert Settings.load(path) == settings
    gui = json.loads(base64.b64decode(links["kohya_ss.json"]))
    assert gui["train_data_dir"] == settings.folders.train_data_dir
    assert b"train_data_dir" in base64.b64decode(links["sd_scripts.toml"])


def test_a_file_of_the_gui_fills_the_form_with_a_report(tmp_path):
    path = tmp_path / "old.json"
    keys = {"network_dim": 48, "no_such_field": 1, "num_machines": 2, "t5xxl_lr": 0}
    path.write_text(json.dumps(keys), "utf-8")
    form = Form()
    form.files.path.value = str(path)
    form.files.load_button.click()
    assert "no_such_field" in form.files.report.value
    assert "num_machines" in form.files.report.value
    # What was not understood is open; the many keys without effect are folded beneath it.
    opened, folded = form.files.report.value.split("<details>")
    assert "no_such_field" in opened
    assert "num_machines" in opened
    assert "t5xxl_lr" in folded
    assert "t5xxl_lr" not in opened


def test_a_name_that_ends_in_json_is_written_for_the_gui(settings, tmp_path):
    form = Form(settings)
    form.files.path.value = str(tmp_path / "gui.json")
    form.files.save_button.click()
    assert json.loads((tmp_path / "gui.json").read_text())["max_resolution"] == "128,128"


def loaded(form, tmp_path, values):
    path = tmp_path / "old.json"
    path.write_text(json.dumps(values), "utf-8")
    form.files.path.value = str(path)
    form.files.load_button.click()
    form.files.offer_changes.apply()


def test_what_a_file_does_not_mention_stays_in_the_form(settings, tmp_path):
    form = Form(settings.replace(network_dim=77))
    loaded(form, tmp_path, {"network_alpha": 4})
    assert form.settings == settings.replace(network_dim=77, network_alpha=4)


def test_beside_a_wrong_value_the_right_ones_stay(settings, tmp_path):
    form = Form(settings.replace(network_dim=77))
    form.fields["epoch"].control.value = "many"
    loaded(form, tmp_path, {"network_alpha": 4})
    assert form.settings == settings.replace(network_dim=77, network_alpha=4, epoch=1)


def test_a_file_for_another_family_changes_nothing_in_the_form(settings, tmp_path):
    form = Form(settings)
    loaded(form, tmp_path, {"LoRA_type": "Flux1", "network_dim": 3})
    assert form.settings == settings
    assert form.files.line.value.startswith("old.json (kohya_ss GUI): Flux1 is for another model")
    assert "nothing is taken" in form.files.line.value


def test_what_a_plan_would_refuse_is_shown_open(settings, tmp_path):
    form = Form(settings)
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"random_crop": True}), "utf-8")
    form.files.path.value = str(path)
    form.files.load_button.click()
    assert "would be refused" in form.files.report.value.split("<details>")[0]


def test_what_was_told_of_a_file_goes_when_the_example_is_taken(settings, tmp_path):
    path = tmp_path / "gui.json"
    path.write_text(json.dumps({"LoRA_type": "Standard", "network_dim": 12, "train_batch_size": 2}))
    form = Form(settings)
    form.files.path.value = str(path)
    form.files.load_button.click()
    assert "gui.json" in form.files.line.value
    assert "keys" in form.files.report.value
    form.head.try_example()
    form.head.offer.apply()
    assert form.files.line.value == form.files.report.value == ""
