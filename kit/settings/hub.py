"""Sending what a run makes to the Hugging Face Hub, and going on from what lies there."""

from __future__ import annotations

from kit.settings.setting import Section, setting


class Hub(Section, box="HuggingFace"):
    """Sending what a run makes to the Hugging Face Hub, and going on from what lies there."""

    huggingface_repo_id: str = setting(
        "",
        "Huggingface repo id",
        "Where every saved LoRA file is uploaded to, such as owner/name; the repository is made if "
        "there is none. A write token must be known: the environment variable HF_TOKEN, `hf auth "
        "login`, or a notebook's secret HF_TOKEN. Blank: nothing is uploaded.",
        shapes_run=False,
    )
    huggingface_repo_type: str = setting(
        "",
        "Huggingface repo type",
        "What kind of repository it is. Blank: model.",
        choices=("", "model", "dataset", "space"),
        shapes_run=False,
    )
    huggingface_repo_visibility: str = setting(
        "",
        "Huggingface repo visibility",
        "Who sees a repository that is made by the upload. Blank: private. One that exists keeps "
        "what it has.",
        choices=("", "private", "public"),
        shapes_run=False,
    )
    huggingface_path_in_repo: str = setting(
        "",
        "Huggingface path in repo",
        "The folder inside the repository. Blank: its top, where README.md is the model's card.",
        shapes_run=False,
    )
    save_state_to_huggingface: bool = setting(
        False,
        "Save state to huggingface",
        "Upload state folders, too. They are written where Save training state or Save training "
        "state at end of training is on.",
        shapes_run=False,
    )
    resume_from_huggingface: bool = setting(
        False,
        "Resume from huggingface",
        "Resume from saved training state names a state folder on the Hub: "
        "owner/name/folder[:revision[:type]], with a type of model, dataset or space.",
    )
    async_upload: bool = setting(
        False,
        "Async upload",
        "Upload in the background while the training goes on; at the end it is waited for. Off: "
        "the training waits for each upload.",
        shapes_run=False,
    )
