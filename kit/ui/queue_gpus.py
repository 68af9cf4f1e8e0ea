"""On which GPUs the queue works: one run after another, or a run on each, where several are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ipywidgets as widgets

from kit.hosts import Gpu
from kit.launching.gpus import there

Numbers = tuple[int, ...]
IN_TURN: Numbers = ()  # no GPU is named: each run trains where its own settings say


class QueueGpus:
    """A menu; as long as nobody has touched it, it follows what is chosen in the form."""

    def __init__(
        self, chosen: Callable[[], Sequence[int]], gpus: Sequence[Gpu] | None = None
    ) -> None:
        """chosen: the GPUs that are chosen in the form, none where there is no form."""
        self._chosen, self._count = chosen, len(there() if gpus is None else gpus)
        self._is_touched = self._is_following = False
        self.menu = widgets.Dropdown(
            description="Train",
            options=[("one run after another", IN_TURN)],
            layout=widgets.Layout(width="auto"),
            style={"description_width": "initial"},
        )
        self.menu.add_class("kit-queue-gpus")
        self.menu.layout.display = None if self._count > 1 else "none"
        self.menu.observe(lambda _: self._touched(), names="value")
        self.follow()

    @property
    def numbers(self) -> Numbers:
        """Those that get a run each; none where one run follows another."""
        return self.menu.value if self._count > 1 else IN_TURN

    def follow(self) -> None:
        """Offer what is chosen in the form beside all that there are, and take it."""
        if self._count < 2:
            return
        chosen, before = tuple(self._chosen()), self.menu.value
        offered = [IN_TURN, tuple(range(self._count))]
        for numbers in (chosen, before):
            if len(numbers) > 1 and numbers not in offered:
                offered.append(numbers)
        wanted = before if self._is_touched else chosen if len(chosen) > 1 else IN_TURN
        self._is_following = True
        try:
            options = [(_told(numbers), numbers) for numbers in offered]
            if options != list(self.menu.options):
                self.menu.options = options
            self.menu.value = wanted
        finally:
            self._is_following = False

    def _touched(self) -> None:
        self._is_touched = self._is_touched or not self._is_following


def words_of(numbers: Numbers) -> list[str]:
    """What `kit queue run` is told."""
    return ["--gpus", ",".join(map(str, numbers))] if numbers else []


def _told(numbers: Numbers) -> str:
    if not numbers:
        return "one run after another"
    *first, last = map(str, numbers)
    return f"one run on each of GPUs {', '.join(first)} and {last}"
