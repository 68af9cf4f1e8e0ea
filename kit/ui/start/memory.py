"""All that the form holds as one value: kept on disk, brought back, and stepped back through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from traitlets import TraitError

from kit.settings import declarations
from kit.ui.form.field import Field
from kit.ui.form.remembered import remember_state, remembered_state
from kit.ui.start.answers import Answers
from kit.ui.start.autofill import Autofill
from kit.ui.start.start import Start
from kit.ui.start.undo import State, Undo

START = "start"  # the key beside the settings' names


class Memory:
    """What stands in the form, the last ten changes, and their file."""

    def __init__(self, fields: Mapping[str, Field], start: Start, autofill: Autofill) -> None:
        self._fields, self._start, self._autofill = fields, start, autofill
        self.run_dir = ""  # of the run that was started last
        self.keeps = False  # on disk: the form that a cell shows does
        self.undo = Undo(self.state())
        self.changed: list[Callable[[], None]] = []

    def state(self) -> State:
        """The values that are not defaults, as they were typed, and the start's answers."""
        values: State = {
            name: field.value for name, field in self._fields.items() if field.is_changed
        }
        values[START] = {
            **asdict(self._start.answers),
            "follows": self._autofill.is_following,
            "filled": self._autofill.filled.values,
        }
        return values

    def bring_back(self, state: Mapping[str, Any]) -> None:
        """Put a state into the fields; what this version does not know is left out."""
        for name, field in self._fields.items():
            value = state.get(name, declarations()[name].default)
            try:
                field.value = value
            except (TraitError, ValueError, TypeError, StopIteration, KeyError):
                field.value = declarations()[name].default
        answers = state.get(START)
        if not isinstance(answers, dict):
            return
        words = {name: str(answers.get(name, "")) for name in asdict(Answers())}
        self._start.answers = Answers(**words)
        self._autofill.is_following = bool(answers.get("follows"))
        filled = answers.get("filled")
        known = filled if isinstance(filled, dict) else {}
        self._autofill.filled.values = {n: v for n, v in known.items() if n in self._fields}

    def begin(self) -> None:
        """What stands in the form now is the beginning; there is nothing to undo."""
        self.undo = Undo(self.state())

    def reopen(self) -> bool:
        """Bring back what was kept on disk; False where nothing was."""
        kept = remembered_state()
        if kept is None or not isinstance(kept.get("form"), dict):
            return False
        self.bring_back(kept["form"])
        self.undo = Undo(self.state())
        self.undo.restore(kept.get("undo"))
        self.run_dir = str(kept.get("run", ""))
        return True

    def note(self, what: str = "") -> None:
        """Take what stands in the form as the newest state; what: what has changed it."""
        self.undo.record(self.state(), what)
        self.keep()
        for tell in self.changed:
            tell()

    def keep(self) -> None:
        """Write it to disk, where this form is the one that is shown."""
        if self.keeps:
            remember_state(
                {"form": self.undo.now, "undo": self.undo.to_json(), "run": self.run_dir}
            )
