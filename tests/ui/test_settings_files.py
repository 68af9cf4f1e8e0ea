import base64
import json
import re

import pytest

from kit.settings import Settings
from kit.ui import Form
from kit.ui.settings_files import uploaded

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


def test_an_uploaded_file_fills_the_form(monkeypatch):
    form = Form()
    monkeypatch.setattr("kit.ui.settings_files.uploaded", lambda value: [("my.toml", TOML)])
    form.files._tell(form.files._take_upload)
    assert form.settings.network.network_dim == 12
    assert "Filled from my.toml" in form.files.line.value


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
    path.write_text(json.dumps({"network_dim": 48, "no_such_field": 1, "num_machines": 2}), "utf-8")
    form = Form()
    form.files.path.value = str(path)
    form.files.load_button.click()
    assert form.settings.network.network_dim == 48
    assert "no_such_field" in form.files.report.value
    assert "num_machines" in form.files.report.value
    assert "<details open>" in form.files.report.value  # something in it was not understood


def test_a_name_that_ends_in_json_is_written_for_the_gui(settings, tmp_path):
    form = Form(settings)
    form.files.path.value = str(tmp_path / "gui.json")
    form.files.save_button.click()
    assert json.loads((tmp_path / "gui.json").read_text())["max_resolution"] == "128,128"
