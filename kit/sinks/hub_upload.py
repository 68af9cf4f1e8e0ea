"""What a run makes, sent to the Hub as it comes; nothing that fails there ends the run."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from kit import catalog
from kit.basemodel.headers import read_header
from kit.errors import KitError
from kit.events import Event, Failed, Finished, Loaded, Noticed, Sampled, Saved, StateKept
from kit.hub import hub_token, reason
from kit.runs.record import recall, remember
from kit.runs.run import Run, files_of
from kit.settings import Settings
from kit.sinks.model_card import MARK, Sample, model_card

PAUSES = (1.0, 4.0)  # seconds before another try
REFUSED = (400, 401, 403, 404)  # answers that another try does not change
CARD = "README.md"
KEPT = "hub"  # under which the run remembers what is there


class Uploader:
    """Uploads LoRA files, a card with samples, and state folders where they are asked for.

    What could not be sent waits for the next file; what waits at the end is tried once more.
    """

    def __init__(self, run: Run, settings: Settings) -> None:
        self._run, self._hub = run, settings.hub
        self.waits = self._hub.async_upload  # to be heard in the background
        self._token = hub_token()  # asked here: a notebook's store needs its cell
        self._repo = self._hub.huggingface_repo_id.strip()
        self._kind = self._hub.huggingface_repo_type or "model"
        self._pending: dict[str, Path] = {}
        self._sent: set[str] = set()  # places in the repository
        self._samples: dict[int, Sampled] = {}
        self._newest: Path | None = None  # LoRA file, of which the card tells
        self._is_ready = self._is_refused = self._owns_card = False
        self._told: set[str] = set()

    def __call__(self, event: Event) -> Iterator[Noticed]:
        """Send what the event tells of."""
        match event:
            case _ if self._is_refused:
                return
            case Loaded():
                yield from self._go_on(event.from_step)
            case Sampled():
                self._samples[event.index] = event
            case Saved():
                self._newest = Path(event.path)
                self._add(self._newest)
                yield from self._send(f"{self._newest.name}, step {event.step}")
            case StateKept() if self._hub.save_state_to_huggingface:
                folder = Path(event.path)
                for path in sorted(folder.iterdir()):
                    self._add(path, folder.name)
                yield from self._send(f"{folder.name}, step {event.step}")
            case Failed() | Finished():
                if self._pending:
                    yield from self._send("what is left", tries=1)
                yield from self._ended()
            case _:
                pass  # nothing to send

    def close(self) -> None:
        """Nothing is held."""

    def _go_on(self, from_step: int) -> Iterator[Noticed]:
        """Send what lies there and was not on the Hub before the run was broken off."""
        if not from_step:
            return
        self._sent = set(recall(self._run.dir, KEPT).splitlines())
        for path in files_of(self._run, states=self._hub.save_state_to_huggingface):
            folder = (
                "" if path.parent in (self._run.output_dir, self._run.home) else path.parent.name
            )
            if self._place(folder, path.name) not in self._sent:
                self._add(path, folder)
        if self._pending:
            yield from self._send("what was left")

    def _add(self, path: Path, folder: str = "") -> None:
        self._pending[self._place(folder, path.name)] = path

    def _place(self, *parts: str) -> str:
        inside = self._hub.huggingface_path_in_repo.strip().strip("/")
        return PurePosixPath(inside, *parts).as_posix()

    def _send(self, what: str, tries: int = len(PAUSES) + 1) -> Iterator[Noticed]:
        # Files of earlier saves may have been replaced by later ones.
        self._pending = {place: path for place, path in self._pending.items() if path.exists()}
        for number in range(tries):
            if number:
                time.sleep(PAUSES[number - 1])
            try:
                self._upload(what)
                self._note_sent()
                return
            except Exception as error:  # each thing that can go wrong has one of its own
                why = reason(error, self._token)
                self._is_refused = _status(error) in REFUSED
            if self._is_refused:
                break
        yield from self._failed(why)

    def _note_sent(self) -> None:
        """Remember it, so that a start after a kill sends what is still missing."""
        self._sent |= self._pending.keys()
        self._pending.clear()
        with suppress(OSError):  # it is sent once more then
            remember(self._run.dir, KEPT, "\n".join(sorted(self._sent)))

    def _failed(self, why: str) -> Iterator[Noticed]:
        if self._is_refused:
            yield Noticed(
                f"The Hub refuses what is sent to {self._repo}, so nothing more is sent: {why}. "
                "Check huggingface_repo_id and the token in HF_TOKEN, which must be allowed to "
                f"write. The files lie in {self._run.kept_in}"
            )
        elif why not in self._told:
            self._told.add(why)
            yield Noticed(
                f"The upload to {self._repo} did not succeed: {why}. It is tried again with the "
                "next file and at the end"
            )

    def _ended(self) -> Iterator[Noticed]:
        if self._pending and not self._is_refused:
            names = ", ".join(str(path) for path in self._pending.values())
            yield Noticed(
                f"Not uploaded: {names}. By hand, for each: hf upload {self._repo} FILE "
                f"--repo-type {self._kind}"
            )
        elif self._newest and not self._is_refused:
            prefix = "" if self._kind == "model" else f"{self._kind}s/"
            endpoint = catalog.load("huggingface_hub:constants").ENDPOINT
            yield Noticed(f"Uploaded to {endpoint}/{prefix}{self._repo}")

    def _upload(self, what: str) -> None:
        """Everything that waits, in one commit, and a look whether it has arrived."""
        api = catalog.load("huggingface_hub:HfApi")(token=self._token or False)
        if not self._is_ready:
            self._make_ready(api)
        add = catalog.load("huggingface_hub:CommitOperationAdd")
        content: dict[str, Path | bytes] = {**self._pending, **self._card()}
        with _without_bars():
            api.create_commit(
                self._repo,
                [add(place, thing) for place, thing in content.items()],
                commit_message=f"LoRA Kit: {what}",
                repo_type=self._kind,
            )
        found = api.get_paths_info(self._repo, list(content), repo_type=self._kind)
        arrived = {file.path: file for file in found}
        for place, thing in content.items():
            _compare(place, thing, arrived.get(place))

    def _make_ready(self, api: Any) -> None:
        """The repository, and whether its card is ours to write."""
        api.create_repo(
            self._repo,
            private=self._hub.huggingface_repo_visibility != "public",
            repo_type=self._kind,
            exist_ok=True,
            space_sdk="static" if self._kind == "space" else None,
        )
        self._owns_card = True
        if api.file_exists(self._repo, self._place(CARD), repo_type=self._kind):
            path = api.hf_hub_download(self._repo, self._place(CARD), repo_type=self._kind)
            self._owns_card = MARK in Path(path).read_text("utf-8", "replace")
        self._is_ready = True

    def _card(self) -> dict[str, Path | bytes]:
        """The card with its pictures; beside somebody else's README, under another name."""
        if self._newest is None or not self._newest.exists():
            return {}
        samples, files = [], {}
        for _, event in sorted(self._samples.items()):
            if (path := Path(event.path)).exists():
                files[self._place("samples", path.name)] = path
                samples.append(Sample(f"samples/{path.name}", event.prompt))
        try:
            metadata = read_header(self._newest).metadata
        except KitError:
            metadata = {}  # a pickle says nothing about itself
        name = CARD if self._owns_card else f"{self._run.name}.md"
        is_top = self._owns_card and self._place(CARD) == CARD
        text = model_card(self._run.name, metadata, samples, has_front=is_top)
        return {**files, self._place(name): text.encode("utf-8", "replace")}


@contextmanager
def _without_bars() -> Iterator[None]:
    """The client's progress bars would run across the training's own."""
    bars = catalog.load("huggingface_hub:utils")
    if bars.are_progress_bars_disabled():
        yield
        return
    bars.disable_progress_bars()
    try:
        yield
    finally:
        bars.enable_progress_bars()


def _compare(place: str, thing: Path | bytes, arrived: Any) -> None:
    """What lies in the repository must be what was sent.

    Raises: KitError where it is not.
    """
    size = thing.stat().st_size if isinstance(thing, Path) else len(thing)
    is_whole = arrived is not None and arrived.size == size
    if is_whole and arrived.lfs and isinstance(thing, Path):
        with thing.open("rb") as file:
            is_whole = hashlib.file_digest(file, "sha256").hexdigest() == arrived.lfs.sha256
    if not is_whole:
        raise KitError(f"{place} has not arrived whole")


def _status(error: Exception) -> int | None:
    """The server's answer, where there was one."""
    status: int | None = getattr(getattr(error, "response", None), "status_code", None)
    return status
