"""Rules about the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kit.settings import Hub, Saving
from kit.settings.effective import uploads
from kit.settings.rules.rule import Idle, idle, problem

REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
UPLOADS = (
    "async_upload", "huggingface_path_in_repo", "huggingface_repo_type",
    "huggingface_repo_visibility", "save_state_to_huggingface",
)  # fmt: skip


@problem
def repo_id(hub: Hub) -> Iterator[str]:
    repo = hub.huggingface_repo_id.strip()
    if repo and not REPO.fullmatch(repo):
        yield f"[hub] huggingface_repo_id: {repo!r} is not of the form owner/name"


@problem
def path_in_repo(hub: Hub) -> Iterator[str]:
    path = hub.huggingface_path_in_repo.strip()
    if "\\" in path or path.startswith("/") or ".." in path.split("/"):
        yield (
            f"[hub] huggingface_path_in_repo: {path!r} is no folder inside a repository; write one "
            "such as loras/cats"
        )


@problem
def resume_place(hub: Hub, saving: Saving) -> Iterator[str]:
    resume = saving.resume.strip()
    if not hub.resume_from_huggingface:
        return
    if not resume:
        yield (
            "[hub] resume_from_huggingface: resume is blank; write owner/name/folder there, such "
            "as anna/cats/cats-000002-state"
        )
    elif resume.partition(":")[0].count("/") < 2:
        yield (
            f"[saving] resume: {resume!r} names no folder of a repository, which "
            "resume_from_huggingface asks for; write owner/name/folder"
        )


@idle
def idle_hub_settings(hub: Hub, saving: Saving) -> Iterator[Idle]:
    if not uploads(hub):
        yield Idle("huggingface_repo_id is blank", *UPLOADS)
    elif not (saving.save_state or saving.save_state_on_train_end):
        why = "no state folder is written; set save_state or save_state_on_train_end"
        yield Idle(why, "save_state_to_huggingface")
