"""Models from links: what is asked of a host, what is kept, and what a person is told."""

import contextlib
import hashlib
import json
import os
import shutil
from collections import namedtuple

import pytest

import kit
from kit import demo, hosts
from kit.basemodel import civitai, detect, downloading, fetching, locate, locate_vae
from kit.basemodel.downloading import download, downloaded
from kit.basemodel.preflight import found_model
from kit.errors import ModelError
from kit.events import Noticed
from kit.families.base_model import DOWNLOAD
from kit.settings import Settings, links
from tests.support.file_host import file_host
from tests.support.hub import hub, speak_to
from tests.support.ldm import write_single_file

MODEL = "/files/My model.safetensors"
PART = 1000  # bytes that a connection brings before it breaks off


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = write_single_file(demo.BASE, tmp_path_factory.mktemp("ldm") / "base.safetensors")
    return path.read_bytes()


@pytest.fixture
def host(content, monkeypatch, tmp_path):
    monkeypatch.setenv("LORA_KIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(downloading, "PAUSES", (0.0,))
    monkeypatch.setattr("kit.basemodel.locating._is_offline", lambda: False)
    with file_host() as fake:
        fake.files[MODEL] = content
        yield fake


@pytest.fixture
def link(host):
    host.files["/m.safetensors"] = host.files[MODEL]
    return f"{host.url}/m.safetensors"


def fetch(link, **options):
    """The file, and how far it was told to be."""
    job, told = download(link, **options), []
    while True:
        try:
            told.append(next(job))
        except StopIteration as end:
            return end.value, told


def refused(link, **options):
    with pytest.raises(ModelError) as caught:
        fetch(link, **options)
    return str(caught.value)


def leftovers(tmp_path):
    return [p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_a_link_becomes_a_file_once_and_its_progress_is_told(host, link, content):
    path, told = fetch(link)
    assert path.read_bytes() == content
    assert path.name == "m.safetensors"
    assert told[0] == (0, len(content))
    assert told[-1] == (len(content), len(content))
    asked = len(host.asked)
    assert fetch(link) == (path, [])
    assert locate(f' "{link}" ') == path
    assert found_model(link).family == "sd1"
    assert len(host.asked) == asked


def test_a_name_on_the_web_is_no_path_here(host):
    host.files["/files/a%2F..%2F..%2Fb.safetensors"] = host.files[MODEL]
    path, _ = fetch(f"{host.url}/files/a%2F..%2F..%2Fb.safetensors")
    assert path.name == "a_.._.._b.safetensors"
    assert path.parent.parent == hosts.cache_folder() / "models"


def test_a_connection_that_breaks_off_is_taken_up_where_it_was(host, link, content):
    host.cuts = [PART, 2 * PART]
    path, _ = fetch(link)
    assert path.read_bytes() == content
    assert host.requests("/m.safetensors") == ["", f"bytes={PART}-", f"bytes={3 * PART}-"]


def test_a_later_session_goes_on_with_what_has_arrived(host, link, content):
    host.cuts = [PART] + [0] * 20
    text = refused(link)
    assert "could not be fetched: the connection broke off" in text
    assert "what has arrived is kept" in text
    host.cuts.clear()
    host.asked.clear()
    path, told = fetch(link)
    assert path.read_bytes() == content
    assert host.requests("/m.safetensors") == [f"bytes={PART}-"]
    assert told[0] == (PART, len(content))


def test_a_file_that_was_replaced_meanwhile_is_not_sewn_together_of_two(host, link, content):
    host.cuts = [PART] + [0] * 20
    refused(link)
    host.cuts.clear()
    other = content[:-4] + b"abcd"
    host.files["/m.safetensors"] = other
    path, _ = fetch(link)
    assert path.read_bytes() == other


def test_a_host_without_ranges_begins_anew(host, link, content):
    host.ignores_ranges, host.cuts = True, [PART]
    path, _ = fetch(link)
    assert path.read_bytes() == content


def test_what_was_all_there_but_for_the_last_step_is_not_asked_for_again(host, link, content):
    path, _ = fetch(link)
    path.rename(path.with_name(f"{path.name}.part"))
    record = json.loads((path.parent / "source.json").read_text())
    assert record.pop("size") == len(content)
    (path.parent / "source.json").write_text(json.dumps(record))
    assert downloaded(link) is None
    fetched = len(host.requests("/m.safetensors"))
    assert fetch(link)[0].read_bytes() == content
    assert len(host.requests("/m.safetensors")) == fetched


def test_a_host_that_stumbles_is_asked_again_and_given_up_at_last(host, link):
    host.status["/m.safetensors"] = 503
    assert "a fault of its own (503)" in refused(link)
    assert len(host.requests("/m.safetensors")) == downloading.TRIES


def test_a_wrong_hash_is_told_and_the_file_thrown_away(host, link, tmp_path):
    host.headers["X-Linked-ETag"] = f'"{hashlib.sha256(b"other").hexdigest()}"'
    text = refused(link)
    assert "arrived damaged" in text
    assert "the hash" in text
    assert leftovers(tmp_path) == ["source.json"]
    host.headers["X-Linked-ETag"] = f'"{hashlib.sha256(host.files[MODEL]).hexdigest()}"'
    assert fetch(link)[0].is_file()


@pytest.mark.parametrize(
    ("start", "kind", "told"),
    [
        (b"<!doctype html><html>log in", "text/html; charset=utf-8", "a web page"),
        (b"\n <html>log in, please", "application/octet-stream", "a web page"),
        (b"PK\x03\x04 a torch file", "application/octet-stream", "is a pickle"),
        (b"\x80\x02} an old torch file", "application/octet-stream", "is a pickle"),
        (b"version https://git-lfs", "text/plain", "something else"),
        (b"{}", "application/octet-stream", "2 bytes, which is no model"),
    ],
)
def test_what_is_no_safetensors_is_told_as_what_it_is(host, link, tmp_path, start, kind, told):
    host.files["/m.safetensors"] = start
    host.types["/m.safetensors"] = kind
    text = refused(link)
    assert told in text
    assert link in text
    assert downloaded(link) is None
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "wants a login (401)"),
        (403, "wants a login (403)"),
        (404, "nothing is there (404)"),
        (429, "Wait some minutes"),
        (418, "the host answers 418"),
    ],
)
def test_refusals_are_told_in_a_sentence(host, link, status, told):
    host.status["/m.safetensors"] = status
    text = refused(link)
    assert told in text
    assert len(host.asked) == 1


def test_a_redirection_to_a_login_page_is_a_login(host, link):
    host.moved["/m.safetensors"] = "/login?returnUrl=m"
    assert "wants a login" in refused(link)


def test_only_encrypted_hosts_are_asked_here_and_after_a_redirection(host, link):
    assert "without encryption" in refused("http://example.com/m.safetensors")
    host.moved["/m.safetensors"] = "http://example.com/m.safetensors"
    assert "without encryption" in refused(link)


def test_a_host_that_is_not_there_is_told(monkeypatch, host):
    assert "could not be fetched" in refused("http://127.0.0.1:9/m.safetensors")


def test_a_full_disk_is_told_before_and_while_it_fills(monkeypatch, host, link, content):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 5))
    text = refused(link)
    assert "GB more, and" in text
    assert "LORA_KIT_CACHE" in text
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 10**12))

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(downloading, "_check_start", full)
    assert "The disk is full" in refused(link)


def test_a_token_in_a_link_reaches_the_host_and_no_file(host, tmp_path):
    host.files["/m.safetensors"], host.key = host.files[MODEL], "s3cr3t"
    typed = f"{host.url}/m.safetensors?type=Model&token=s3cr3t"
    settings = Settings().replace(pretrained_model_name_or_path=typed)
    link = settings.model.pretrained_model_name_or_path
    assert link == f"{host.url}/m.safetensors?type=Model"
    assert "s3cr3t" not in settings.to_toml()
    path = locate(link)
    assert path.is_file()
    kept = "".join(p.read_text() for p in (tmp_path / "cache").rglob("*.json"))
    assert link in kept
    assert "s3cr3t" not in kept


def test_a_token_in_a_link_reaches_no_file_of_a_run_and_no_event(host, tmp_path):
    host.files["/m.safetensors"], host.key = host.files[MODEL], "s3cr3t"
    typed = f"{host.url}/m.safetensors?type=Model&token=s3cr3t"
    example = demo.settings(str(tmp_path / "out"), steps=2).replace(
        sample_prompts="", sample_every_n_steps=0, sample_at_first=False
    )
    plan = kit.plan(example.replace(vae=typed))
    told, events = [], kit.train(plan)
    with contextlib.suppress(ModelError):  # no VAE alone lies there
        told.extend(events)
    assert f"{host.url}/m.safetensors?type=Model" in plan.settings.to_toml()
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert not [path for path in written if b"s3cr3t" in path.read_bytes()]
    assert "s3cr3t" not in repr((told, plan))


def test_a_token_stands_in_no_message(host):
    link = links.tidied(f"{host.url}/gone.safetensors?token=s3cr3t")
    assert "s3cr3t" not in refused(link)
    host.status["/gone.safetensors"] = 401
    assert "s3cr3t" not in refused(link)


def begun(settings):
    """What a run tells before the toy's layers, fewer than any real model's, end it."""
    run, events = kit.train(kit.plan(settings)), []
    with pytest.raises(ModelError, match="does not fit its family"):
        while True:
            events.append(next(run))
    return events


def test_a_training_fetches_its_model_and_says_what_it_turned_out_to_be(host, link, tmp_path):
    settings = demo.settings().replace(
        pretrained_model_name_or_path=f'"{link}"', output_dir=str(tmp_path / "out")
    )
    events = begun(settings)
    fetched = [event for event in events if getattr(event, "what", "") == DOWNLOAD]
    assert (fetched[-1].done, fetched[-1].total) == (1, 1)
    told = [event.text for event in events if isinstance(event, Noticed)]
    assert any("has come: m.safetensors, Stable Diffusion 1.x" in text for text in told)
    assert any("made for pictures of about 512 x 512" in text for text in told)
    again = begun(settings.replace(output_name="again"))
    assert not [event for event in again if getattr(event, "what", "") == DOWNLOAD]


def test_a_file_in_a_repository_comes_with_its_progress_and_the_notebooks_token(
    monkeypatch, tmp_path, content
):
    monkeypatch.setattr("kit.basemodel.hub_progress.PERIOD", 0.01)
    monkeypatch.setattr("kit.hub.hub_token", lambda: "s3cr3t")
    with hub() as fake:
        speak_to(fake, monkeypatch, tmp_path / "hub")
        fake.files["model.safetensors"] = content
        job, told = fetching("https://huggingface.co/owner/name/blob/main/model.safetensors"), []
        with pytest.raises(StopIteration) as end:
            while True:
                told.append(next(job))
        assert end.value.value.read_bytes() == content
        assert all(0 <= here <= total == len(content) for here, total in told)
        assert "Bearer s3cr3t" in fake.tokens
        fake.files.clear()
        with pytest.raises(ModelError, match="no such file in that repository"):
            locate("owner/name/other.safetensors")


# ------------------------------------------------------------------------------------------ Civitai


PAGE = "https://civitai.com/models/1/a-model?modelVersionId=20"


@pytest.fixture
def civit(host, monkeypatch, content):
    """Civitai's interface on the host, which sends files from another one."""
    monkeypatch.setattr(civitai, "API", host.url)
    monkeypatch.delenv("CIVITAI_TOKEN", raising=False)
    monkeypatch.setattr(links, "_tokens", {})
    file = {
        "name": "model_v1.safetensors", "type": "Model", "primary": True,
        "hashes": {"SHA256": hashlib.sha256(content).hexdigest().upper()},
        "downloadUrl": f"{host.url}/api/download/models/20",
    }  # fmt: skip
    pickle = {**file, "name": "model_v1.ckpt", "primary": True}
    version = {"id": 20, "model": {"type": "Checkpoint"}, "files": [pickle, file]}
    host.answers["/api/v1/model-versions/20"] = version
    host.answers["/api/v1/models/1"] = {"modelVersions": [{"id": 20}, {"id": 10}]}
    host.files["/signed"] = content
    with file_host() as storage:
        storage.files["/blob"] = content
        host.moved["/api/download/models/20"] = f"{storage.url}/blob"
        host.storage = storage
        yield host


@pytest.mark.parametrize(
    "link",
    [
        PAGE,
        "https://civitai.com/models/1",
        "https://civitai.com/models/1/a-model",
        "https://civitai.com/api/download/models/20?type=Model&format=SafeTensor",
    ],
)
def test_pages_and_download_links_of_civitai_bring_the_file(civit, link, content):
    path, _ = fetch(link)
    assert path.name == "model_v1.safetensors"
    assert path.read_bytes() == content
    assert detect(path).family == "sd1"


def test_a_page_and_its_download_link_are_one_file(civit):
    path, _ = fetch(PAGE)
    asked = len(civit.asked)
    assert fetch("https://civitai.com/api/download/models/20") == (path, [])
    assert len(civit.asked) == asked


def test_a_key_goes_to_civitai_and_not_to_where_its_files_lie(civit, monkeypatch):
    monkeypatch.setenv("CIVITAI_TOKEN", "s3cr3t")
    fetch(PAGE)
    assert {authorization for *_, authorization in civit.asked} == {"Bearer s3cr3t"}
    assert {authorization for *_, authorization in civit.storage.asked} == {""}


def test_a_token_in_a_link_to_civitai_is_its_key(civit):
    link = links.tidied(f"{PAGE}&token=s3cr3t")
    assert link == PAGE
    fetch(link)
    assert {authorization for *_, authorization in civit.asked} == {"Bearer s3cr3t"}


def test_a_login_says_where_a_key_is_made_and_where_it_goes(civit):
    civit.status["/api/download/models/20"] = 401
    text = refused(PAGE)
    assert "civitai.com wants a login (401)" in text
    assert "CIVITAI_TOKEN" in text


def test_a_key_that_is_not_accepted_is_told(civit, monkeypatch):
    monkeypatch.setenv("CIVITAI_TOKEN", "wrong")
    civit.status["/api/download/models/20"] = 403
    text = refused(PAGE)
    assert "does not accept the key" in text
    assert "wrong" not in text


def test_civitais_hash_is_checked(civit):
    civit.storage.files["/blob"] = civit.files[MODEL][:-1] + b"x"
    assert "arrived damaged" in refused(PAGE)


def test_what_is_no_base_model_there_is_told_before_it_is_fetched(civit):
    civit.answers["/api/v1/model-versions/20"]["model"]["type"] = "LORA"
    assert "is a LORA on Civitai, not a base model" in refused(PAGE)
    assert civit.storage.asked == []


def test_a_version_of_pickles_alone_is_refused(civit):
    civit.answers["/api/v1/model-versions/20"]["files"].pop()
    text = refused(PAGE)
    assert "no .safetensors file; it has model_v1.ckpt" in text


def test_a_vae_may_be_linked(civit):
    version = civit.answers["/api/v1/model-versions/20"]
    version["model"]["type"] = "VAE"
    version["files"][1]["type"] = "VAE"
    assert locate_vae(PAGE).name == "model_v1.safetensors"


def test_a_link_that_names_no_model_is_told(civit):
    assert "names no model on Civitai" in refused("https://civitai.com/user/somebody")


def test_an_answer_that_is_no_list_is_told(civit):
    civit.answers["/api/v1/model-versions/20"] = ["unheard of"]
    assert "no .safetensors file; it has no file" in refused(PAGE)
