import json

import pytest

from kit.ui.monitor.downloads import address_of, buttons, link


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A Jupyter server that has started this kernel, and what it says of itself."""
    monkeypatch.setenv("JPY_PARENT_PID", "4711")
    told = {"root_dir": str(tmp_path / "work"), "base_url": "/user/me/", "token": "secret"}
    (tmp_path / "jpserver-4711.json").write_text(json.dumps(told))
    file = tmp_path / "work" / "output" / "a cat.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    return file


def test_a_file_below_the_servers_root_has_an_address(server, tmp_path):
    assert address_of(server, tmp_path) == "/user/me/files/output/a%20cat.safetensors"


def test_other_files_have_none(server, tmp_path):
    outside = tmp_path / "cat.safetensors"
    outside.write_bytes(b"x")
    assert address_of(outside, tmp_path) is None
    assert address_of(server.with_name("gone.safetensors"), tmp_path) is None


def test_without_a_server_a_path_is_text(tmp_path, monkeypatch):
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    assert link("out/<cat>.safetensors") == "<code>out/&lt;cat&gt;.safetensors</code>"


def test_a_link_never_shows_the_servers_token(server, tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    assert "files/output/a%20cat.safetensors" in link(str(server))
    assert "secret" not in link(str(server))


def test_colab_gets_buttons_for_the_newest_files(monkeypatch):
    fetched = []
    files = [f"/content/cat-{i:06d}.safetensors" for i in range(9)]
    assert buttons(files, fetched.append) == []
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    made = buttons(files, fetched.append)
    assert len(made) == 5
    made[-1].click()
    assert fetched == [files[-1]]
