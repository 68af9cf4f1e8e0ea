"""What reaches the Hub, and what a run goes on from there."""

import threading
import warnings

import pytest

from kit.events import Finished, Saved, StateKept
from kit.planning import plan
from kit.runs.record import RunRecord, write_record
from kit.sinks import listening
from kit.sinks.hub_upload import Uploader
from tests.effects.rows.saving import start
from tests.effects.stage import Row
from tests.support.hub import hub, speak_to


def sent(stage, settings):
    """The repository, its files, and whether the training's own thread sent them."""
    run, threads, upload = plan(settings).run, set(), Uploader._upload

    def noted(self, what):
        threads.add(threading.current_thread() is threading.main_thread())
        upload(self, what)

    state = run.state_dir("")
    state.mkdir(parents=True)
    write_record(state, RunRecord("", 5, 2))
    run.file("").write_bytes(b"{}")
    with (
        pytest.MonkeyPatch.context() as patch,
        hub() as fake,
        warnings.catch_warnings(action="ignore"),  # of the client, about its way of sending bytes
    ):
        speak_to(fake, patch, run.output_dir / "cache")
        patch.setattr(Uploader, "_upload", noted)
        with listening(run, settings=settings) as tell:
            tell(Saved(2, 1, str(run.file(""))))
            tell(StateKept(2, 1, str(state)))
            tell(Finished(2, "done"))
        return fake.repos, sorted(fake.files), threads


def start_there(stage, settings):
    with pytest.MonkeyPatch.context() as patch, hub() as fake:
        fake.files["cats-state/run.json"] = b'{"fingerprint": "", "seed": 5, "step": 2}'
        speak_to(fake, patch, stage.shared / "cache")
        return start(stage, settings)


REPO = {"huggingface_repo_id": "anna/cats"}
STATES = {**REPO, "save_state": True}
ROWS = {
    "huggingface_repo_id": Row(sent, "anna/cats"),
    "huggingface_repo_type": Row(sent, "dataset", given=REPO),
    "huggingface_repo_visibility": Row(sent, "public", given=REPO),
    "huggingface_path_in_repo": Row(sent, "loras", given=REPO),
    "save_state_to_huggingface": Row(sent, True, given=STATES),
    "async_upload": Row(sent, True, given=REPO),
    "resume_from_huggingface": Row(start_there, True, given={"resume": "anna/cats/cats-state"}),
}
