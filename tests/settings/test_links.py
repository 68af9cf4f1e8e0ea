"""Paths and links as people paste them; the token in a link goes no further."""

import json

import pytest

from kit.errors import SettingsError, without_secrets
from kit.exchange import load_any
from kit.exchange.additional import with_additional
from kit.settings import Settings, declarations, links
from kit.settings.links import is_link, tidied, token_for


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (' "C:\\my models\\a b.safetensors" ', "C:\\my models\\a b.safetensors"),
        ("'owner/name'", "owner/name"),
        ("\u201c/a/b\u201d", "/a/b"),
        ("/a/it's", "/a/it's"),
        ("  ", ""),
        ('"', '"'),
        ("https://a.b/c?d=e", "https://a.b/c?d=e"),
        ("https://a.b/my model.safetensors", "https://a.b/my%20model.safetensors"),
    ],
)
def test_quotes_and_blanks_are_forgiven(typed, meant):
    assert tidied(typed) == meant
    assert Settings().replace(vae=typed).model.vae == meant


@pytest.mark.parametrize(
    ("typed", "kept", "token"),
    [
        ("https://civitai.com/a?type=M&token=T0", "https://civitai.com/a?type=M", "T0"),
        ("https://x.org/m?api_key=T1", "https://x.org/m", "T1"),
        ("https://x.org/m?X-Amz-Signature=T2&a=1", "https://x.org/m?a=1", "T2"),
        ("https://me:T3@x.org:81/m", "https://x.org:81/m", "T3"),
    ],
)
def test_a_token_is_taken_out_and_remembered_for_its_host_alone(monkeypatch, typed, kept, token):
    monkeypatch.setattr(links, "_tokens", {})
    settings = Settings().replace(pretrained_model_name_or_path=typed)
    assert settings.model.pretrained_model_name_or_path == kept
    assert token not in repr(settings)
    assert token not in settings.to_toml()
    assert token_for(kept.split("/")[2]) == token
    assert token_for("elsewhere.org") == ""


TEXTS = [n for n, d in declarations().items() if d.type in ("str", "text", "path", "choice")]


@pytest.mark.parametrize("name", TEXTS)
def test_a_token_in_a_link_stays_in_no_setting_and_no_message(name):
    typed = "https://x.org/a?b=1&token=t0k3n-secret"
    try:
        told = Settings().replace(**{name: typed}).to_toml()
    except SettingsError as error:
        told = str(error)
    assert "https://x.org/a?b=1" in told
    assert "t0k3n" not in told


def test_an_argument_of_another_program_keeps_no_token_of_its_link():
    typed = "--vae=https://x.org/v?token=t0k3n-secret --network_train_unet_only"
    settings = Settings().replace(additional_parameters=typed)
    said = "--vae=https://x.org/v --network_train_unet_only"
    assert settings.extra.additional_parameters == said
    after, _, notices = with_additional(settings)
    assert after.model.vae == "https://x.org/v"
    assert "t0k3n" not in after.to_toml() + str(notices)
    assert links.whole("https://x.org/v").endswith("token=t0k3n-secret")


@pytest.mark.parametrize("file", ["old.json", "old.toml", "old.txt"])
def test_a_foreign_file_tells_no_token_of_its_link(tmp_path, file):
    link, path = "https://x.org/m?token=t0k3n-secret", tmp_path / file
    texts = {
        "old.json": json.dumps({"pretrained_model_name_or_path": link, "what_is_this": link}),
        "old.toml": f"pretrained_model_name_or_path = '{link}'\nwhat_is_this = '{link}'",
        "old.txt": f"accelerate launch train_network.py --vae={link} --what_is_this={link}",
    }
    path.write_text(texts[file])
    try:
        settings, report = load_any(path)
        told = settings.to_toml() + "\n".join(report.text()) + str(report.problems())
    except SettingsError as error:
        told = str(error)
    assert "t0k3n" not in told


def test_a_links_token_is_blotted_out_of_every_error():
    tidied("https://x.org/a?token=t0k3n-secret")
    assert without_secrets("GET https://x.org/a?token=t0k3n-secret: 403") == (
        "GET https://x.org/a?token=***: 403"
    )


def test_what_is_a_link():
    assert is_link(" HTTPS://a.b/c")
    assert not is_link("owner/name")


def test_no_address_is_no_error():
    assert tidied("https://[broken?token=T") == "https://[broken"
