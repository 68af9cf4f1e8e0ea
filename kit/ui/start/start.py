"""The start above the form: what shall it learn, on which model, from which pictures.

It holds the rows of two fields of the form (base model, image folder), asks what no setting holds
(aim, trigger word, class word), and hands out what these answers would fill in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import ipywidgets as widgets

from kit import catalog
from kit.ui.form.field import Field
from kit.ui.look import block, escaped
from kit.ui.start.answers import GOALS, Answers
from kit.ui.start.models import MODEL, OTHER, in_menu, menu, title_of

PICTURES = "train_data_dir"
FAMILIES = {"not known yet": "", **{row.label: key for key, row in catalog.FAMILIES.items()}}


class Start:
    """The three questions; `changed` is called after every answer."""

    def __init__(
        self,
        fields: Mapping[str, Field],
        pictures: Iterable[widgets.Widget],
        changed: Callable[[], None],
    ) -> None:
        """pictures: what stands beneath the third question, such as the contact sheet."""
        self._fields, self._changed = fields, changed
        self._is_following = False
        self._make_answers()
        self.model_line, self.line = block(css="kit-quiet"), block(css="kit-quiet")
        self.line.add_class("kit-filled")
        self._of_pictures = widgets.VBox(list(pictures), layout=_full())
        self.questions = widgets.VBox(
            [
                question(1, "What shall it learn?", self.goal, self.trigger_word, self.class_word),
                question(
                    2, "On which model?",
                    self.pick, fields[MODEL].row, self.family, self.model_line,
                ),
                question(3, "From which pictures?", self._of_pictures),
                self.line,
            ],
            layout=_full(),
        )  # fmt: skip
        self.summary = block(css="kit-summary")
        self.change_button = widgets.Button(
            description="Change", tooltip="Open the three questions", layout=_auto()
        )
        self.change_button.on_click(lambda _: self.fold(is_folded=False))
        self._folded = widgets.HBox(
            [self.summary, self.change_button],
            layout=widgets.Layout(flex_flow="row wrap", align_items="center", width="100%"),
        )
        self.root = widgets.VBox([self._folded, self.questions], layout=_full())
        self.root.add_class("kit-start")
        self.fold(is_folded=False)
        for widget in (self.goal, self.trigger_word, self.class_word, self.family):
            widget.observe(lambda _: self._tell(), names="value")
        self.pick.observe(lambda _: self._pick(), names="value")
        fields[MODEL].control.observe(lambda _: self._follow(), names="value")
        self._follow()

    def _make_answers(self) -> None:
        self.goal = widgets.RadioButtons(
            options=list(GOALS), description="it shall learn", layout=_auto()
        )
        self.goal.add_class("kit-across")
        self.goal.add_class("kit-hush")  # the question above it is its name for who can see
        self.trigger_word = _text("Trigger word", "a rare word, e.g. zxdog")
        self.class_word = _text("Class word", "what it is, e.g. dog")
        self.pick = widgets.Dropdown(options=menu(), description="Model", layout=_wide())
        self.family = widgets.Dropdown(
            options=list(FAMILIES.items()), value="", description="Its family", layout=_wide()
        )
        for named in (self.trigger_word, self.class_word, self.pick, self.family):
            named.add_class("kit-over")

    @property
    def answers(self) -> Answers:
        """What is answered, without the fields of settings."""
        return Answers(
            GOALS[self.goal.value],
            self.trigger_word.value.strip(),
            self.class_word.value.strip(),
            self.family.value,
        )

    @answers.setter
    def answers(self, answers: Answers) -> None:
        goals = {aim: title for title, aim in GOALS.items()}
        self._is_following = True
        try:
            self.goal.value = goals.get(answers.goal, next(iter(GOALS)))
            self.trigger_word.value = answers.trigger_word
            self.class_word.value = answers.class_word
            self.family.value = answers.family if answers.family in catalog.FAMILIES else ""
        finally:
            self._is_following = False

    def show_family(self, family: str) -> None:
        """The base model's family in a line; where only the person can tell it, it is asked."""
        name = str(self._fields[MODEL].value).strip()
        is_asked = bool(name) and not family
        self.family.layout.display = None if is_asked or self.family.value else "none"
        told = "Of which family is it? Else it shows when it is downloaded." if is_asked else ""
        self.model_line.value = escaped(told)

    def say(self, text: str) -> None:
        """A sentence beneath the questions."""
        self.line.value = f"<div>{escaped(text)}</div>" if text else ""

    def fold(self, *, is_folded: bool, pictures: int = 0) -> None:
        """One line in place of the questions, or the questions."""
        counted = "1 picture" if pictures == 1 else f"{pictures} pictures"
        facts = (
            self.answers.words,
            title_of(str(self._fields[MODEL].value)),
            counted if pictures else "",
        )
        self.summary.value = " &middot; ".join(escaped(fact) for fact in facts if fact)
        self._folded.layout.display = None if is_folded else "none"
        self.questions.layout.display = "none" if is_folded else None

    def _pick(self) -> None:
        """A model from the menu; OTHER leaves what is typed."""
        if not self._is_following and self.pick.value != OTHER:
            self._fields[MODEL].value = self.pick.value

    def _follow(self) -> None:
        """Show the row of the menu that the model's field names, if it is one."""
        self._is_following = True
        self.pick.value = in_menu(str(self._fields[MODEL].value))
        self._is_following = False

    def _tell(self) -> None:
        if not self._is_following:
            self._changed()


def question(number: int, text: str, *answers: widgets.Widget) -> widgets.VBox:
    """A numbered question and what answers it, side by side where there is room."""
    head = block(f"<div class='kit-question'><b>{number}</b> {escaped(text)}</div>")
    row = widgets.HBox(list(answers), layout=widgets.Layout(flex_flow="row wrap", width="100%"))
    row.add_class("kit-answers")
    box = widgets.VBox([head, row], layout=_full())
    box.add_class(f"kit-q{number}")
    return box


def _text(name: str, hint: str) -> widgets.Text:
    """Named by its description, which is also its accessible name."""
    return widgets.Text(
        description=name,
        placeholder=hint,
        continuous_update=False,
        layout=widgets.Layout(width="220px"),
    )


def _full() -> widgets.Layout:
    return widgets.Layout(width="100%")


def _wide() -> widgets.Layout:
    return widgets.Layout(width="380px", max_width="100%")


def _auto() -> widgets.Layout:
    return widgets.Layout(width="auto")
