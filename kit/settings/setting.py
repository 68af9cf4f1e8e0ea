"""How a setting is declared: once, with everything that the form, the files and the checks need.

    class Noise(Section, box="Parameters / Advanced"):
        min_snr_gamma: float = setting(0.0, "Min SNR gamma", "Caps the weight ...", between=(0, 20))

The declaration's name is the sd-scripts argument; `gui` is the kohya_ss GUI's JSON key where it
differs.
"""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from kit.errors import nearest
from kit.reading.paths import shortened, why_no_path, why_no_text
from kit.settings.links import without_tokens

ALL_FAMILIES = ("sd1", "sd2", "sdxl")


@dataclass(frozen=True)
class Declared:
    """One setting as the rest of the house sees it."""

    name: str
    section: str
    box: str
    label: str
    help: str
    type: str  # "int", "float", "bool", "str", "choice", "path" or "text"
    default: Any
    optional: bool  # blank (None) is allowed and means "not set"
    choices: tuple[Any, ...]
    between: tuple[float, float] | None
    unit: str
    gui_key: str | None  # None: the GUI has no such field
    families: tuple[str, ...]
    source: str
    shapes_run: bool  # another value makes another run, which starts from the beginning
    resumes: str = "never"  # an unfinished run, with another value: "freely", "asked" or "never"
    search: str = ""  # other words by which people look for it, such as the GUI's own label

    @property
    def title(self) -> str:
        """The label with its unit, where the label does not say it: "Train batch size (images)"."""
        said = re.findall(r"\w+|%", self.label.lower())
        is_said = any(word in said for word in re.findall(r"\w+|%", self.unit.lower()))
        return self.label if is_said or not self.unit else f"{self.label} ({self.unit})"

    @property
    def possible(self) -> str:
        """What may be entered, in words for an error message."""
        if self.choices:
            return "one of " + ", ".join(repr(choice) for choice in self.choices)
        words = {"int": "a whole number", "float": "a number", "bool": "true or false"}
        text = words.get(self.type, "text")
        if self.between:
            low, high = (
                f"{int(bound)}" if bound == int(bound) else f"{bound}" for bound in self.between
            )
            text += f" from {low} to {high}"
        return text + (", or blank" if self.optional else "")


def setting(
    default: Any,
    label: str,
    help: str,
    *,
    between: tuple[float, float] | None = None,
    choices: tuple[Any, ...] = (),
    kind: str = "",
    unit: str = "",
    gui: str | None = "",
    families: tuple[str, ...] = ALL_FAMILIES,
    source: str = "",
    box: str = "",
    shapes_run: bool = True,
    resumes: str = "",
    search: str = "",
) -> Any:
    """Declare a setting inside a Section.

    between: inclusive bounds; kind: "path" or "text" where the Python type does not say it;
    gui: the GUI's JSON key where it differs from the name, None where the GUI has no such field;
    box: the place in the form, where it differs from the section's;
    shapes_run: False where it changes no number of the training, so that an unfinished run goes on
    when it is changed;
    resumes: whether an unfinished run goes on when it is changed: "freely" (so where shapes_run is
    False; or only what is written differs), "asked" (it rounds otherwise: a person decides) or
    "never";
    search: words of other programs and guides by which the form's search finds it as well.
    """
    extra: dict[str, Any] = {
        "between": between,
        "choices": choices,
        "kind": kind,
        "unit": unit,
        "gui": gui,
        "families": families,
        "source": source,
        "box": box,
        "shapes_run": shapes_run,
        "resumes": resumes or ("never" if shapes_run else "freely"),
        "search": search,
    }
    return Field(default, title=label, description=help, json_schema_extra=extra)


class Section(BaseModel):
    """A frozen group of settings that share a box of the form and a table of the TOML file."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False)
    box: ClassVar[str] = ""

    @classmethod
    def __pydantic_init_subclass__(cls, box: str = "", **kwargs: Any) -> None:
        """Take the box from the class statement."""
        super().__pydantic_init_subclass__(**kwargs)
        cls.box = box

    def __init_subclass__(cls, box: str = "", **kwargs: Any) -> None:
        """Let `box=` pass through Python's own hook."""
        super().__init_subclass__(**kwargs)

    @field_validator("*", mode="before")
    @classmethod
    def _blank_is_none(cls, value: Any, info: ValidationInfo) -> Any:
        """An empty text field of the form or the command line means "not set" for numbers."""
        declared = cls.declared(str(info.field_name))
        if isinstance(value, str) and value.strip() in ("", "None") and declared.optional:
            return None
        if isinstance(value, PurePath) and declared.type in ("path", "text", "str"):
            return str(value)
        if isinstance(value, str) and (why := _why_no_text(value, declared)):
            raise ValueError(f"{shortened(value)} {why}")
        if isinstance(value, bool) and declared.type in ("int", "float"):
            raise ValueError(f"{value} is not {declared.possible}")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _within_bounds(cls, value: Any, info: ValidationInfo) -> Any:
        declared = cls.declared(str(info.field_name))
        if value is None:
            return value
        if isinstance(value, str) and "://" in value:
            value = without_tokens(value)  # settings are written to files
        if declared.choices and value not in declared.choices:
            meant = nearest(str(value), map(str, declared.choices))
            raise ValueError(f"{value!r} is not possible; it can be {declared.possible}{meant}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value} is not {declared.possible}")
        if declared.between and not declared.between[0] <= value <= declared.between[1]:
            raise ValueError(f"{value} is outside of what is possible: {declared.possible}")
        return value

    @classmethod
    def declared(cls, name: str) -> Declared:
        """The declaration of one setting of this section."""
        return _declared(cls, name, cls.model_fields[name])

    @classmethod
    def all_declared(cls) -> Iterator[Declared]:
        """The declarations of this section, in order."""
        for name in cls.model_fields:
            yield cls.declared(name)


def _why_no_text(value: str, declared: Declared) -> str:
    """What no setting may hold: half a character anywhere, and where it is a path, what is none."""
    if declared.type == "path" and "://" not in value:
        return why_no_path(value.strip())
    return why_no_text(value)


def _declared(section: type[Section], name: str, info: FieldInfo) -> Declared:
    extra = typing.cast(dict[str, Any], info.json_schema_extra)
    base, optional = _type_of(info.annotation)
    gui = extra["gui"]
    return Declared(
        name=name,
        section=section.__name__.removesuffix("Settings").lower(),
        box=extra["box"] or section.box,
        label=info.title or name,
        help=info.description or "",
        type="choice" if extra["choices"] else extra["kind"] or base.__name__,
        default=info.default,
        optional=optional,
        choices=extra["choices"],
        between=extra["between"],
        unit=extra["unit"],
        gui_key=name if gui == "" else gui,
        families=extra["families"],
        source=extra["source"],
        shapes_run=extra["shapes_run"],
        resumes=extra["resumes"],
        search=extra["search"],
    )


def _type_of(annotation: Any) -> tuple[type, bool]:
    """`int | None` is (int, True); `int` is (int, False)."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        parts = [part for part in typing.get_args(annotation) if part is not type(None)]
        return parts[0], True
    return annotation, False
