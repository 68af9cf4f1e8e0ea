import base64
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
    data = re.search(r"base64,([^']+)'", form.files.download.value)[1]
    path = tmp_path / "downloaded.toml"
    path.write_bytes(base64.b64decode(data))
    assert Settings.load(path) == settings
