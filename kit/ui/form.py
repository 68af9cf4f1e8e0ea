"""The form: every setting in its tab, and beneath it what would happen, always up to date.

    form = Form()
    form.settings                 what stands in it, checked
    form.fill(settings)           the other way round

It opens without torch: all that it asks is the settings and the plan.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import ipywidgets as widgets

from kit import planning
from kit.errors import KitError, OutputError, SettingsError
from kit.runs import write_atomically
from kit.settings import Settings, declarations
from kit.ui.effects import idle_settings
from kit.ui.look import Shown, block, escaped, root
from kit.ui.pages import Pages
from kit.ui.widgets import Field

NOT_READY = "<div class='is-bad'>Not ready to train:</div>"
PROBLEM = re.compile(r"^\[\w+\] (?P<name>\w+)(?P<colon>:)?\s*(?P<rest>.*)$", re.DOTALL)


class Form(Shown):
    """All settings as widgets; every change is checked and planned at once."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__()
        asked = (settings or Settings()).flat()
        self.fields = {
            name: Field(declared, asked[name], self._changed)
            for name, declared in declarations().items()
        }
        self.pages = Pages(self.fields)
        self.plan_line = block(css="kit-plan")
        self.path = widgets.Text(
            "run.toml", continuous_update=False, layout=widgets.Layout(width="260px")
        )
        self.load_button = _button("Load TOML", "Fill the form from this file")
        self.save_button = _button("Save TOML", "Write the form's settings to this file")
        self.file_line = block(css="kit-quiet")
        self.load_button.on_click(lambda _: self._tell(self._load))
        self.save_button.on_click(lambda _: self._tell(self._save))
        files = widgets.HBox(
            [self.path, self.load_button, self.save_button],
            layout=widgets.Layout(flex_flow="row wrap"),
        )
        self.root = root(self.pages.root, self.plan_line, files, self.file_line)
        self._is_filling = False
        self._problems: tuple[str, ...] = ()
        self._changed()

    @property
    def settings(self) -> Settings:
        """What stands in the form.

        Raises: SettingsError with every wrong value at once. What contradicts is the plan's to say.
        """
        return Settings().replace(**{name: field.value for name, field in self.fields.items()})

    @property
    def problems(self) -> tuple[str, ...]:
        """What stands in the way of a plan: wrong values, contradictions, or the folders."""
        return self._problems

    def fill(self, settings: Settings) -> None:
        """Put settings into the form."""
        self._is_filling = True
        try:
            for name, value in settings.flat().items():
                self.fields[name].value = value
        finally:
            self._is_filling = False
            self._changed()

    def _changed(self) -> None:
        """Check and plan anew; while many fields are filled, once at the end."""
        if self._is_filling:
            return
        try:
            plan = planning.plan(self.settings)
        except SettingsError as error:
            self._problems = error.problems
            self._mark(error.problems)
            told = [self._with_place(problem) for problem in error.problems]
            self.plan_line.value = NOT_READY + _as_list(told)
        except (KitError, OSError) as error:
            self._problems = (str(error),)
            self._mark(())
            self.plan_line.value = (
                f"{NOT_READY}<div class='kit-quiet'>{_as_lines(str(error))}</div>"
            )
        else:
            self._problems = ()
            self._mark(())
            self.plan_line.value = _in_words(plan)

    def _with_place(self, problem: str) -> str:
        """A problem with its field's tab and label, for that tab may not be the open one."""
        match = PROBLEM.match(problem)
        if not match or match["name"] not in self.fields:
            return problem
        declared = self.fields[match["name"]].declared
        return f"{declared.box} / {declared.label}: {_told(match)}"

    def _mark(self, problems: Iterable[str]) -> None:
        wrong: dict[str, str] = {}
        for text in problems:
            match = PROBLEM.match(text)
            if match and match["name"] in self.fields:
                wrong.setdefault(match["name"], _told(match))
        idle = idle_settings({name: field.value for name, field in self.fields.items()})
        for name, field in self.fields.items():
            field.mark(problem=wrong.get(name, ""), idle=idle.get(name, ""))
        self.pages.mark({self.fields[name].declared.box for name in wrong})

    def _load(self) -> str:
        self.fill(Settings.load(self._named_file()))
        return f"Filled from {self._named_file()}."

    def _save(self) -> str:
        path, text = self._named_file(), self.settings.to_toml()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
        except OSError as error:
            raise OutputError(
                f"{path} cannot be written: {error.strerror or error}.", do="Choose another path."
            ) from error
        return f"Saved as {path}."

    def _named_file(self) -> Path:
        return Path(self.path.value.strip() or "run.toml").expanduser()

    def _tell(self, job: Callable[[], str]) -> None:
        """Do what a button asks for, and say how it went beside it."""
        try:
            self.file_line.value = escaped(job())
        except KitError as error:
            self.file_line.value = _as_lines(str(error))


def _told(match: re.Match[str]) -> str:
    """A problem without its place: "[basic] epoch: '' is not ..." is "blank is not ..."."""
    text = match["rest"] if match["colon"] else f"{match['name']} {match['rest']}"
    return text.replace("'' is not", "blank is not")


def plan_sentence(plan: planning.Plan) -> str:
    """The plan's length in one sentence; no seed, for a blank one is drawn anew at each plan."""
    count = sum(not image.is_reg for image in plan.images)
    many = _counted(len(plan.buckets), "bucket")
    balanced = " and regularisation" if count < len(plan.images) else ""
    seen = f"{sum(plan.buckets.values())} with repeats{balanced}"
    return (
        f"{_counted(count, 'image')}, {seen}, in {many}: "
        f"{_counted(plan.steps_per_epoch, 'step')} an epoch, {_counted(plan.epochs, 'epoch')}, "
    )


def _in_words(plan: planning.Plan) -> str:
    sentence = f"{escaped(plan_sentence(plan))}<b>{plan.total_steps} steps in all</b>"
    if plan.run.resumes:
        sentence += f"; goes on at step {plan.run.from_step}"
    return f"<div>{sentence}.</div>{_as_list(plan.notices)}"


def _as_list(texts: Iterable[str]) -> str:
    items = "".join(f"<li>{escaped(text)}</li>" for text in texts)
    return f"<ul class='kit-quiet'>{items}</ul>" if items else ""


def _as_lines(text: str) -> str:
    return "<br>".join(escaped(line) for line in text.splitlines())


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _button(text: str, hint: str) -> widgets.Button:
    return widgets.Button(description=text, tooltip=hint, layout=widgets.Layout(width="auto"))
