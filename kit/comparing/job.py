"""`kit choose`: a run's files are measured and drawn side by side, and one is picked.

    for event in compare("output/cat"): ...        # how far it has come, and what is missing

Its result lies in the run's folder: choice.json, and choice.jpg with the best files' pictures.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from kit import planning
from kit.adapters.network import Network
from kit.choosing.measures import Losses, Measured
from kit.choosing.picking import SHOWN, pick
from kit.choosing.record import Record, write_record
from kit.comparing.drawing import Pictures, draw
from kit.comparing.eyes import Eye, OwnEye, encoder_eye
from kit.comparing.files import LoraPath, files_of, spread
from kit.comparing.grid import save_grid
from kit.comparing.model import Loader, Model
from kit.comparing.seeing import first_sight
from kit.comparing.source import Asked, Source
from kit.devices import at_work, free_memory
from kit.diffusion.inpainting import takes_inpaint_cond
from kit.errors import KitError
from kit.events import Cached, Event, Noticed
from kit.runs.finding import Found, find_run
from kit.settings import Settings
from kit.training.class_word import add_drawn
from kit.validation.answers import Answers
from kit.validation.meter import read
from kit.validation.questions import Question

WHAT = "pictures to compare"
COUNT, MOST = 8, 8  # pictures of the subject and of other prompts for each file; files


@dataclass(frozen=True)
class Wishes:
    """How a person wants the files compared."""

    encoder: str = ""  # a Hub id; "": the base model's own features
    prompts: str = ""  # other prompts, as in sample_prompts; "": the run's own
    count: int = COUNT
    most: int = MOST


@dataclass
class _Job:
    """What is asked of each file, and how far it has come."""

    model: Model
    asked: Asked
    total: int
    done: int = 0
    drawn: dict[str, Pictures] = field(default_factory=dict)


def compare(run: str | Path, wishes: Wishes = Wishes()) -> Generator[Event, None, Record]:
    """Measure every file of a run, draw with it, and pick one.

    What is missing is told in a sentence, and it goes on without. To leave early loses nothing.

    Raises: KitError where the run, its pictures or its base model are not there.
    """
    found, notices = find_run(run), list[str]()
    files = yield from _noted(_chosen_files(found, wishes.most), notices)
    settings = _settings(found.works_in)
    plan = planning.plan(settings, unfinished="begin anew")
    with at_work(settings.machine):
        model = yield from Loader(plan.settings).model()
        source = Source(plan, model)
        asked = yield from _noted(source.asked(wishes.prompts, wishes.count), notices)
        total = (len(files) + 1) * len(asked.drawn.prompts) + len(asked.of_class)
        job = _Job(model, asked, total)
        eye = yield from _noted(_eye(model, wishes.encoder.strip()), notices)
        measured = yield from _measured(job, files, eye)
        free_memory()
    choice = pick(measured)
    best = [file.file for file in choice.ranked[:SHOWN]]
    grid = save_grid(found.kept_in, asked.drawn, {name: job.drawn[name] for name in ("", *best)})
    record = Record(choice, eye.name, grid.name, tuple(notices))
    write_record(found.kept_in, record)
    return record


Value = TypeVar("Value")


def _noted(job: Generator[Event, None, Value], notices: list[str]) -> Generator[Event, None, Value]:
    """The same job; what it notices is kept as well."""
    while True:
        try:
            event = next(job)
        except StopIteration as end:
            value: Value = end.value
            return value
        if isinstance(event, Noticed):
            notices.append(event.text)
        yield event


def _chosen_files(found: Found, most: int) -> Generator[Event, None, tuple[LoraPath, ...]]:
    every = files_of(found)
    files = spread(every, most)
    if len(files) < len(every):
        yield Noticed(f"{len(files)} of {len(every)} files are compared, evenly over the run")
    return files


def _eye(model: Model, encoder: str) -> Generator[Event, None, Eye]:
    """The encoder that is asked for; where it cannot be had, that is told, and the base's own."""
    if encoder:
        try:
            return encoder_eye(encoder, model.accelerator.device)
        except KitError as error:
            yield Noticed(" ".join(str(error).split("\n")))
    return OwnEye(model)


def _settings(folder: Path) -> Settings:
    """Those of the run, without what it began from, which may be gone, and without loggers."""
    settings = Settings.load(folder / "run.toml")
    blank = {"resume": "", "network_weights": "", "log_with": ""}
    off = {"dim_from_weights": False, "resume_from_huggingface": False}
    return settings.replace(**blank, **off)


def _measured(
    job: _Job, files: Sequence[LoraPath], eye: Eye
) -> Generator[Event, None, list[Measured]]:
    asked = job.asked
    base = yield from _drawn(job)
    job.drawn[""] = base
    yield from _class_word_drawn(job)
    losses: list[Losses] = []
    for file in files:
        with job.model.wearing(file.path) as network:
            losses.append(_losses(job, network))
            job.drawn[file.path.name] = yield from _drawn(job)
    sight = first_sight(eye, asked.drawn, base, asked.known)
    return [
        Measured(
            file.path.name,
            file.step,
            sight.likeness(job.drawn[file.path.name]),
            sight.fidelity(job.drawn[file.path.name]),
            told,
        )
        for file, told in zip(files, losses, strict=True)
    ]


def _drawn(job: _Job) -> Generator[Event, None, Pictures]:
    work = draw(job.model.pipeline, job.asked.drawn, rows=job.asked.rows)
    return (yield from _counted(job, work))


def _class_word_drawn(job: _Job) -> Generator[Event, None, None]:
    """The bare base's own pictures of it, to be asked about; inpainting models draw none alone."""
    prompts, stills = job.asked.of_class, job.asked.stills
    if not prompts or stills is None or takes_inpaint_cond(job.model.family):
        return
    work = job.model.pipeline.each_latent(prompts, rows=job.asked.rows)
    latents_BChw = yield from _counted(job, work)
    add_drawn(stills, prompts, latents_BChw)


def _counted(job: _Job, work: Generator[int, None, Value]) -> Generator[Event, None, Value]:
    """What is drawn, told picture by picture."""
    while True:
        try:
            job.done += next(work)
        except StopIteration as end:
            value: Value = end.value
            return value
        yield Cached(WHAT, job.done, job.total)


def _losses(job: _Job, network: Network) -> Losses:
    """How the file that is worn explains pictures."""
    stills = job.asked.stills
    if stills is None:
        return Losses()

    def answers(asked: tuple[Question, ...]) -> Answers:
        return stills.answers(
            asked, job.model, network, rows=job.asked.rows, is_stopped=lambda: False
        )

    trained = answers(stills.beside)
    prior = answers(stills.prior) if stills.prior else None
    own = prior.loss / prior.base_loss - 1 if prior and prior.base_loss else None
    if not stills.held_out:
        return Losses("trained", trained.gain, trained.gain, prior=own)
    held = answers(stills.held_out)
    reading = read(held, trained)
    return Losses("held-out", held.gain, trained.gain, reading.carried, reading.word, own)
