"""Where does a LoRA begin to memorise? The overfit meter beside what the LoRA can really draw.

    python -m tests.validation.experiment WORK_DIR        # resumed when run again; by hand

Runs on the embedded base that are built to be right, too long, too fast and of too few pictures.
Every so many steps the meter is read; at some of them the LoRA is graded by the demo's checker: is
the subject drawn right, and what the base knew besides. Prints a line a reading.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from kit import planning
from kit.basemodel import detect
from kit.demo import BASE, REGULARISATION
from kit.demo.grading import grade_subject, grade_vocabulary
from kit.demo.run import _wearing
from kit.demo.scenes import BACKGROUNDS, PLACES, SUBJECT, SUBJECT_SHAPE, draw_subject
from kit.events import Validated
from kit.families import Prediction
from kit.families.loading import load_family
from kit.families.text import TextConditioner
from kit.settings import Settings
from kit.sinks import Console, listening, read_events
from kit.training.loop import train
from kit.training.sampling import SamplePipeline

READ, GRADED = 40, 100  # steps
SUBJECTS, OTHERS = 40, 40  # pictures of a grade
COMMON = {
    "pretrained_model_name_or_path": str(BASE),
    "resolution": "64,64",
    "train_batch_size": 4,
    "mixed_precision": "no",
    "LoRA_type": "Kohya LoCon",
    "network_dim": 16,
    "network_alpha": 16,
    "conv_dim": 16,
    "conv_alpha": 16,
    "optimizer_type": "AdamW",
    "lr_scheduler": "constant",
    "save_every_n_epochs": 0,
    "save_every_n_steps": GRADED,
    "validate_every_n_steps": READ,
    "seed": 1,
}
# name: pictures in all, of which half are held out; learning rate; steps; with regularisation
RUNS = {
    "right": (24, 4e-4, 300, True),
    "long": (16, 1e-3, 240, False),
    "few": (8, 2e-3, 200, False),
    "fast": (16, 3e-3, 120, False),
}


def pictures(folder: Path, count: int) -> Path:
    """So many pictures of the subject, over the backgrounds and places in a shuffled order."""
    inside = folder / f"10_{SUBJECT} {SUBJECT_SHAPE}"
    if inside.exists():
        return folder
    inside.mkdir(parents=True)
    random = np.random.default_rng(11)
    scenes = [(background, place) for background in BACKGROUNDS for place in PLACES]
    order = random.permutation(len(scenes))
    for number in range(count):
        background, place = scenes[order[number % len(scenes)]]
        draw_subject(background, place, random).save(inside / f"{number:02d}.png")
        caption = f"a {SUBJECT} {SUBJECT_SHAPE} on a {background} background, {place}"
        (inside / f"{number:02d}.txt").write_text(caption, "utf-8")
    return folder


def settings_of(name: str, work: Path) -> Settings:
    """A run's settings."""
    count, rate, steps, with_reg = RUNS[name]
    return Settings().replace(
        **COMMON,
        train_data_dir=str(pictures(work / f"images-{count}", count)),
        reg_data_dir=str(REGULARISATION) if with_reg else "",
        output_dir=str(work / name),
        output_name=name,
        unet_lr=rate,
        text_encoder_lr=rate,
        max_train_steps=steps,
        validation_count=count // 2,
    )


def grades(name: str, work: Path) -> dict[int, tuple[float, float]]:
    """By step: the shares of the subject's and of other pictures that are right; kept in a file."""
    kept = work / f"{name}.json"
    found = (
        {int(k): tuple(v) for k, v in json.loads(kept.read_text()).items()} if kept.exists() else {}
    )
    files = {0: None} | {
        int(path.stem.rpartition("step")[2]): path
        for path in (work / name).glob("*-step*.safetensors")
    }
    files[RUNS[name][2]] = work / name / f"{name}.safetensors"
    family = load_family(
        detect(BASE),
        predicts=Prediction.EPSILON,
        device=torch.device("cpu"),
        dtype=torch.float32,
        vae_dtype=torch.float32,
    )
    pipeline = SamplePipeline(TextConditioner(family), "ddim", nullcontext)
    for step, path in sorted(files.items()):
        if step in found:
            continue
        with _wearing(family, path) if path else nullcontext():
            subject = grade_subject(pipeline, count=SUBJECTS)
            others = grade_vocabulary(pipeline, count=OTHERS)
        found[step] = (subject.share, others.share)
        kept.write_text(json.dumps(found))
    return found


def told(value: float | None) -> str:
    """Three places, or a dash."""
    return "    -" if value is None else f"{value:+.3f}"


def main(work: Path) -> None:
    """Train what is not trained yet, grade what is not graded yet, print everything."""
    for name in RUNS:
        settings = settings_of(name, work)
        if not (work / name / f"{name}.safetensors").exists():
            plan = planning.plan(settings)
            with listening(plan.run, Console(plan.total_steps)) as tell:
                for event in train(plan):
                    tell(event)
    for name in RUNS:
        found = grades(name, work)
        print(f"\n{name}: {RUNS[name]}; base: subject {found[0][0]:.0%}, others {found[0][1]:.0%}")
        print("step  held out, base   trained, base   gap  by band  auc  by band")
        for event in read_events(work / name / f"{name}.run" / "events.jsonl"):
            if isinstance(event, Validated):
                right = found.get(event.step)
                grade = f"  subject {right[0]:.0%} others {right[1]:.0%}" if right else ""
                print(
                    f"{event.step:4d}  {event.loss:.5f} {event.base_loss:.5f}  "
                    f"{event.trained_loss:.5f} {event.trained_base_loss:.5f}  {told(event.gap)} "
                    f"{' '.join(map(told, event.gaps))}  {told(event.auc)} "
                    f"{' '.join(map(told, event.aucs))}{grade}",
                    flush=True,
                )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
