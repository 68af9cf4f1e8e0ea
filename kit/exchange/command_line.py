"""A command line of sd-scripts, as it stands in a notebook, a shell script or a forum post.

    accelerate launch --mixed_precision fp16 train_network.py --network_args "conv_dim=4" --xformers

Backslashes are kept, for they are Windows paths; at a line's end they join it with the next, as
`^` and a backtick do.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from kit.errors import SettingsError
from kit.exchange.known import trainer_args
from kit.exchange.sd_scripts_rules import LAUNCHER, SCRIPT

CONTINUED = re.compile(r"[\\^`][ \t]*\r?\n")
OPTION = re.compile(r"--?[A-Za-z]")
SCRIPT_NAME = re.compile(r"\.py$", re.IGNORECASE)
_SWITCHES = """multi_gpu cpu tpu mps use_deepspeed use_fsdp module no_python quiet debug ipex
    same_network dynamo_use_fullgraph dynamo_use_dynamic dynamo_use_regional_compilation"""
LAUNCH_SWITCHES = frozenset(_SWITCHES.split())


def arguments_in(text: str) -> dict[str, Any]:
    """Arguments by name, in order; the launcher's and the script have keys of their own.

    Raises: SettingsError where a quote is never closed.
    """
    found: dict[str, Any] = {}
    for name, value in pairs_in(text):
        found.pop(name, None)  # the last one counts, as for the reference
        found[name] = value
    return found


def pairs_in(text: str) -> Iterator[tuple[str, Any]]:
    """The same one by one, also those that stand twice.

    Raises: SettingsError where a quote is never closed.
    """
    words = _words(text)
    start = next((i for i, word in enumerate(words) if SCRIPT_NAME.search(word)), None)
    if start is not None:
        for name, values in _options(words[:start]):
            is_switch = not values or name in LAUNCH_SWITCHES
            yield f"{LAUNCHER}{name}", True if is_switch else values[0]
        yield SCRIPT, words[start]
        words = words[start + 1 :]
    for name, values in _options(words):
        yield name, _value(name, values)


def looks_like_one(text: str) -> bool:
    """There is an argument in it."""
    return bool(re.search(r"(?:^|\s)--[A-Za-z]\w+", text))


def _words(text: str) -> list[str]:
    lines = CONTINUED.sub(" ", text).splitlines()
    kept = [line for line in lines if not line.lstrip().startswith(("#", "REM ", "rem ", "::"))]
    reader = shlex.shlex("\n".join(kept), posix=True, punctuation_chars=False)
    reader.escape, reader.commenters, reader.whitespace_split = "", "", True
    try:
        return list(reader)
    except ValueError as error:
        raise SettingsError([f"the command line: {error}; close every quote"]) from error


def _options(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each option with the words behind it; words that belong to none stand under their own name.

    Words before the first option (`accelerate launch`) are left out.
    """
    name, values, is_begun = "", [], False  # type: str, list[str], bool
    for word in words:
        if OPTION.match(word) and word.startswith("--"):
            if is_begun:
                yield from _sorted(name, values)
            name, equals, value = word[2:].partition("=")
            values, is_begun = ([value] if equals else []), True
        elif is_begun:
            values.append(word)
    if is_begun:
        yield from _sorted(name, values)


def _sorted(name: str, values: list[str]) -> Iterator[tuple[str, list[str]]]:
    """An option and, apart from it, words that it does not take."""
    argument = trainer_args().get(name)
    if argument is None or argument.is_list:
        yield name, values
        return
    takes = 0 if argument.type == "flag" and not _is_bool(values) else 1
    yield name, values[:takes]
    for word in values[takes:]:
        yield word, []


def _is_bool(values: list[str]) -> bool:
    return len(values) == 1 and values[0].lower() in ("true", "false")


def _value(name: str, values: list[str]) -> Any:
    argument = trainer_args().get(name)
    if argument and argument.is_list:
        return values
    if not values:
        return True
    return values[0] if len(values) == 1 else " ".join(values)
