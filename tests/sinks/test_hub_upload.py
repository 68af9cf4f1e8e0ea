"""The Hub, spoken to by the real client: uploads, what goes wrong, and going on from there."""

import json

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save_file

from kit import planning
from kit.errors import SettingsError
from kit.events import Finished, Noticed, Sampled, Saved, StateKept
from kit.hub import Place
from kit.runs.run import Run
from kit.settings import Settings
from kit.sinks import hub_upload, listening
from kit.sinks.model_card import MARK, Sample, model_card, trigger_words
from kit.training.loop import train
from tests.support.hub import hub, speak_to
from tests.support.parts import paint
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, lora, run, same, toy_settings

# The client's own way of sending bytes.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
REPO = {"huggingface_repo_id": "anna/cats"}
METADATA = {
    "modelspec.title": "A zib [ball]",
    "modelspec.author": "Anna",
    "modelspec.description": "Draws <b>balls",
    "modelspec.license": "CC-BY-4.0",
    "modelspec.tags": "ball, toy",
    "modelspec.architecture": "stable-diffusion-v1/lora",
    "ss_sd_model_name": "owner/base",
    "ss_dataset_dirs": json.dumps({"10_zib ball": {"n_repeats": 10, "img_count": 3}}),
    "lorakit_settings": json.dumps({"network_dim": 8, "sample_prompts": "a | b"}),
}


@pytest.fixture
def there(monkeypatch, tmp_path):
    """A hub on this machine that the client takes for the real one."""
    with hub() as fake:
        speak_to(fake, monkeypatch, tmp_path / "cache")
        monkeypatch.setattr(hub_upload, "PAUSES", (0.0, 0.0))
        monkeypatch.setenv("HF_TOKEN", "hf_s3cret")
        yield fake


@pytest.fixture
def story(tmp_path):
    """A run of one picture, one LoRA file and a state folder, told to whoever listens."""
    this = Run(tmp_path / "out", "cat", "safetensors", "print")
    this.dir.mkdir(parents=True)
    picture = paint(this.sample_dir / "cat 1.png")
    state = this.state_dir("-000001")
    state.mkdir()
    (state / "state.pt").write_bytes(b"the state")
    (state / "run.json").write_text('{"fingerprint": "f", "seed": 5, "step": 2}')

    def tell_to(settings):
        heard = []
        with listening(this, heard.append, settings=settings) as tell:
            tell(Sampled(2, 0, str(picture), "a cat", 1))
            for name in ("-000001", ""):
                save_file({"a": np.ones(3, np.float32)}, this.file(name), METADATA)
                tell(Saved(2, 1, str(this.file(name))))
            tell(StateKept(2, 1, str(state)))
            tell(Finished(4, "done", str(this.file(""))))
        return [event.text for event in heard if isinstance(event, Noticed)]

    return tell_to


def asked(**changes):
    return Settings().replace(**{**REPO, **changes})


def test_files_and_card_are_uploaded_to_a_private_repository(there, story):
    told = story(asked())
    assert told == [f"Uploaded to {there.url}/anna/cats"]
    assert there.files.keys() == {
        "cat-000001.safetensors", "cat.safetensors", "README.md", "samples/cat 1.png",
    }  # fmt: skip
    assert there.repos["anna/cats"]["visibility"] == "private"
    assert there.messages[0] == "LoRA Kit: cat-000001.safetensors, step 2"
    card = there.files["README.md"].decode()
    assert card.startswith("---\n")
    assert 'license: "cc-by-4.0"' in card
    assert there.tokens == {"Bearer hf_s3cret", ""}, "not where files are handed over"


@pytest.mark.parametrize("visibility", ["private", "public"])
def test_who_sees_it_is_chosen_when_it_is_made(there, story, visibility):
    story(asked(huggingface_repo_visibility=visibility))
    assert there.repos["anna/cats"]["visibility"] == visibility


def test_the_background_upload_is_waited_for_at_the_end(there, story):
    assert story(asked(async_upload=True)) == [f"Uploaded to {there.url}/anna/cats"]
    assert "cat.safetensors" in there.files


def test_everything_goes_into_the_folder_that_is_named(there, story):
    story(asked(huggingface_path_in_repo="loras/cats/"))
    assert {path.rpartition("/")[0] for path in there.files} == {"loras/cats", "loras/cats/samples"}
    assert not there.files["loras/cats/README.md"].startswith(b"---")


def test_states_go_along_where_that_is_asked_for(there, story):
    story(asked(save_state_to_huggingface=True, save_state=True))
    assert there.files["cat-000001-state/state.pt"] == b"the state"
    assert "cat-000001-state/run.json" in there.files


def test_somebody_elses_readme_is_left_alone(there, story):
    there.files["README.md"] = b"# My own words"
    story(asked())
    assert there.files["README.md"] == b"# My own words"
    assert MARK in there.files["cat.md"].decode()


def test_a_refused_token_is_told_once_and_nothing_more_is_sent(there, story):
    there.refuse += [401] * 9
    (text,) = story(asked())
    assert "The Hub refuses" in text
    assert "HF_TOKEN" in text
    assert "hf_s3cret" not in text
    assert len([call for call in there.calls if "/commit/" in call]) == 1


def test_a_server_that_stumbles_is_tried_again(there, story):
    there.refuse += [500]
    assert story(asked()) == [f"Uploaded to {there.url}/anna/cats"]
    assert "cat-000001.safetensors" in there.files


def test_what_did_not_arrive_is_sent_with_the_next_file(there, story):
    there.refuse += [503, 503, 503]
    first, last = story(asked())
    assert "did not succeed" in first
    assert last == f"Uploaded to {there.url}/anna/cats"
    assert "cat-000001.safetensors" in there.files


def test_what_arrives_damaged_does_not_count_as_sent(there, story):
    there.losing = True
    told = story(asked())
    assert "cat-000001.safetensors has not arrived whole" in told[0]
    assert told[-1].startswith("Not uploaded: ")


def test_a_server_that_cannot_be_reached_ends_nothing(there, story, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    told = story(asked())
    assert "did not succeed" in told[0]
    assert "hf upload anna/cats" in told[-1]


def test_no_token_is_a_refusal_of_the_server_and_no_prompt(there, story, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    there.refuse += [401]
    (text,) = story(asked())
    assert "The Hub refuses" in text
    assert there.tokens == {""}


# ------------------------------------------------------------------------------------ the card


def test_the_card_tells_what_the_file_tells():
    card = model_card("cat", METADATA, [Sample("samples/a b.png", "a cat")], has_front=True)
    front, body = card.split("---\n")[1:]
    assert 'base_model: "owner/base"' in front
    assert '"ball", "toy"' in front
    assert 'instance_prompt: "zib ball"' in front
    assert "# A zib \\[ball\\]" in body
    assert "Draws &lt;b>balls" in body
    assert "![a cat](samples/a%20b.png)" in body
    assert "| `network_dim` | 8 |" in body
    assert "a \\| b" in body
    assert "kit train cat.safetensors" in body


@pytest.mark.parametrize(
    ("license_name", "line"),
    [("MIT", 'license: "mit"'), ("ask me: first", 'license_name: "ask me: first"'), ("", "tags")],
)
def test_a_licence_that_the_hub_does_not_know_is_told_as_other(license_name, line):
    card = model_card("cat", {"modelspec.license": license_name}, [], has_front=True)
    assert line in card


def test_a_file_without_metadata_has_a_card_all_the_same():
    card = model_card("cat", {}, [], has_front=False)
    assert card.startswith("# cat\n")
    assert "Recipe" not in card


def test_trigger_words_are_those_of_the_folders():
    assert trigger_words(METADATA) == ["zib ball"]
    assert trigger_words({"ss_dataset_dirs": "{"}) == []


# ------------------------------------------------------------------------------------- going on


def test_a_run_goes_on_from_a_state_on_the_hub_bit_for_bit(there, tmp_path):
    model = write_tiny(tmp_path / "model", "sd1", thin=True)
    images = draw_images(tmp_path / "images")
    straight = toy_settings(model, images, tmp_path / "a", max_train_steps=4)
    run(straight)
    first = toy_settings(
        model, images, tmp_path / "b", max_train_steps=4, save_every_n_steps=2, save_state=True,
        save_state_to_huggingface=True, huggingface_path_in_repo="runs", **REPO,
    )  # fmt: skip
    plan = planning.plan(first)
    with listening(plan.run, settings=plan.settings) as tell:
        for event in train(plan):
            tell(event)
    place = "anna/cats/runs/toy-step00000002-state"
    again = toy_settings(
        model, images, tmp_path / "c", max_train_steps=4, resume=place, resume_from_huggingface=True
    )
    assert planning.plan(again).from_step == 2
    assert not [
        call for call in there.calls if call.startswith("GET") and call.endswith("state.pt")
    ]
    run(again)
    assert [call for call in there.calls if call.startswith("GET") and call.endswith("state.pt")]
    assert same(lora(tmp_path / "a"), lora(tmp_path / "c"))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("anna/cats/s", Place("anna/cats", "s", "main", "model")),
        ("anna/cats/a/b:v1", Place("anna/cats", "a/b", "v1", "model")),
        ("anna/cats/s:v1:dataset", Place("anna/cats", "s", "v1", "dataset")),
    ],
)
def test_a_place_on_the_hub_is_read_as_the_reference_reads_it(text, place):
    assert Place.named(text) == place


def test_a_state_that_is_not_there_is_told_before_anything_is_loaded(there, tmp_path):
    images = draw_images(tmp_path / "images")
    asked = toy_settings(
        tmp_path, images, tmp_path / "out", resume="anna/cats/no", resume_from_huggingface=True
    )
    with pytest.raises(SettingsError, match=r"\[saving\] resume: run.json cannot be fetched"):
        planning.plan(asked)
