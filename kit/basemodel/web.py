"""Requests to hosts of files: only https, tokens only where they belong, failures in sentences."""

from __future__ import annotations

import http.client
import ipaddress
import re
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import urljoin

from kit.errors import ModelError, Unreadable
from kit.reading.texts import from_json
from kit.settings.links import parts_of

PATIENCE = 30  # seconds that a host may keep silent
LOGIN = (401, 403)
_LOGIN_PAGE = re.compile(r"/(?:log-?in|sign-?in)(?:/|$)", re.IGNORECASE)
KEY = "CIVITAI_TOKEN"
CIVITAI_HOSTS = ("civitai.com", "www.civitai.com")


@dataclass(frozen=True)
class Address:
    """Where a file comes from.

    shown: the link in messages, without secrets; url: what is asked for. token: for the first host
    alone; a redirection never carries it on.
    """

    shown: str
    url: str = field(repr=False)
    token: str = field(default="", repr=False)


def opened(address: Address, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
    """The answer to a GET; the caller closes it.

    Raises: ModelError where the host refuses; OSError where the connection fails.
    """
    _check_scheme(address.url, address)
    request = urllib.request.Request(address.url, headers={"User-Agent": "lora-kit"})
    for name, value in (headers or {}).items():
        request.add_header(name, value)
    if address.token:  # not among what a redirection repeats
        request.add_unredirected_header("Authorization", f"Bearer {address.token}")
    opener = urllib.request.build_opener(_Redirections(address))
    try:
        answer: http.client.HTTPResponse = opener.open(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        with error:
            if error.code >= 500:
                raise ConnectionError(f"the host has a fault of its own ({error.code})") from error
            raise _refusal(address, error) from error
    except urllib.error.URLError as error:
        raise ConnectionError(str(error.reason)) from error
    except ValueError as error:  # of an address, such as the one that a host sends us on to
        raise ConnectionError(f"no such address can be ({error})") from error
    except http.client.HTTPException as error:
        raise ConnectionError(f"the host's answer is no HTTP ({type(error).__name__})") from error
    return answer


def asked_json(address: Address) -> Any:
    """What an interface tells.

    Raises: ModelError where it cannot be had.
    """
    try:
        with opened(address) as answer:
            return from_json(answer.read(), address.shown)
    except (OSError, http.client.HTTPException) as error:
        raise unreachable(address, str(error)) from error
    except Unreadable as error:
        raise no_file(address, "a page that is no list of files") from error


def unreachable(address: Address, why: str) -> ModelError:
    """No connection, or a broken one."""
    return ModelError(
        f"{address.shown} could not be fetched: {why}.",
        "",
        "Check the connection and the link, then start again; what has arrived is kept.",
    )


def no_file(address: Address, what: str) -> ModelError:
    """Something else came than a model."""
    return ModelError(
        f"{address.shown} gives {what}, not a .safetensors file.",
        "A link is to the file itself: on Civitai and the Hub it is the address of the download "
        "button.",
        f"Copy that link; where the site wants a login: {_how_to_log_in(address)}",
    )


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows to https alone: a file could be changed on its way otherwise."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        target = urljoin(req.full_url, newurl)
        try:
            _check_scheme(target, self._address)
            if _LOGIN_PAGE.search(parts_of(target).path):
                raise _wants_login(self._address, code)
        except ModelError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_scheme(url: str, address: Address) -> None:
    parts = parts_of(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_here(parts.hostname or "")):
        return
    raise ModelError(
        f"{address.shown} is fetched without encryption ({parts.scheme}), so anybody on the way "
        "could change it.",
        "Models come over https.",
        "Take the link that begins with https://, or fetch the file yourself and give its path.",
    )


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refusal(address: Address, error: urllib.error.HTTPError) -> ModelError:
    if error.code in LOGIN:
        return _wants_login(address, error.code)
    what, do = {
        404: ("nothing is there (404)", "Check the link: the file may have been withdrawn."),
        410: ("it is there no longer (410)", "Look for another copy of the model."),
        429: ("too many were asked for (429)", "Wait some minutes, then start again."),
    }.get(error.code, (f"the host answers {error.code}", "Check the link."))
    return ModelError(f"{address.shown} could not be fetched: {what}.", "", do)


def _wants_login(address: Address, code: int) -> ModelError:
    told = "does not accept the key that was given" if address.token else "wants a login"
    return ModelError(
        f"{parts_of(address.shown).hostname} {told} ({code}) for {address.shown}.",
        "Some authors give their files to people who are logged in.",
        _how_to_log_in(address),
    )


def _how_to_log_in(address: Address) -> str:
    if parts_of(address.shown).hostname in CIVITAI_HOSTS:
        return (
            f"Make an API key in Civitai's account settings and give it as {KEY}: a secret of the "
            "notebook (then run cell 1 again) or a variable of the environment."
        )
    return "Fetch the file in your browser, then give its path."
