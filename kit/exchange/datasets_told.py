"""What `ss_datasets` tells: the data sets of a training that had a dataset configuration.

Where all of them had the same size, batch size and treatment, that is a setting of the run; where
they differ, a line says how.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kit.errors import Unreadable
from kit.exchange.dialect import Entries, Outcome, Rule, no_effect, take
from kit.exchange.report import shown
from kit.reading.texts import from_json

KEY = "ss_datasets"
OF_DATASETS = {
    "resolution": "resolution",
    "batch_size_per_device": "train_batch_size",
    "enable_bucket": "enable_bucket",
    "min_bucket_reso": "min_bucket_reso",
    "max_bucket_reso": "max_bucket_reso",
}
OF_SUBSETS = {
    name: name
    for name in (
        "keep_tokens", "keep_tokens_separator", "secondary_separator", "shuffle_caption",
        "flip_aug", "color_aug", "random_crop", "enable_wildcard", "caption_prefix",
        "caption_suffix",
    )
}  # fmt: skip


def entries_of(text: str) -> dict[str, Any]:
    """A key for each thing that the data sets tell, with the different values in their order."""
    try:
        datasets = from_json(text, KEY)
    except Unreadable:
        return {}
    tables = [entry for entry in datasets if isinstance(entry, dict)] if _is_list(datasets) else []
    subsets = [subset for table in tables for subset in _subsets(table)]
    return {
        **_told(tables, OF_DATASETS),
        **_told(subsets, OF_SUBSETS),
    }


def rule(key: str) -> Rule:
    """What becomes of one of these keys."""
    name = {**OF_DATASETS, **OF_SUBSETS}[key.removeprefix(f"{KEY}.")]

    def judge(value: Any, entries: Entries) -> Outcome | None:
        if len(value) > 1:
            told = " and ".join(map(shown, value))
            return no_effect(f"the data sets differ ({told}); set {name}, or a dataset_config")
        return take(name, value[0]) if value[0] is not None else no_effect("None: off, or as usual")

    return judge


def _told(tables: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, list[Any]] = {}
    for table in tables:
        for name in names:
            if name in table:
                value = _plain(table[name])
                values = found.setdefault(f"{KEY}.{name}", [])
                if value not in values:
                    values.append(value)
    return found


def _plain(value: Any) -> Any:
    """`[512, 768]` as `512,768`, which is how the setting is written."""
    return ",".join(map(str, value)) if _is_list(value) else value


def _subsets(table: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    found = table.get("subsets")
    if isinstance(found, list):
        yield from (subset for subset in found if isinstance(subset, dict))


def _is_list(value: Any) -> bool:
    return isinstance(value, list)
