"""The form: every setting in its tab, and beneath it what would happen, always up to date.

    form = Form()
    form.settings                 what stands in it, checked
    form.fill(settings)           the other way round

It opens without torch: all that it asks is the settings and the plan.
"""

from __future__ import annotations

from collections.abc import Callable

from kit import catalog, planning
from kit.errors import KitError, SettingsError
from kit.settings import Settings, declarations
from kit.settings.rules import problems
from kit.ui.form import problem_texts as texts
from kit.ui.form.debounce import Soon
from kit.ui.form.field import Field
from kit.ui.form.files import SettingsFiles
from kit.ui.form.inactive import idle_settings
from kit.ui.form.layouts import Shared
from kit.ui.form.model_line import family_of, model_line, size_note
from kit.ui.form.pages import Pages
from kit.ui.form.plan_pictures import plan_pictures
from kit.ui.form.plan_words import plan_words
from kit.ui.form.remembered import left_of_the_example
from kit.ui.form.starters import Starters
from kit.ui.form.views import Views
from kit.ui.look import Shown, block, root
from kit.ui.sheet.contact_sheet import ContactSheet

MODEL = "pretrained_model_name_or_path"


class Form(Shown):
    """All settings as widgets; every change is checked at once and planned a moment later."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__()
        asked, shared = (settings or Settings()).flat(), Shared()
        self.fields = {
            name: Field(declared, asked[name], self._changed, shared)
            for name, declared in declarations().items()
        }
        self.pages = Pages(self.fields)
        self.views = Views(self.fields, self.pages, self.changed)
        self.starters = Starters(lambda: self.settings, self._begin_with, self.fields[MODEL])
        self.plan_line = block(css="kit-plan")
        self.pictures = block()
        self.images = ContactSheet(lambda: self._plan_soon(), self._take_folders)
        self.files = SettingsFiles(lambda: self.settings, self.fill)
        self.root = root(
            self.starters.root,
            self.views.root,
            self.plan_line,
            self.pictures,
            self.images.root,
            self.files.root,
        )
        self.on_valid: list[Callable[[Settings], None]] = [self.files.offer]
        self.plan: planning.Plan | None = None
        self._is_filling = False
        self._problems: tuple[str, ...] = ()
        self._plan_soon = Soon(self._replan)
        self._changed()
        self._plan_soon.finish()

    @property
    def settings(self) -> Settings:
        """What stands in the form.

        Raises: SettingsError with every wrong value at once. What contradicts is the plan's to say.
        """
        return Settings().replace(**{name: field.value for name, field in self.fields.items()})

    @property
    def problems(self) -> tuple[str, ...]:
        """What stands in the way of a plan: wrong values, contradictions, or the folders."""
        self._plan_soon.finish()
        return self._problems

    def changed(self) -> list[str]:
        """The settings that differ from their defaults, wrong values included."""
        return [name for name, field in self.fields.items() if field.is_changed]

    def fill(self, settings: Settings) -> None:
        """Put settings into the form."""
        self._is_filling = True
        try:
            for name, value in settings.flat().items():
                self.fields[name].value = value
        finally:
            self._is_filling = False
            self._changed()
            self._plan_soon.finish()
        self.views.update()

    def _begin_with(self, settings: Settings) -> None:
        """Take what the strip above offers; no file told of it."""
        self.files.forget()
        self.fill(settings)

    def _take_folders(self, folders: dict[str, str]) -> None:
        """Train on folders that were just arranged."""
        for name, value in folders.items():
            self.fields[name].value = value

    def show_problem(self) -> None:
        """Open the tab of the first field that is wrong."""
        self.views.show_all()
        for name, field in self.fields.items():
            if field.problem:
                self.pages.open(self.fields[name].declared.box)
                return

    def _changed(self) -> None:
        """Check; while many fields are filled, once at the end."""
        if self._is_filling:
            return
        try:
            settings = self.settings
            found = tuple(problems(settings))
        except SettingsError as error:
            settings, found = None, error.problems
        self._mark(found, settings)
        self._plan_soon()

    def _replan(self) -> None:
        """Plan anew, and show it in words and pictures."""
        self.plan = None
        try:
            settings = self.settings
            self.plan = planning.plan(settings)
        except SettingsError as error:
            self._problems = error.problems
            told = [texts.with_place(problem, self.fields) for problem in error.problems]
            self.plan_line.value = texts.not_ready(told)
        except (KitError, OSError) as error:
            self._problems = (str(error),)
            self.plan_line.value = texts.not_ready([str(error)])
        else:
            self._problems = ()
            self.plan_line.value = plan_words(self.plan, left_of_the_example(settings))
            for tell in self.on_valid:
                tell(settings)
        self.pictures.value = plan_pictures(self.plan, family_of(settings)) if self.plan else ""
        self.images.update(self.plan)

    def _mark(self, found: tuple[str, ...], settings: Settings | None) -> None:
        values = {name: field.value for name, field in self.fields.items()}
        wrong = texts.by_setting(found, self.fields)
        family = family_of(settings) if settings else ""
        idle = idle_settings(values, family)
        notes = {
            MODEL: model_line(str(values[MODEL])),
            "LoRA_type": f"{catalog.read_by(values).sentence}.",
        }
        if settings and family:
            notes["resolution"] = size_note(
                settings.images.size, family, settings.model.pretrained_model_name_or_path
            )
        for name, field in self.fields.items():
            field.mark(
                problem=wrong.get(name, ""),
                idle=idle.get(name, ""),
                note=notes.get(name, ""),
            )
        self.pages.mark({self.fields[name].declared.box for name in wrong})
