import json
from pathlib import Path

import pytest

from kit.ui.monitor.downloads import SHELF, address_of, buttons, download, link, shelved


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


def test_what_the_server_hides_has_no_address(server, tmp_path):
    hidden = tmp_path / "work" / ".out" / "cat.safetensors"
    hidden.parent.mkdir()
    hidden.write_bytes(b"x")
    assert address_of(hidden, tmp_path) is None
    assert shelved(hidden, tmp_path) is not None


def test_a_file_elsewhere_gets_a_hard_link_that_takes_no_room(server, tmp_path):
    outside = tmp_path / "elsewhere" / "cat <1>.safetensors"
    outside.parent.mkdir()
    outside.write_bytes(b"first")
    address = shelved(outside, tmp_path)
    (placed,) = (tmp_path / "work" / SHELF).glob("*/*")
    assert address == f"/user/me/files/{SHELF}/{placed.parent.name}/cat%20%3C1%3E.safetensors"
    assert placed.samefile(outside)
    newer = outside.with_suffix(".part")  # as files are saved: written beside it, and renamed
    newer.write_bytes(b"second")
    newer.replace(outside)
    assert shelved(outside, tmp_path) == address
    assert placed.read_bytes() == b"second"


def test_a_link_lets_go_of_a_file_that_was_deleted(server, tmp_path):
    old, new = (tmp_path / "elsewhere" / f"cat-{i}.safetensors" for i in (1, 2))
    old.parent.mkdir()
    for file in (old, new):
        file.write_bytes(b"x")
    shelved(old, tmp_path)
    old.unlink()
    shelved(new, tmp_path)
    assert [p.name for p in (tmp_path / "work" / SHELF).glob("*/*")] == [new.name]


def test_on_another_disk_there_is_a_path_to_copy(server, tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    outside = tmp_path / "cat.safetensors"
    outside.write_bytes(b"x")
    assert "files/" + SHELF in download(outside, "Download")

    def refuse(self, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    other = tmp_path / "<dog>.safetensors"
    other.write_bytes(b"x")
    html = download(other, "Download")
    assert "<a " not in html
    assert "kit-copy" in html
    assert "&lt;dog&gt;.safetensors" in html


def test_colab_gets_a_button_for_each_file(monkeypatch):
    fetched = []
    files = [f"/content/cat-{i:06d}.safetensors" for i in range(2)]
    assert buttons(files, fetched.append) == []
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    made = buttons(files, fetched.append)
    assert len(made) == 2
    made[-1].click()
    assert fetched == [files[-1]]
