"""Reading a command's words: an option that is given twice is told."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from kit.settings import links


class Parser(argparse.ArgumentParser):
    """Argparse takes the last of several values without a word; this says what is left out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for word in (None, "store"):
            self.register("action", word, _Stored)


class _Stored(argparse._StoreAction):
    """An option's value; parsers are made anew for each command line, and so are these."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.before: list[Any] = []

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Keep it; tell where another one stood before it."""
        if option_string is not None:
            if self.before and self.before[-1] != values:
                print(unused(f"{option_string} {self.before[-1]}", values), file=sys.stderr)
            self.before.append(values)
        super().__call__(parser, namespace, values, option_string)


def share(one: argparse.Action, other: argparse.Action) -> None:
    """Two options of one name, before and behind a command's word, are one."""
    assert isinstance(one, _Stored) and isinstance(other, _Stored)
    other.before = one.before


def unused(words: str, counts: object) -> str:
    """What is told of words whose value another one takes the place of."""
    told = f"! {words} is not used: {str(counts)!r} comes after it"
    return links.without_tokens(told)
