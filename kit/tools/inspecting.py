"""What a LoRA file is and what it says about itself, from its header and a few of its bytes.

    print(describe(inspect(Path("cat.safetensors"))))

torch is not needed, and of the weights only the alphas are read.
"""

from __future__ import annotations

import hashlib
import re
import struct
import textwrap
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import RawIOBase
from pathlib import Path
from typing import Any

from kit import catalog
from kit.catalog import readers
from kit.errors import LoraFileError, Unreadable
from kit.exchange import foreign_lora
from kit.lorafile.metadata import V_ARCHITECTURES
from kit.lorafile.tensors import Entry, Header, read_header, split_name
from kit.reading.fields import Table
from kit.reading.texts import from_json

# A part's label, and how its modules begin with kohya.
PARTS: dict[str, tuple[str, str]] = {
    "unet": ("U-Net", "lora_unet_"),
    "te": ("text encoder", "lora_te_"),
    "te1": ("text encoder 1", "lora_te1_"),
    "te2": ("text encoder 2", "lora_te2_"),
    "other": ("rest", ""),
}
# What is told of the metadata: a label, and a sentence whose gaps are keys; without any, no line.
TOLD = {
    "title": "{modelspec.title}",
    "author": "{modelspec.author}",
    "license": "{modelspec.license}",
    "about": "{modelspec.description}",
    "comment": "{ss_training_comment}",
    "base model": "{ss_sd_model_name} ({ss_base_model_version}, hash {ss_sd_model_hash})",
    "length": "step {ss_steps} of {ss_max_train_steps}, epoch {ss_epoch} of {ss_num_epochs}",
    "images": "{ss_num_train_images} an epoch with repeats, {ss_num_reg_images} regularisation, at "
    "{ss_resolution}, batch {ss_total_batch_size}",
    "rates": "{ss_learning_rate}, U-Net {ss_unet_lr}, text encoder {ss_text_encoder_lr}, "
    "{ss_lr_scheduler}, warm-up {ss_lr_warmup_steps} steps",
    "optimizer": "{ss_optimizer}",
    "seed": "{ss_seed}",
    "made": "{modelspec.date} with {modelspec.implementation_version}",
}
# Who reads what, by the kinds of TENSOR_NAMES in kit.lorafile.tensors, and by single tensors.
READ_BY = {
    "LoRA": readers.EVERYWHERE,
    "LoHa": readers.LYCORIS,
    "LoKr": readers.LYCORIS,
    "OFT": readers.ROTATION,
    "GLoRA": readers.GLORA,
    "full difference": readers.FULL,
    "norm": readers.LYCORIS,
    "IA3": readers.IA3,
}
READ_BY_ROLE = {"lora_mid.weight": readers.LYCORIS, "lokr_t2": readers.TUCKER_LOKR}
BLOCK_SIDES = 3  # of Diag-OFT's blocks; BOFT's have stages, too
UNTOLD = ("", "None", "IsADirectory", "NOFILE")  # the last two: a base that had no hash
# The tensors whose first side is the rank; the last side of FULL_ROLES is as wide as the layer.
FULL_ROLES = ("lora_down", "lora_A", "lora.down", "lora_linear_layer.down", "hada_w1_b")
RANK_ROLES = (*FULL_ROLES, "lokr_w2_b", "lokr_w1_b")
# A U-Net's cross-attention is as wide as the words that it reads.
WIDTHS = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
SCALARS = {"F64": "<d", "F32": "<f", "F16": "<e", "I64": "<q", "I32": "<i", "I16": "<h", "U8": "<B"}


@dataclass
class _Module:
    """One adapted layer."""

    kinds: set[str] = field(default_factory=set)
    roles: dict[str, Entry] = field(default_factory=dict)

    @property
    def rank(self) -> int | None:
        """None for kinds that have none, such as a full difference."""
        shapes = [e.shape for role, e in self.roles.items() if role.startswith(RANK_ROLES)]
        return next((shape[0] for shape in shapes if shape), None)

    @property
    def is_conv(self) -> bool:
        """The layer looks at neighbours."""
        return any(len(e.shape) == 4 and max(e.shape[2:]) > 1 for e in self.roles.values())


def inspect(path: Path) -> dict[str, Any]:
    """Everything that can be told without loading it, ready for JSON.

    kind and family are judged by names and shapes; `matches` is None where no hash is stored.

    Raises: LoraFileError where it is missing, cut short, or something else than a LoRA.
    """
    path = foreign_lora.file_of(path)
    header = read_header(path)
    found = _recognised(path, header)
    modules = _modules(header, found.names)
    try:
        with path.open("rb", buffering=0) as file:
            alphas = _alphas(file, header, modules)
            file.seek(header.start)
            computed = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LoraFileError(f"{path} cannot be read: {error.strerror}.") from error
    stored = header.metadata.get("sshs_model_hash")
    parts = Counter(_part(name) for name in modules)
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "tensors": len(header.entries),
        "dtypes": _counted(entry.dtype for entry in header.entries.values()),
        "layout": found.layout or "kohya",
        "kind": _kind(modules.values()),
        "read_by": "" if found.layout else _read_by(modules, alphas),
        "family": _family(modules, header.metadata),
        "parts": {part: count for part in PARTS if (count := parts[part])},
        "ranks": _counted(m.rank for m in modules.values() if m.rank is not None),
        "alphas": _counted([*alphas.values(), *found.alphas.values()]),
        "hashes": {
            "sshs_model_hash": stored,
            "sshs_legacy_hash": header.metadata.get("sshs_legacy_hash"),
            "computed": computed,
            "matches": None if stored is None else stored == computed,
        },
        "notices": [
            *found.left,
            *_notices(modules, header.metadata, stored not in (None, computed), found.alphas),
        ],
        "metadata": header.metadata,
        "shapes": {name: [e.dtype, list(e.shape)] for name, e in header.entries.items()},
    }


def _recognised(path: Path, header: Header) -> foreign_lora.Found:
    """Its layout; one that cannot be converted is looked at as it is."""
    try:
        shapes = {name: entry.shape for name, entry in header.entries.items()}
        return foreign_lora.recognised(path, shapes, header.metadata)
    except LoraFileError as error:
        names = {name: name for name in header.entries}
        return foreign_lora.Found("another program", names, left=(error.found,))


def _modules(header: Header, names: Mapping[str, str]) -> dict[str, _Module]:
    """By kohya's names; what is left out belongs to none."""
    modules: dict[str, _Module] = {}
    for name, entry in header.entries.items():
        if name not in names:
            continue
        module, role, kind = split_name(names[name])
        found = modules.setdefault(module or name, _Module())
        found.roles[role] = entry
        if kind:
            found.kinds.add(kind)
    return modules


def _alphas(file: RawIOBase, header: Header, modules: Mapping[str, _Module]) -> dict[str, float]:
    """The value of every alpha by its module; of a type that is not known, none."""
    values = {}
    for name, module in modules.items():
        entry = module.roles.get("alpha")
        if entry is None or entry.begin == entry.end:
            continue
        file.seek(header.start + entry.begin)
        raw = file.read(min(8, entry.end - entry.begin))
        if entry.dtype == "BF16":  # the upper half of a float32
            raw, code = b"\0\0" + raw[:2], "<f"
        else:
            code = SCALARS.get(entry.dtype, "")
        if code and len(raw) >= struct.calcsize(code):
            values[name] = float(struct.unpack_from(code, raw)[0])
    return values


def _counted(values: Iterable[Any]) -> dict[Any, int]:
    """The most frequent first."""
    return dict(Counter(values).most_common())


def _kind(modules: Collection[_Module]) -> str:
    """In the words of those who share such files: LoRA, LoCon (also 3x3 convolutions), LoHa ..."""
    names = dict.fromkeys(
        "LoCon" if kind == "LoRA" and any(m.is_conv for m in modules if kind in m.kinds) else kind
        for kind, _ in Counter(kind for m in modules for kind in m.kinds).most_common()
    )
    decomposed = any("dora_scale" in m.roles for m in modules)
    return " + ".join(names) + (" with DoRA" if decomposed else "")


def _read_by(names: Mapping[str, _Module], alphas: Mapping[str, float]) -> str:
    """Which programs read it, by what it holds; a sentence."""
    modules = names.values()
    kinds = {kind for module in modules for kind in module.kinds}
    roles = {role: entry.shape for module in modules for role, entry in module.roles.items()}
    rows = [READ_BY[kind] for kind in sorted(kinds)]
    rows += [row for role, row in READ_BY_ROLE.items() if role in roles]
    if magnitudes := [m.roles["dora_scale"].shape for m in modules if "dora_scale" in m.roles]:
        of_outputs = any(shape[:1] != (1,) for shape in magnitudes)
        rows.append(readers.DORA_OF_OUTPUTS if of_outputs else readers.DORA)
    if len(roles.get("oft_blocks", ())) == BLOCK_SIDES and "rescale" in roles:
        rows.append(readers.RESCALED_OFT)
    if "OFT" in kinds and any(alphas.values()):
        rows.append(readers.LIMITED_OFT)
    if any(_mixes_alphas(names, alphas, part) for part in PARTS):
        rows.append(readers.MIXED_ALPHAS)
    return readers.EVERYWHERE.with_(*rows).sentence


def _mixes_alphas(modules: Mapping[str, _Module], alphas: Mapping[str, float], part: str) -> bool:
    """An alpha that diffusers does not find is not the most frequent one of its part."""
    own = {name: m for name, m in modules.items() if "LoRA" in m.kinds and _part(name) == part}
    known = Counter(alphas[name] for name in own if name in alphas)
    for name, module in own.items() if known else ():
        is_found = name in alphas and part == "unet" and "_attn" not in name
        if not is_found and alphas.get(name, module.rank) != known.most_common(1)[0][0]:
            return True
    return False


def _part(module: str) -> str:
    return next(part for part, (_, start) in PARTS.items() if module.startswith(start))


def _family(modules: Mapping[str, _Module], metadata: Mapping[str, str]) -> str | None:
    """The catalog's key: by the width of cross-attention, else by names, else by its own words."""
    for name, module in modules.items():
        down = next((e for r, e in module.roles.items() if r.startswith(FULL_ROLES)), None)
        width = down.shape[1] if down and len(down.shape) > 1 else 0
        if name.endswith(("attn2_to_k", "attn2.to_k")) and width in WIDTHS:
            return WIDTHS[width]
    two_encoders = {"te1", "te2"} <= {_part(name) for name in modules}
    if two_encoders or any(name.startswith("lora_unet_input_blocks_") for name in modules):
        return WIDTHS[2048]
    return _claimed(metadata)


def _claimed(metadata: Mapping[str, str]) -> str | None:
    version = metadata.get("ss_base_model_version", "").removesuffix("_v")
    architecture = metadata.get("modelspec.architecture", "").removesuffix("/lora")
    for key, row in catalog.FAMILIES.items():
        if version == row.base_version:
            return key
        if not version and architecture in (row.architecture, V_ARCHITECTURES.get(key)):
            return key
    return None


def _notices(
    modules: Mapping[str, _Module],
    metadata: Mapping[str, str],
    changed: bool,
    alphas: Collection[str],
) -> Iterator[str]:
    family, claimed = _family(modules, metadata), _claimed(metadata)
    if family and claimed and family != claimed:
        labels = catalog.FAMILIES[claimed].label, catalog.FAMILIES[family].label
        yield f"it says that it is for {labels[0]}, but its tensors fit {labels[1]}"
    if changed:
        yield "its tensors are not those that its hash was made of: changed or damaged since"
    halves = [
        name
        for name, module in modules.items()
        if len({part for part in ("down", "up") if part in " ".join(module.roles)}) == 1
    ]
    if halves:
        yield f"{len(halves)} modules have only one of lora_down and lora_up, e.g. {halves[0]}"
    unknown = [name for name, module in modules.items() if not module.kinds]
    if unknown:
        yield f"{len(unknown)} tensors belong to no adapter, e.g. {unknown[0]}"
    without = [
        name
        for name, module in modules.items()
        if module.kinds & {"LoRA"} and "alpha" not in module.roles and name not in alphas
    ]
    if without:
        yield f"{len(without)} modules have no alpha, which means alpha = rank, e.g. {without[0]}"


def describe(report: Mapping[str, Any]) -> str:
    """The essentials of a report for a person: what it is, how it was made, its shapes."""
    lines = [*_headline(report), *_table(report), *_words(report), *_shapes(report)]
    # Metadata is a stranger's text: an escape sequence in it must not reach the terminal.
    return "\n".join("".join(c if c.isprintable() else " " for c in line) for line in lines)


def _headline(report: Mapping[str, Any]) -> Iterator[str]:
    row = catalog.FAMILIES.get(report["family"])
    base = row.label if row else "an unknown base model"
    yield f"{report['file']}: {report['kind']} for {base}, {report['bytes'] / 1e6:.3g} MB"
    yield from (f"! {notice}" for notice in report["notices"])


def _table(report: Mapping[str, Any]) -> Iterator[str]:
    parts = (f"{count} in the {PARTS[part][0]}" for part, count in report["parts"].items())
    rows = {"layout": report["layout"], "modules": ", ".join(parts)}
    rows["read by"] = report["read_by"]
    rows["rank"] = _frequencies(report["ranks"], unit=" modules")
    rows["alpha"] = _frequencies(report["alphas"], unit=" modules")
    rows["stored as"] = _frequencies(report["dtypes"], unit=" tensors")
    known = {key: value for key, value in report["metadata"].items() if value not in UNTOLD}
    rows |= {label: _filled(sentence, known) for label, sentence in TOLD.items()}
    hashes = report["hashes"]
    agrees = {True: "as stored", False: "another is stored", None: "none is stored"}
    rows["hash"] = f"{hashes['computed'][:12]} of the tensors, {agrees[hashes['matches']]}"
    for label, value in rows.items():
        yield from _row(label, value)


def _row(label: str, value: str) -> list[str]:
    """Long values go on in the next lines, below themselves; a blank one has none."""
    start = f"  {label:<11} "
    return textwrap.wrap(value[:600], 98, initial_indent=start, subsequent_indent=" " * 14)


def _filled(sentence: str, known: Mapping[str, str]) -> str:
    """The sentence with its gaps filled, "-" where nothing is known; empty if nothing at all is."""
    if not any(gap in known for gap in re.findall(r"\{(.+?)\}", sentence)):
        return ""
    return re.sub(r"\{(.+?)\}", lambda gap: known.get(gap[1], "-"), sentence)


def _frequencies(counts: Mapping[Any, int], most: int = 8, unit: str = "") -> str:
    values = ((f"{v:g}" if isinstance(v, float) else v, count) for v, count in counts.items())
    shown = [f"{value} ({count}{unit})" for value, count in list(values)[:most]]
    more = f" and {len(counts) - most} more" if len(counts) > most else ""
    return ", ".join(shown) + more


def _words(report: Mapping[str, Any]) -> Iterator[str]:
    metadata = report["metadata"]
    folders = _json(metadata, "ss_tag_frequency")
    tags = Counter[str]()
    for counts in folders.values():
        if isinstance(counts, dict):
            tags.update({tag: n for tag, n in counts.items() if isinstance(n, int)})
    yield from _row("tags", _frequencies(dict(tags.most_common()), 20))
    buckets = _json(metadata, "ss_bucket_info").get("buckets")
    if isinstance(buckets, dict) and all(isinstance(b, dict) for b in buckets.values()):
        sizes = {
            str(bucket.get("resolution")).strip("[]").replace(", ", "x"): bucket.get("count")
            for bucket in buckets.values()
        }
        yield from _row("buckets", _frequencies(sizes, 20))


def _json(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    """Some tools write these badly; then there is nothing to tell."""
    try:
        return Table(from_json(metadata.get(key, "{}"), key), key).values
    except Unreadable:
        return {}


def _shapes(report: Mapping[str, Any], most: int = 12) -> Iterator[str]:
    counts = Counter(
        (split_name(name)[1], str(shape)) for name, (_, shape) in report["shapes"].items()
    )
    yield "  shapes"
    for (role, shape), count in counts.most_common(most):
        yield f"    {count:>5} x {role} {shape}"
    if len(counts) > most:
        yield f"    and {len(counts) - most} more"
