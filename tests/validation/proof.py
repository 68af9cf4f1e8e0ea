"""Does the recommendation find the file to keep? Twenty runs that are built to end badly.

    python -m tests.validation.proof WORK_DIR [train | grade | measure | table]   # by hand

Runs on the embedded base: too long, too fast, without regularisation. Each leaves six files, and
the demo's checker grades every one of them: is the subject drawn right, and what the base knew
besides, 60 pictures each, with three sampling seeds. The recommendation never sees the checker.
Every part is resumed when run again. Without a word: all of them. About an hour of one core.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kit import planning
from kit.adapters.network import attach, parts_of
from kit.basemodel import detect
from kit.choosing.record import Record, read_record
from kit.comparing.job import Wishes, compare
from kit.demo import BASE, grading
from kit.demo.grading import grade_subject, grade_vocabulary
from kit.demo.scenes import (
    BACKGROUNDS,
    PLACES,
    SUBJECT,
    SUBJECT_SHAPE,
    draw_subject,
    scenes,
)
from kit.families import Family, Prediction
from kit.families.loading import load_family
from kit.families.text import TextConditioner
from kit.lorafile import tensors
from kit.settings import NetworkSettings, Settings
from kit.sinks import Console, listening
from kit.training.loop import train
from kit.training.sampling import SamplePipeline

FILES, HELD_OUT, OTHER_PROMPTS = 6, 4, 8
PICTURES, SEEDS = 60, (1, 2, 3)  # of a grade; of sampling, and of the choice of other scenes
SAMPLING_STEPS = 6  # of DDIM; with them the bare base draws 60 of 60 others right, as with 20
CAPTIONS = {
    "full": "a {subject} on a {background} background, {place}",
    "background": "a {subject} on a {background} background",
}


Grades = dict[str, dict[str, list[float]]]  # by file and seed: subject, others


@dataclass(frozen=True)
class Row:
    """How a run is made."""

    pictures: int  # that are trained
    rate: float
    steps: int
    captions: str = "full"
    rank: int = 16
    text_encoder: float = 1.0  # its rate beside the U-Net's
    backgrounds: int = 4


# The first twenty were there when the measure was found.
RUNS = (
    Row(8, 3e-3, 360),
    Row(4, 3e-3, 360),
    Row(12, 5e-3, 240),
    Row(6, 3.5e-3, 300, "background"),
    Row(10, 4e-3, 300),
    Row(5, 3.5e-3, 300),
    Row(8, 4e-3, 240, "background", backgrounds=3),
    Row(6, 5e-3, 180),
    Row(12, 4e-3, 300),
    Row(4, 4e-3, 240),
    Row(8, 3.5e-3, 300, "background"),
    Row(10, 5e-3, 240, text_encoder=0.5),
    Row(6, 3e-3, 360, rank=32),
    Row(12, 3.5e-3, 360),
    Row(4, 3.5e-3, 300, "background"),
    Row(5, 3e-3, 360, rank=8),
    Row(8, 4e-3, 300, text_encoder=0.5),
    Row(10, 3e-3, 360, rank=32),
    Row(6, 4e-3, 240, backgrounds=3),
    Row(12, 4.5e-3, 240, "background"),
    # Fresh ones, begun when the measure was settled.
    Row(7, 3e-3, 360),
    Row(9, 4e-3, 240),
    Row(5, 3.5e-3, 360, "background"),
    Row(11, 3.5e-3, 300, rank=8),
    Row(6, 3e-3, 300, text_encoder=0.5),
)
RUN = 20
DRAWN = 12  # pictures of the subject, and of other prompts, for each file
RESULTS = Path(__file__).with_name("proof.json")


def name_of(number: int) -> str:
    """`run-03`."""
    return f"run-{number:02d}"


def pictures(folder: Path, row: Row, seed: int) -> Path:
    """The subject over the backgrounds and places in a shuffled order, those held out as well."""
    inside = folder / f"1_{SUBJECT} {SUBJECT_SHAPE}"
    if inside.exists():
        return folder
    inside.mkdir(parents=True)
    random = np.random.default_rng((seed, 15))
    places = [
        (ground, place) for ground in list(BACKGROUNDS)[: row.backgrounds] for place in PLACES
    ]
    order = random.permutation(len(places))
    for number in range(row.pictures + HELD_OUT):
        background, place = places[order[number % len(places)]]
        draw_subject(background, place, random).save(inside / f"{number:02d}.png")
        caption = CAPTIONS[row.captions].format(
            subject=f"{SUBJECT} {SUBJECT_SHAPE}", background=background, place=place
        )
        (inside / f"{number:02d}.txt").write_text(caption, "utf-8")
    return folder


def other_prompts(seed: int) -> list[str]:
    """What a person also wants it to draw: scenes of the base's vocabulary."""
    everything = list(scenes())
    rows = np.random.default_rng((seed, 16)).choice(len(everything), OTHER_PROMPTS, replace=False)
    return [everything[row].caption for row in rows]


def settings_of(number: int, work: Path) -> Settings:
    """A run's settings; its sample prompts are there, but nothing is drawn along the way."""
    row, name = RUNS[number - 1], name_of(number)
    prompts = [
        CAPTIONS["full"].format(subject=f"{SUBJECT} {SUBJECT_SHAPE}", background=b, place=p)
        for b, p in zip(BACKGROUNDS, PLACES, strict=False)
    ]
    options = "--w 64 --h 64 --l 3 --s 6"
    return Settings().replace(
        pretrained_model_name_or_path=str(BASE),
        train_data_dir=str(pictures(work / f"images-{number:02d}", row, number)),
        output_dir=str(work / name),
        output_name=name,
        resolution="64,64",
        train_batch_size=4,
        max_train_steps=row.steps,
        mixed_precision="no",
        LoRA_type="Kohya LoCon",
        network_dim=row.rank,
        network_alpha=row.rank,
        conv_dim=row.rank,
        conv_alpha=row.rank,
        unet_lr=row.rate,
        text_encoder_lr=row.rate * row.text_encoder,
        optimizer_type="AdamW",
        lr_scheduler="constant",
        save_every_n_epochs=0,
        save_every_n_steps=row.steps // FILES,
        validation_count=HELD_OUT,
        sample_prompts="\n".join(f"{p} {options}" for p in [*prompts, *other_prompts(number)]),
        sample_sampler="ddim",
        seed=number,
    )


def trained(number: int, work: Path) -> list[Path]:
    """The run's six files, the earliest first; trained where they are not there."""
    name = name_of(number)
    last = work / name / f"{name}.safetensors"
    if not last.exists():
        plan = planning.plan(settings_of(number, work))
        with listening(plan.run) as tell:
            for event in train(plan):
                tell(event)
    along = sorted((work / name).glob(f"{name}-step*.safetensors"))
    gap, steps = RUNS[number - 1].steps // FILES, RUNS[number - 1].steps
    return [p for p in along if int(p.stem[-8:]) % gap == 0 and int(p.stem[-8:]) < steps] + [last]


def base_family() -> Family:
    """The embedded base in 32 bits."""
    return load_family(
        detect(BASE),
        predicts=Prediction.EPSILON,
        device=torch.device("cpu"),
        dtype=torch.float32,
        vae_dtype=torch.float32,
    )


@contextmanager
def merged(family: Family, lora: Path) -> Iterator[None]:
    """The LoRA in the weights themselves inside the block: nothing is added at each call."""
    network = attach(
        NetworkSettings(network_weights=str(lora), dim_from_weights=True),
        family,
        learns=parts_of(family),
        seed=0,
        start=tensors.read_lora(lora).tensors,
    ).eval()
    network.detach_hooks()
    kept = []
    with torch.no_grad():
        for _, adapter in network.named():
            weight = adapter.layer.weight
            kept.append((weight, weight.clone()))
            weight.add_(adapter.delta().reshape(weight.shape))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, before in kept:
                weight.copy_(before)


def graded(pipeline: SamplePipeline, seed: int) -> tuple[float, float]:
    """The shares of the subject's and of other pictures that are right."""
    grading.STEPS, grading.BATCH = SAMPLING_STEPS, PICTURES
    subject = grade_subject(pipeline, count=PICTURES, seed=seed)
    others = grade_vocabulary(pipeline, count=PICTURES, seed=seed)
    return subject.share, others.share


def grade(number: int, work: Path, chosen: Sequence[str] = ()) -> Grades:
    """By file and seed; every grade is kept at once, and what is there is not made again.

    The first seed grades every file; the others the last one, the best of the first seed (the
    oracle's), and those that are chosen.
    """
    kept = work / f"{name_of(number)}.grades.json"
    found: Grades = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    files = {path.stem: path for path in trained(number, work)}
    family = base_family()
    pipeline = SamplePipeline(TextConditioner(family), "ddim", nullcontext)

    def ask(names: Iterable[str], seeds: Sequence[int]) -> None:
        for name in names:
            grades = found.setdefault(name, {})
            todo = [seed for seed in seeds if str(seed) not in grades]
            with merged(family, files[name]) if todo else nullcontext():
                for seed in todo:
                    grades[str(seed)] = list(graded(pipeline, seed))
            kept.write_text(json.dumps(found, indent=1), "utf-8")

    ask(files, SEEDS[:1])
    best = max(files, key=lambda name: sum(found[name][str(SEEDS[0])]))
    ask(dict.fromkeys([best, list(files)[-1], *chosen]), SEEDS)
    return found


def score(grades: dict[str, list[float]]) -> float:
    """The mean of subject and others over the seeds, in points of a hundred."""
    return 100 * float(np.mean([value for pair in grades.values() for value in pair]))


def chosen(number: int, work: Path) -> Record:
    """What `kit choose` says of the run; it never sees the checker."""
    name = name_of(number)
    folder = work / name / f"{name}.run"
    if (record := read_record(folder)) is not None:
        return record
    with closing(Console()) as console:
        job = compare(folder, Wishes(count=DRAWN))
        while True:
            try:
                console(next(job))
            except StopIteration as end:
                found: Record = end.value
                return found


def told_of(number: int, work: Path) -> dict[str, Any]:
    """A run's line: scores of its files, of the pick, the last, the oracle, a random one."""
    record = chosen(number, work)
    best, last = record.choice.best, record.choice.last
    grades = grade(number, work, [Path(best.file).stem])
    first = {name: score({"1": each["1"]}) for name, each in grades.items()}
    pick, end = grades[Path(best.file).stem], grades[Path(last.file).stem]
    apart = [
        50 * (sum(one) - sum(other)) for one, other in zip(pick.values(), end.values(), strict=True)
    ]
    return {
        "run": name_of(number),
        **dataclasses.asdict(RUNS[number - 1]),
        "steps_of_files": sorted(file.step for file in record.choice.ranked),
        "scores": [round(score(grades[path.stem]), 1) for path in trained(number, work)],
        "pick_step": best.step,
        "sure": record.choice.share,
        "pick": round(score(pick), 1),
        "last": round(score(end), 1),
        "oracle": round(max(score(each) for each in grades.values() if len(each) == 3), 1),
        "random": round(sum(first.values()) / len(first), 1),
        "pick_minus_last": round(float(np.mean(apart)), 1),
        "noise": round(float(2 * np.std(apart, ddof=1) / np.sqrt(len(apart))), 1),
        "grades": grades,
        "measured": json.loads(record.to_json())["files"],
    }


def summary(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the runs say together."""
    worse = [each["run"] for each in lines if each["pick_minus_last"] < -each["noise"]]
    ends_badly = [each["last"] <= max(each["scores"]) - 10 for each in lines]
    return {
        "runs": len(lines),
        "last at least 10 below the best": sum(ends_badly),
        "pick beats last": sum(each["pick"] > each["last"] for each in lines),
        "pick worse than last by more than noise": worse,
        **{
            name: round(float(np.mean([each[name] for each in lines])), 1)
            for name in ("pick", "last", "oracle", "random")
        },
    }


def main(work: Path, what: str) -> None:
    """Do what is not done yet, and write the results beside this file."""
    torch.set_num_threads(1)
    lines = []
    for number in range(1, len(RUNS) + 1):
        trained(number, work)
        if what in ("all", "grade"):
            grade(number, work)
        if what in ("all", "measure"):
            chosen(number, work)
        if what in ("all", "table"):
            lines.append(told_of(number, work))
            print({k: v for k, v in lines[-1].items() if k not in ("grades", "measured")})
    if lines:
        parts = {"first 20": summary(lines[:RUN]), "fresh": summary(lines[RUN:])}
        RESULTS.write_text(json.dumps({"summary": parts, "runs": lines}, indent=1), "utf-8")
        print(json.dumps(parts, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "all")
