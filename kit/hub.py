"""State folders on the Hugging Face Hub, to go on from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from kit import catalog, hosts
from kit.errors import SettingsError

LONGEST = 300  # characters of another program's message


@dataclass(frozen=True)
class Place:
    """A state folder in a repository."""

    repo: str
    folder: str
    revision: str
    kind: str  # model, dataset or space

    @classmethod
    def named(cls, text: str) -> Place:
        """`owner/name/folder[:revision[:type]]`, as sd-scripts reads it."""
        path, _, rest = text.strip().partition(":")
        revision, _, kind = rest.partition(":")
        owner, name, *folder = path.strip("/").split("/")
        return cls(f"{owner}/{name}", "/".join(folder), revision or "main", kind or "model")

    def __str__(self) -> str:
        """As a person finds it."""
        return f"{self.repo}/{self.folder} (revision {self.revision})"


@lru_cache(maxsize=8)  # the form plans at every change, and need not ask each time
def fetch_record(place: Place, name: str) -> tuple[Path, Place]:
    """The folder's record, and the place at the very revision that was found.

    Raises: SettingsError where it cannot be had.
    """
    path = fetch(place, name)
    commit = path.parts[path.parts.index("snapshots") + 1]
    return path, Place(place.repo, place.folder, commit, place.kind)


def fetch(place: Place, name: str) -> Path:
    """One file of the folder, from the Hub or from its cache.

    Raises: SettingsError where it cannot be had.
    """
    download = catalog.load("huggingface_hub:hf_hub_download")
    token = hub_token()
    try:
        found = download(
            place.repo,
            f"{place.folder}/{name}",
            revision=place.revision,
            repo_type=place.kind,
            token=token or None,
        )
    except Exception as error:  # each thing that can go wrong has an exception of its own
        raise SettingsError(
            [f"[saving] resume: {name} cannot be fetched from {place}: {reason(error, token)}"]
        ) from error
    return Path(found)


def hub_token() -> str:
    """The Hub's token, from the environment, a login, or the notebook's secrets; "" without one."""
    return catalog.load("huggingface_hub:get_token")() or hosts.secret("HF_TOKEN")


def reason(error: Exception, token: str) -> str:
    """What went wrong and why, in one line of bearable length in which the token does not stand."""
    told = [str(e) or type(e).__name__ for e in (error, error.__cause__) if e is not None]
    text = " ".join(": ".join(told).split())
    text = text.replace(token, "***") if token else text
    return (text if len(text) <= LONGEST else text[:LONGEST] + " ...").rstrip(".")
