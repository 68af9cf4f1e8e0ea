"""A run's files side by side, on the embedded base: which one is picked, and what is missing."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kit import planning
from kit.choosing.record import read_record
from kit.cli import main
from kit.comparing import job
from kit.comparing.files import files_of, spread
from kit.comparing.job import Wishes, _settings, compare
from kit.demo import BASE
from kit.errors import KitError
from kit.events import Cached, Noticed
from kit.runs.finding import find_run
from kit.settings import Settings
from kit.sinks import listening
from kit.training.loop import train
from kit.validation.class_word import SCALE, STEPS
from tests.validation.proof import Row, pictures

OTHERS = ("a green triangle on a white background, center", "a red ring on a black background, top")
QUICK = Wishes(count=4)


def settings_of(folder, **changes):
    options = "--w 64 --h 64 --l 3 --s 4"
    return Settings().replace(
        pretrained_model_name_or_path=str(BASE),
        train_data_dir=str(pictures(folder / "images", Row(4, 0, 0), 1)),
        output_dir=str(folder / "out"),
        output_name="zib",
        resolution="64,64",
        train_batch_size=4,
        max_train_steps=30,
        mixed_precision="no",
        save_precision="float",
        network_dim=16,
        network_alpha=16,
        unet_lr=3e-3,
        text_encoder_lr=3e-3,
        optimizer_type="AdamW",
        lr_scheduler="constant",
        save_every_n_epochs=0,
        validation_count=4,
        validate_every_n_epochs=1000,
        sample_prompts="\n".join(f"{prompt} {options}" for prompt in OTHERS),
        seed=3,
        **changes,
    )


def stronger(file: Path, other: Path, times: float, step: int) -> None:
    """The same LoRA with its change so many times as strong: hardly learned, or spoiled."""
    with safe_open(file, "pt") as opened:
        metadata = {**opened.metadata(), "ss_steps": str(step)}
    tensors = {
        name: tensor * times if name.endswith("lora_up.weight") else tensor
        for name, tensor in load_file(file).items()
    }
    save_file(tensors, other, metadata)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with a file that has hardly learned, one that has, and a last one that is spoiled."""
    folder = tmp_path_factory.mktemp("run")
    plan = planning.plan(settings_of(folder))
    with listening(plan.run) as tell:
        for event in train(plan):
            tell(event)
    out = folder / "out"
    last, right = out / "zib.safetensors", out / "zib-step00000020.safetensors"
    shutil.copy(last, right)
    stronger(right, out / "zib-step00000010.safetensors", 0.05, 10)
    stronger(right, last, 5, 30)
    return folder


def outcome(run, wishes=QUICK):
    work, told = compare(run, wishes), []
    while True:
        try:
            told.append(next(work))
        except StopIteration as end:
            return end.value, told


@pytest.fixture(scope="module")
def chosen(trained):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    found = outcome(trained / "out" / "zib")
    assert torch.equal(before, torch.get_rng_state())
    return found


def by_step(record):
    return {file.step: file for file in record.choice.ranked}


def test_neither_the_unlearned_nor_the_spoiled_file_is_picked(chosen):
    record, _ = chosen
    assert record.choice.best.file == "zib-step00000020.safetensors"
    assert record.choice.last.file == "zib.safetensors"


def test_every_measure_tells_what_it_is_for(chosen):
    files = by_step(chosen[0])
    means = {step: sum(file.likeness) / 4 for step, file in files.items()}
    kept = {step: sum(file.fidelity) / 4 for step, file in files.items()}
    assert means[20] > means[10] and means[20] > means[30]
    assert kept[10] > 0.9 and kept[10] > kept[20] > kept[30]
    losses = {step: file.losses for step, file in files.items()}
    assert losses[20].on == "held-out"
    assert losses[20].gain > losses[10].gain > -0.05
    assert losses[30].prior > losses[20].prior > losses[10].prior > -0.05


def test_the_class_words_pictures_are_drawn_as_along_a_run_and_numbers_are_the_same_again(
    trained, chosen, monkeypatch
):
    """Whatever the sample prompts ask for: guided at 7.5, the base hardly explains its own."""
    asked, add = [], job.add_drawn

    def hears(stills, prompts, latents):
        asked.extend(prompts)
        add(stills, prompts, latents)

    monkeypatch.setattr(job, "add_drawn", hears)
    assert outcome(trained / "out" / "zib.safetensors")[0] == chosen[0]
    assert {(p.scale, p.steps, p.width, p.height) for p in asked} == {(SCALE, STEPS, 64, 64)}
    assert len(asked) == 4


def test_it_lies_in_the_runs_folder_with_the_pictures(chosen, trained):
    record, told = chosen
    folder = trained / "out" / "zib.run"
    assert read_record(folder) == record
    with Image.open(folder / record.grid) as picture:
        assert picture.height > 4 * 192  # the bare base, and three files
    progress = [event for event in told if isinstance(event, Cached)]
    assert progress[-1].done == progress[-1].total == 4 * 8 + 4
    assert not [event for event in told if isinstance(event, Noticed)]


def test_the_bare_base_is_as_before(trained, tmp_path):
    """The files are worn one after the other: an empty one gives what the base draws."""
    out = tmp_path / "out"
    shutil.copytree(trained / "out" / "zib.run", out / "zib.run")
    shutil.copy(trained / "out" / "zib-step00000020.safetensors", out)
    stronger(out / "zib-step00000020.safetensors", out / "zib-step00000025.safetensors", 0, 25)
    file = by_step(outcome(out / "zib")[0])[25]
    assert file.fidelity == (1, 1, 1, 1)
    assert sum(file.likeness) == pytest.approx(0, abs=1e-3)
    assert file.losses.gain == 0 and file.losses.prior == 0


def test_what_is_missing_is_told_and_it_goes_on(trained, tmp_path):
    """No held-out picture, one picture, no other prompt, no encoder."""
    folder = tmp_path / "few"
    shutil.copytree(trained, folder)
    toml = folder / "out" / "zib.run" / "run.toml"
    settings = Settings.load(toml).replace(
        train_data_dir=str(folder / "images"),
        output_dir=str(folder / "out"),
        validation_count=0,
        sample_prompts="",
        sample_every_n_epochs=0,
    )
    toml.write_text(settings.to_toml(), "utf-8")
    for path in sorted((folder / "images").rglob("*.png"))[1:]:
        path.unlink()
    record, told = outcome(folder / "out" / "zib", Wishes(str(folder / "nothing"), count=2))
    text = " ".join(event.text for event in told if isinstance(event, Noticed))
    for words in ("no picture is held out", "one picture", "--prompts", "cannot be had"):
        assert words in text and any(words in notice for notice in record.notices)
    assert record.eye == "the base model's own features"
    assert record.choice.best.losses.on == "trained"
    assert len(record.choice.best.likeness) == len(record.choice.best.fidelity) == 2


def test_a_run_without_a_file_is_refused(trained, tmp_path):
    shutil.copytree(trained / "out" / "zib.run", tmp_path / "zib.run")
    with pytest.raises(KitError, match="no LoRA file"):
        next(compare(tmp_path / "zib"))


def test_what_the_run_began_from_may_be_gone(trained, tmp_path):
    """A LoRA that it went on with, a state, a logger: nothing of them is needed to compare."""
    gone = {"network_weights": "gone.safetensors", "dim_from_weights": True, "resume": "a/b/c"}
    began = Settings.load(trained / "out" / "zib.run" / "run.toml").replace(
        **gone, resume_from_huggingface=True, log_with="wandb"
    )
    (tmp_path / "run.toml").write_text(began.to_toml(), "utf-8")
    assert len(planning.plan(_settings(tmp_path), unfinished="begin anew").images) == 8


def test_files_are_spread_over_the_run(trained):
    files = files_of(find_run(trained / "out" / "zib"))
    assert [file.step for file in files] == [10, 20, 30]
    assert [file.step for file in spread(files, 2)] == [10, 30]
    assert spread(files, 1) == files[-1:]
    assert spread(files, 9) == files


def test_the_command_says_which_and_why(chosen, trained, capsys):
    assert main(["choose", str(trained / "out" / "zib"), "--count", "2", "--most", "2"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Keep zib-step00000010.safetensors (step 10).")  # of the two
    assert "other prompts" in text and "choice.jpg" in text
    assert main(["choose", str(trained / "out" / "zib"), "--count", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["files"]) == 3
    assert main(["choose", str(trained / "nothing")]) == 2
