"""From what the user typed to a file or folder here, through the Hub or a link if need be.

    locate("owner/name")                         a repository of the Hub
    locate("owner/name/file.safetensors")        one file of it
    locate("https://civitai.com/models/1?...")   a link to a .safetensors

`fetching` does the same and tells how far a download has come.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path

from kit import hub
from kit.basemodel.downloading import download, downloaded
from kit.basemodel.headers import SUFFIXES
from kit.basemodel.hub_progress import Progress, watched
from kit.basemodel.weight_names import wanted_files
from kit.errors import ModelError, Unreadable
from kit.reading import paths
from kit.settings.links import is_link, tidied

_URL = re.compile(r"https?://(?:huggingface\.co|hf\.co)/(.+?)/?(?:\?.*)?")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*")
_FILE_IN_REPO = re.compile(rf"({_REPO.pattern})/(?:(?:blob|resolve)/([\w.-]+)/)?(.+)")
Found = Generator[Progress, None, Path]


def locate(name_or_path: str) -> Path:
    """The base model's file or folder: a path as it is, a Hub id ("owner/name") as its cached copy.

    "owner/name/file.safetensors" names one file of a repository, a link a file on the web. What is
    in a cache is not fetched again, and with HF_HUB_OFFLINE=1 nothing is fetched at all.

    Raises: ModelError where there is neither such a path nor such a repository.
    """
    return _result(fetching(name_or_path))


def fetching(name_or_path: str) -> Found:
    """`locate`, yielding bytes that are here and bytes in all while something is fetched.

    Raises: as `locate`.
    """
    return _fetching(
        name_or_path, setting="pretrained_model_name_or_path", index="model_index.json"
    )


def locate_vae(name_or_path: str) -> Path:
    """The same for a separate VAE: a file, a diffusers folder, a Hub id of either sort, or a link.

    Raises: ModelError where there is neither such a path nor such a repository.
    """
    return _result(_fetching(name_or_path, setting="vae", index="config.json"))


def _result(job: Found) -> Path:
    while True:
        try:
            next(job)
        except StopIteration as end:
            found: Path = end.value
            return found


def _fetching(name_or_path: str, *, setting: str, index: str) -> Found:
    name = tidied(name_or_path)
    if not name:
        raise ModelError(
            f"{setting} is empty.",
            "It takes a file, a diffusers folder, a Hub id such as owner/name, or a link.",
            "Choose a model.",
        )
    path = Path(name) if is_link(name) else _path(name, setting)
    if not is_link(name) and paths.is_there(path):
        return path.absolute()
    url = _URL.fullmatch(name)
    if is_link(name) and not url:
        return (yield from _linked(name, setting=setting))
    on_hub = url[1] if url else name
    if _REPO.fullmatch(on_hub) and not on_hub.lower().endswith(SUFFIXES):
        return (yield from _fetch_repository(on_hub, setting=setting, index=index))
    in_repo = _FILE_IN_REPO.fullmatch(on_hub)
    if in_repo and in_repo[3].lower().endswith(SUFFIXES):
        return (yield from _fetch_file(*in_repo.group(1, 3, 2), setting=setting))
    raise ModelError(
        f"{setting} = {name}: there is no such file or folder{_looked_in(path)}, and it is "
        "no Hub id either.",
        "A Hub id is owner/name, or owner/name/file.safetensors for one of its files.",
        _nearest_parent(path),
    )


def _linked(link: str, *, setting: str) -> Found:
    if _is_offline() and downloaded(link) is None:
        raise ModelError(
            f"{setting} = {link} is not on this machine.",
            "HF_HUB_OFFLINE is set, so nothing is downloaded.",
            "Unset HF_HUB_OFFLINE, or give a file that is here.",
        )
    return (yield from download(link, wants_model=setting != "vae"))


def _fetch_repository(repo: str, *, setting: str, index: str) -> Found:
    from huggingface_hub import snapshot_download  # late: it takes a second to import

    token = hub.hub_token() or None
    try:
        listing = snapshot_download(repo, dry_run=True, token=token)
    except OSError as error:  # offline, unreachable, or not allowed: the cache may still have it
        return _cached_repository(repo, setting=setting, index=index, cause=_telling(error))
    files = [file.filename for file in listing]
    if index not in files and not any(file.endswith("/config.json") for file in files):
        single = [file for file in files if file.lower().endswith(SUFFIXES)]
        raise ModelError(
            f"{setting} = {repo}: the repository is no diffusers model; it has no {index}.",
            f"It holds {', '.join(single[:8]) or 'no weights'}.",
            f"Name the file, e.g. {repo}/{single[0]}." if single else "Choose another repository.",
        )
    wanted = wanted_files(files)
    try:
        return (
            yield from watched(
                lambda: snapshot_download(repo, allow_patterns=wanted, token=token),
                repo,
                lambda: [file for file in listing if file.filename in wanted],
            )
        )
    except OSError as error:
        raise _unreachable(repo, setting, error) from error


def _cached_repository(repo: str, *, setting: str, index: str, cause: BaseException) -> Path:
    from huggingface_hub import try_to_load_from_cache

    for name in (index, "unet/config.json", "vae/config.json"):
        cached = try_to_load_from_cache(repo, name)
        if isinstance(cached, str):
            return Path(cached).parents[name.count("/")]
    raise _unreachable(repo, setting, cause) from cause


def _fetch_file(repo: str, file: str, revision: str | None, *, setting: str) -> Found:
    from huggingface_hub import hf_hub_download

    token = hub.hub_token() or None
    try:
        return (
            yield from watched(
                lambda: hf_hub_download(repo, file, revision=revision, token=token),
                repo,
                lambda: [hf_hub_download(repo, file, revision=revision, token=token, dry_run=True)],
            )
        )
    except OSError as error:
        raise _unreachable(f"{repo}/{file}", setting, _telling(error)) from error


def _telling(error: OSError) -> BaseException:
    """The Hub's own refusal; of one that only says that the cache has nothing, its cause."""
    from huggingface_hub import errors

    is_refusal = isinstance(error, errors.HfHubHTTPError) and not isinstance(
        error, FileNotFoundError
    )
    return error if is_refusal else error.__cause__ or error


def _unreachable(name: str, setting: str, cause: BaseException) -> ModelError:
    """Why the Hub did not give it."""
    from huggingface_hub import errors

    found = f"{setting} = {name}: there is no such file or folder on this machine, and "
    if isinstance(cause, errors.GatedRepoError):
        return ModelError(
            f"{found}the Hub asks for permission.",
            "The model's authors want its terms accepted.",
            f"Accept them at https://huggingface.co/{name}, then log in or set HF_TOKEN.",
        )
    if isinstance(cause, errors.RepositoryNotFoundError):
        return ModelError(
            f"{found}no such repository on the Hub, or a private one.",
            "",
            "Check the spelling; for a private repository log in or set HF_TOKEN.",
        )
    if isinstance(cause, errors.EntryNotFoundError) and not isinstance(cause, FileNotFoundError):
        return ModelError(
            f"{found}no such file in that repository on the Hub.", "", "Check the file's name."
        )
    if _is_offline():
        return ModelError(
            f"{found}it is not in the Hub's cache.",
            "HF_HUB_OFFLINE is set, so nothing is downloaded.",
            "Check the spelling, unset HF_HUB_OFFLINE, or give a file that is here.",
        )
    return ModelError(
        f"{found}the Hub could not be reached: {(str(cause).splitlines() or [''])[0]}",
        "",
        "Check the connection and the spelling, or give a file that is here.",
    )


def _path(name: str, setting: str) -> Path:
    try:
        return paths.path_of(name, setting)
    except Unreadable as error:
        raise ModelError(error.found, error.possible, error.do) from error


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _looked_in(path: Path) -> str:
    return "" if path.is_absolute() else f" in {Path.cwd()}"


def _nearest_parent(path: Path) -> str:
    """Where the path stops being right, for a person who mistyped one part of it."""
    for parent in path.absolute().parents:
        if paths.is_folder(parent):
            lost = path.absolute().relative_to(parent)
            return f"Check the spelling; {parent} exists, {lost} in it does not."
    return "Check the spelling."
