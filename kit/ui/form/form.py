"""The form: three questions, what would happen, and every setting; always up to date.

    form = Form()
    form.settings                 what stands in it, checked
    form.fill(settings)           the other way round

It opens without torch: all that it asks is the settings and the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from kit import catalog, planning
from kit.dataset.data_sets import Words, words_of
from kit.dataset.subsets import read_subsets
from kit.errors import KitError, SettingsError
from kit.exchange.additional import with_additional
from kit.hosts import host
from kit.launching.command import processes_for
from kit.planning import Plan
from kit.planning.forecast import forecast
from kit.settings import Settings, declarations
from kit.settings.links import without_tokens
from kit.settings.rules import problems
from kit.ui import look
from kit.ui.form import problem_texts as texts
from kit.ui.form.debounce import Soon
from kit.ui.form.field import Field
from kit.ui.form.files import SettingsFiles
from kit.ui.form.inactive import idle_settings
from kit.ui.form.layouts import Shared
from kit.ui.form.model_line import family_of, mismatches, model_line, size_note, tidied
from kit.ui.form.pages import Pages
from kit.ui.form.plan_pictures import plan_pictures
from kit.ui.form.plan_words import length_of, sentence
from kit.ui.form.starters import Starters
from kit.ui.form.views import Views
from kit.ui.look import Shown, block, escaped, root
from kit.ui.pictures.pictures_in import PicturesIn
from kit.ui.pictures.places import datasets_folder
from kit.ui.sheet.contact_sheet import ContactSheet
from kit.ui.start.autofill import EXAMPLE_ANSWERS, Autofill
from kit.ui.start.device import lacking, precisions
from kit.ui.start.gpus import Gpus, too_few
from kit.ui.start.head import Head
from kit.ui.start.memory import Memory
from kit.ui.start.remedies import Remedies, Remedy
from kit.ui.start.sheet import sticky_sheet
from kit.ui.start.start import MODEL, PICTURES, Start
from kit.ui.welcome import connect_drive

PRECISION = "mixed_precision"
PATHS = (MODEL, "vae")  # typed or pasted, with quotes and tokens


class Form(Shown):
    """All settings as widgets; every change is checked at once and planned a moment later."""

    def __init__(self, settings: Settings | None = None, *, reopens: bool = False) -> None:
        """settings: what stands in it; reopens: what stood in it last, as kept on disk."""
        super().__init__()
        asked, shared = (settings or Settings()).flat(), Shared()
        idle = idle_settings(settings or Settings())
        self.fields = {
            name: Field(declared, asked[name], self._changed, shared, idle=idle.get(name, ""))
            for name, declared in declarations().items()
        }
        self.on_valid: list[Callable[[Settings], None]] = []
        self.on_planned: list[Callable[[], None]] = []
        self.plan: Plan | None = None
        self.scripts: list[look.Script] = []  # of what is put into it from outside
        self._is_filling, self._what = True, ""
        self._has_seen_pictures = False
        self.is_training = False  # set from outside: then no folder is renamed
        self._problems: tuple[str, ...] = ()
        self._missing: tuple[str, ...] = ()  # no mistakes: questions that are not answered yet
        self._plan_soon = Soon(self._replan)
        self._make_parts()
        self.on_valid.append(self.files.offer)
        self.autofill.is_following = settings is None
        if not (reopens and self.memory.reopen()):
            self.memory.begin()
        self._is_filling = False
        self._refilled("")

    def show(self) -> None:
        """Show it here, with its scripts: the one that takes uploads, and what others added."""
        super().show()
        for script in (self.pictures_in.script, *self.scripts):
            look.display(script)

    def _make_parts(self) -> None:
        self.pages = Pages(self.fields)
        self.views = Views(self.fields, self.pages, self.changed)
        self.sentence = block(css="kit-sum")
        self.plan_line = block(css="kit-plan")
        self.pictures = block()
        self.images = ContactSheet(
            self.refresh, lambda folders: self._take(folders, "the prepared folders")
        )
        self.remedies = Remedies(self._take)
        self.gpus = Gpus(self._take)
        self.pictures_in = PicturesIn(
            lambda: datasets_folder(host()), self._take_pictures, self._words, connect=connect_drive
        )
        of_pictures = [self.pictures_in.root, self.images.root]
        self.start = Start(self.fields, of_pictures, self._changed)
        self.starters = Starters(self.readable, self.fill)
        self.files = SettingsFiles(lambda: self.settings, self.readable, self.fill)
        self.files_place = widgets.VBox([self.files.root], layout=widgets.Layout(width="100%"))
        self.autofill = Autofill(self.fields, self.start)
        self.memory = Memory(self.fields, self.start, self.autofill)
        self.head = Head(
            self.start,
            self.autofill,
            self.memory,
            readable=self.readable,
            fill=self.fill,
            refilled=self._refilled,
            filling=self._filling,
            files=self.files_place,
        )
        # Filled from outside: the bars, and the run beneath the upper one and what it tells.
        self.top, self.run, self.end = widgets.VBox([]), widgets.VBox([]), widgets.VBox([])
        for place in (self.top, self.run, self.end):
            place.add_class("kit-place")
        self.views.bar.children = (
            *self.views.bar.children, self.starters.preset, self.starters.reset_button,
        )  # fmt: skip
        self.root = root(
            sticky_sheet(),
            self.head.root,
            self.start.root,
            self.gpus.root,
            self.top,
            self.remedies.root,  # what can be mended by a click, before what is to be read
            self.plan_line,
            self.run,
            self.starters.root,
            self.views.root,
            self.pictures,
            self.files_place,
            self.end,
        )

    @property
    def settings(self) -> Settings:
        """What stands in the form.

        Raises: SettingsError with every wrong value at once. What contradicts is the plan's to say.
        """
        return Settings().replace(**{name: field.value for name, field in self.fields.items()})

    def readable(self) -> Settings:
        """What stands in the form as far as it can be read; a wrong value counts as its default."""
        values = {name: field.value for name, field in self.fields.items()}
        try:
            return Settings().replace(**values)
        except SettingsError as error:
            wrong = texts.by_setting(error.problems, self.fields)
        return Settings().replace(**{n: v for n, v in values.items() if n not in wrong})

    @property
    def problems(self) -> tuple[str, ...]:
        """What stands in the way of a training: wrong values, contradictions, folders, files."""
        self._plan_soon.finish()
        return (*self._missing, *self._problems)

    @property
    def mistakes(self) -> tuple[str, ...]:
        """The problems without questions that are only not answered yet."""
        self._plan_soon.finish()
        return self._problems

    def changed(self) -> list[str]:
        """The settings that differ from their defaults, wrong values included."""
        return [name for name, field in self.fields.items() if field.is_changed]

    def fill(self, settings: Settings, what: str = "filled in") -> None:
        """Put settings into the form; what: what Undo calls it."""
        self.autofill.is_following = False  # what a file or a preset says is not the start's
        self.files.forget()
        self._take(settings.flat(), what)

    def _take(self, values: Mapping[str, Any], what: str) -> None:
        """Put some values into the form, as one change."""

        def put() -> None:
            for name, value in values.items():
                self.fields[name].value = value

        self._filling(put)
        self._refilled(what)

    def _take_pictures(self, folder: Path) -> None:
        """Train on a folder that was chosen or uploaded; a blank trigger word is the folder's."""
        answers, words = self.start.answers, words_of(folder)
        if words is not None and not answers.words:
            self.start.answers = replace(
                answers, trigger_word=words.trigger, class_word=words.class_word
            )
        self._take({PICTURES: str(folder)}, "the pictures")

    def _words(self) -> Words:
        """Trigger and class word for pictures that arrive; the example's are not theirs."""
        if self.start.answers == EXAMPLE_ANSWERS:
            return Words()
        return Words(self.start.answers.trigger_word, self.start.answers.class_word)

    def _filling(self, job: Callable[[], None]) -> None:
        """Do a job that changes many fields; they are checked once, by `_refilled`."""
        self._is_filling = True
        try:
            job()
        finally:
            self._is_filling = False

    def _refilled(self, what: str) -> None:
        """Check and plan now; what: what Undo calls the change."""
        self._what = what
        self._changed()
        self._plan_soon.finish()
        self.pictures_in.offer(str(self.fields[PICTURES].value))
        self.starters.forget()
        self.views.update()

    def show_problem(self) -> None:
        """Open the tab of the first field that is wrong."""
        for name, field in self.fields.items():
            if field.problem:
                self.start.fold(is_folded=False)
                self.views.show_all()
                self.pages.open(self.fields[name].declared.box)
                return

    def refresh(self) -> None:
        """Check and plan anew: something other than a field has changed, such as the pictures."""
        self._changed()

    def _changed(self) -> None:
        """Check; while many fields are filled, once at the end."""
        if self._is_filling:
            return
        self._tidy()
        try:
            settings = self.settings
            found = tuple(problems(settings))
        except SettingsError as error:
            settings, found = None, error.problems
        self._mark(found, settings)
        self._plan_soon()

    def _tidy(self) -> None:
        """Take quotes, and a link's token, out of what was typed, before it is kept anywhere."""
        for name, field in self.fields.items():
            typed = field.value
            if name in PATHS:
                tidy = tidied(typed)
            elif isinstance(typed, str) and "://" in typed:
                tidy = without_tokens(typed)
            else:
                continue
            if tidy != typed:
                self._filling(partial(setattr, field, "value", tidy))

    def _replan(self) -> None:
        """Plan anew, and show it in words and pictures."""
        what, self._what = self._what, ""
        followed: list[str] = []
        self._filling(lambda: followed.append(self.autofill.follow()))
        what = what or followed[0]
        if not self.is_training:
            self.pictures_in.use_words(self._words())
        self.plan, settings, notices = None, None, list[str]()
        try:
            settings = self.settings
            processes = processes_for(settings.machine)
            self.plan = planning.plan(settings, processes=processes)
            refused, notices = texts.divided(self.plan.notices)
        except SettingsError as error:
            refused = list(error.problems)
        except (KitError, OSError) as error:
            refused = [str(error)]
        refused, self._missing = texts.without_missing(refused)
        self._problems = tuple(refused + self._lacking(settings))
        self._mark(self._problems, settings)
        if followed[0]:
            self.views.update()
        self._show_plan(notices, family_of(settings) if settings else "")
        if self.plan and settings:
            for tell in self.on_valid:
                tell(settings)
        self.memory.note(what)
        for told in self.on_planned:
            told()

    def _lacking(self, settings: Settings | None) -> list[str]:
        """What this machine lacks of what is asked for; what can be mended has a button."""
        if settings is None or not settings.model.pretrained_model_name_or_path:
            self.remedies.update([])
            return []
        said = partial(texts.with_labels, fields=self.fields)
        found = [
            Remedy(said(each.text), said(each.button), each.values)
            for each in mismatches(settings.model, settings.noise, settings.images.size)
        ]
        asked_of_gpus = too_few(settings.machine)
        if asked_of_gpus:
            found.append(replace(asked_of_gpus, text=said(asked_of_gpus.text)))
        told = lacking(settings.memory.mixed_precision)
        if told:
            best = precisions()[-1]
            label = "32 bits" if best == "no" else best
            text = f"{self.fields[PRECISION].declared.label}: {told}."
            found.append(Remedy(text, f"Use {label}", {PRECISION: best}))
        self.remedies.update(found)
        return [f"[memory] {PRECISION}: {told}"] if told else []

    def _show_plan(self, notices: Iterable[str], family: str) -> None:
        told = [texts.with_place(problem, self.fields) for problem in self._problems]
        if self.plan is not None:
            captions = [each.caption for each in self.plan.images if not each.is_reg]
            hint = self.autofill.wordless(captions.count("")) or self.autofill.unspoken(captions)
            told_first = f"<div class='kit-finding'>{escaped(hint)}</div>" if hint else ""
            expected = texts.with_labels(forecast(self.plan), self.fields)
            self.sentence.value = told_first + sentence(length_of(self.plan), expected)
        else:
            self.sentence.value = "<div>Not ready to train.</div>"
        if self._missing:
            self.sentence.value = f"<div>{self.autofill.missing()}</div>"
        shown = texts.not_ready(told) if told else ""
        labelled = [texts.with_labels(text, self.fields) for text in notices]
        self.plan_line.value = shown + texts.notices(labelled, is_more=bool(told))
        self.pictures.value = plan_pictures(self.plan, family) if self.plan else ""
        self.images.update(self.plan)
        if self.plan and self.autofill.is_following and not self._has_seen_pictures:
            self._has_seen_pictures = True  # afterwards the person decides
            self.images.open()
        self.start.show_family(self.autofill.family())

    def _mark(self, found: tuple[str, ...], settings: Settings | None) -> None:
        values = {name: field.value for name, field in self.fields.items()}
        wrong = texts.by_setting(found, self.fields)
        family = family_of(settings) if settings else ""
        counted, *_ = with_additional(settings or self.readable())
        try:
            subsets = read_subsets(counted)
        except SettingsError:  # its own problems are told; which subsets there are is open
            subsets = ()
        idle = idle_settings(counted, subsets, family)
        notes = {
            MODEL: model_line(str(values[MODEL])),
            "LoRA_type": f"{catalog.read_by(values).sentence}.",
        }
        if settings:
            self.gpus.follow(settings.machine)
            notes["resolution"] = size_note(settings.model, settings.images.size)
        for name, field in self.fields.items():
            field.mark(
                problem=wrong.get(name, ""),
                idle=idle.get(name, ""),
                note=notes.get(name, ""),
            )
        self.pages.mark({self.fields[name].declared.box for name in wrong})
