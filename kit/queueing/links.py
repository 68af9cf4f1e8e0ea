"""Links of a queue's runs: what of them outlives the process in which they were entered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kit.basemodel.downloading import downloaded
from kit.basemodel.web import CIVITAI_HOSTS, KEY
from kit.settings.links import LINK, parts_of, token_for

ON_HUB = ("huggingface.co", "hf.co", "www.huggingface.co")


def unkept_tokens(values: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each link whose token will be missed, by setting; told when it is added.

    The queue lies in files and goes on in another process; a secret belongs into no file.
    """
    for name, value in values.items():
        for link in LINK.findall(value) if isinstance(value, str) else ():
            if token_for(parts_of(link).netloc) and downloaded(link) is None:
                host = parts_of(link).hostname or ""
                yield (
                    f"{name}: the token of the link to {host} is kept in no file, and so not in "
                    f"the queue. {_instead(host)}"
                )


def _instead(host: str) -> str:
    variable = KEY if host in CIVITAI_HOSTS else "HF_TOKEN" if host in ON_HUB else ""
    if variable:
        return (
            f"Set {variable} to it where kit queue run works: a variable of the environment, or a "
            "secret of the notebook."
        )
    return "Fetch the file beforehand, and give its path."
