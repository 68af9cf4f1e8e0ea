"""Links to files on the web: tidied up, and without the token that some carry.

A token is a secret: it is taken out of a link at the first door, and kept in memory alone. Where
another process trains it gets them by a variable of its environment, which it takes out at once.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from kit.errors import Unreadable, keep_secret
from kit.reading.texts import from_json

_SECRET = re.compile(
    r"(?:^|[_-])(?:token|api[_-]?key|key|apikey|access[_-]?token|auth|signature|sig|password|secret"
    r"|credential)$",
    re.IGNORECASE,
)
LINK = re.compile(r"https?://[^\s\"'<>]+", re.IGNORECASE)
# What is copied together with a path; the last are typographic quotes.
_QUOTES = "\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb"
HANDED_ON = "LORA_KIT_LINKS"  # tokens and whole links, for a process of ours
# Of this process: the token by host, and the whole link by what is left of it.
_tokens: dict[str, str] = {}
_whole: dict[str, str] = {}


def is_link(text: str) -> bool:
    """The text names a place on the web."""
    return re.match(r"https?://", text.strip(), re.IGNORECASE) is not None


def parts_of(link: str) -> SplitResult:
    """A link's parts; all of them blank where it is no address, such as `https://[::1`."""
    try:
        parts = urlsplit(link)
        _ = parts.port  # a number is asked for when it is read
    except ValueError:
        return urlsplit("")
    return parts


def tidied(text: str) -> str:
    """A path, Hub id or link without quotes and blanks around it, and without a token in it.

    The token of a link is remembered for its host, see `token_for`. Blanks inside a link become
    what an address has for them.
    """
    tidy = text.strip()
    while len(tidy) > 1 and tidy[0] in _QUOTES and tidy[-1] in _QUOTES:
        tidy = tidy[1:-1].strip()
    return _without_token(tidy.replace(" ", "%20")) if is_link(tidy) else tidy


def without_tokens(text: str) -> str:
    """The text, with no token in any link that it holds; each is remembered for its host."""
    return LINK.sub(lambda found: _without_token(found[0]), text)


def token_for(host: str) -> str:
    """The token that a link to this host carried in this process; "" where there was none.

    It belongs into no file, no message and no event.
    """
    return _tokens.get(host.lower(), "")


def whole(link: str) -> str:
    """The link as it was given, its token in it; as `token_for` says."""
    return _whole.get(link, link)


def handed_on() -> Mapping[str, str]:
    """What a process that trains for this one must know of tokens: for its environment alone."""
    return {HANDED_ON: json.dumps([_tokens, _whole])} if _tokens else {}


def take_over() -> None:
    """Remember what whoever started this process has `handed_on`, and hand it on to nobody else."""
    text = os.environ.pop(HANDED_ON, "")
    try:
        tokens, known = from_json(text, HANDED_ON) if text else ({}, {})
        given = dict(tokens), dict(known)
    except (Unreadable, ValueError, TypeError):  # of another version: as if there were none
        return
    for host, token in given[0].items():
        _tokens[str(host)] = str(token)
        keep_secret(str(token))
    for link in given[1].values():
        _without_token(str(link))


def _without_token(link: str) -> str:
    try:
        parts = urlsplit(link)
        host = (parts.hostname or "") + (f":{parts.port}" if parts.port else "")
    except ValueError:  # no address after all
        return link.split("?")[0]
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    open_pairs = [(name, value) for name, value in pairs if not _SECRET.search(name)]
    secrets = [value for name, value in pairs if _SECRET.search(name)]
    if parts.password:
        secrets.append(parts.password)
    if secrets:
        _tokens[host.lower()] = secrets[0]
        for secret in secrets:
            keep_secret(secret)
    if not secrets and "@" not in parts.netloc:
        return link
    tidy = urlunsplit((parts.scheme, host, parts.path, urlencode(open_pairs), parts.fragment))
    if not parts.password:  # a name and a word before an @ are sent otherwise
        _whole[tidy] = link
    return tidy
