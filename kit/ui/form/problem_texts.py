"""Problems of settings, for a person who sees labels and tabs instead of names and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from kit.settings import declarations
from kit.ui.form.field import Field
from kit.ui.look import escaped

PROBLEM = re.compile(r"^\[\w+\] (?P<name>\w+)(?P<colon>:)?\s*(?P<rest>.*)$", re.DOTALL)
# A setting's name that is no word of English, or of which something is said at once.
WORD = re.compile(
    r"\b[A-Za-z]+(?:_\w+)+\b|\bsdxl\b"
    r"|(?<![\w/.])[a-z]\w+(?= = | is (?:on|off|set)\b| has no effect)"
)
REFUSED = "training would be refused: "  # how a plan foresees it
BLANK = re.compile(r"(pretrained_model_name_or_path|train_data_dir) is blank[.:]")


def by_setting(problems: Iterable[str], fields: Mapping[str, Field]) -> dict[str, str]:
    """The first problem of each setting, without its place.

    One without a place, such as a folder's, stands at the first setting that it names.
    """
    wrong: dict[str, str] = {}
    for text in problems:
        match = PROBLEM.match(text)
        if match and match["name"] in fields:
            wrong.setdefault(match["name"], with_labels(_told(match), fields))
        elif not match and (named := [name for name in WORD.findall(text) if name in fields]):
            wrong.setdefault(named[0], with_labels(text, fields))
    return wrong


def with_place(problem: str, fields: Mapping[str, Field]) -> str:
    """A problem with its field's tab and label, for that tab may not be the open one."""
    match = PROBLEM.match(problem)
    if not match or match["name"] not in fields:
        return with_labels(problem, fields)
    declared = fields[match["name"]].declared
    return f"{declared.box} / {declared.label}: {with_labels(_told(match), fields)}"


def with_labels(text: str, fields: Mapping[str, Field]) -> str:
    """The text with the form's labels in place of settings' names.

    A name without an underscore, such as seed, is a word and stays, but in `seed = 5` and the like.
    """
    return WORD.sub(
        lambda found: fields[found[0]].declared.label if found[0] in fields else found[0], text
    )


def labelled(text: str) -> str:
    """As `with_labels`, where there is no form beside it: a run's notices, a choice's."""
    known = declarations()
    return WORD.sub(lambda found: known[found[0]].label if found[0] in known else found[0], text)


def divided(notices: Iterable[str]) -> tuple[list[str], list[str]]:
    """What a plan foresees to be refused, and its other notices."""
    refused, others = [], []
    for text in notices:
        if text.startswith(REFUSED):
            refused.append(text.removeprefix(REFUSED))
        elif BLANK.match(text):
            refused.append(text)
        else:
            others.append(text)
    return refused, others


def without_missing(problems: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """What is wrong, and what is only not chosen yet: the base model, the image folder."""
    problems = list(problems)
    missing = tuple(text for text in problems if BLANK.match(text))
    return [text for text in problems if text not in missing], missing


def not_ready(problems: Iterable[str]) -> str:
    """Why training cannot begin, as HTML."""
    return f"<div class='is-bad'>Not ready to train:</div>{as_list(problems)}"


def notices(texts: Iterable[str], *, is_more: bool) -> str:
    """A plan's notices, as HTML; is_more: beneath what stands in the way, which they do not."""
    listed = as_list(texts)
    head = "<div class='kit-quiet'>To know besides:</div>"
    return head + listed if listed and is_more else listed


def as_list(texts: Iterable[str]) -> str:
    """A quiet list; the lines of each text stay lines."""
    items = "".join(f"<li>{as_lines(text)}</li>" for text in texts)
    return f"<ul class='kit-quiet'>{items}</ul>" if items else ""


def as_lines(text: str) -> str:
    """Text whose lines stay lines."""
    return "<br>".join(escaped(line) for line in text.splitlines())


def _told(match: re.Match[str]) -> str:
    """A problem without its place: "[basic] epoch: '' is not ..." is "blank is not ..."."""
    text = match["rest"] if match["colon"] else f"{match['name']} {match['rest']}"
    return text.replace("'' is not", "blank is not")
