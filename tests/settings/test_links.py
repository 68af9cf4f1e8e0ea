"""Paths and links as people paste them; the token in a link goes no further."""

import pytest

from kit.settings import Settings, links
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


def test_what_is_a_link():
    assert is_link(" HTTPS://a.b/c")
    assert not is_link("owner/name")


def test_no_address_is_no_error():
    assert tidied("https://[broken?token=T") == "https://[broken"
