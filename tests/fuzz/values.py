"""Hostile values, and damage to documents and bytes."""

import copy
import json
import math

PATHS = (
    "~nosuchuser/x", "~", "a\0b", "\0", "n" * 300, "d/" * 2500, "../../..", "/", ".", "", " ",
    "/dev/null", "/proc/self/mem", "/root/x", "C:\\x\\y", "\ud800", "\udcff.png", "a\nb", "*",
    "https://example.invalid/" + "q" * 400, "https://[::1", "owner/name", "file:///etc/x", "\u202e",
)  # fmt: skip
TEXTS = (
    "", " ", "\n", "\t", "x", "None", "null", "true", "False", "0", "-1", "1e999", "-inf", "nan",
    "١٢", "½", "0x10", "1_000", "9" * 5000, "é" * 500, "\ud800", "\ufeff", "\x1b[31m", "a" * 20000,
    "[" * 3000, "(" * 3000, "{a|b" * 300, "{" * 500 + "|" + "}" * 500, "()" * 500, "a.b." * 400,
    "<script>alert(1)</script>", "%s %d {x} {0}", "a=1 b=[1", "=", "a==b", "--x", "'", '"""',
    "a=" + "(" * 300, "a=" + "-" * 3000 + "1", "a=" + "9**9" * 3, "w=1,2,3,,", "\\", "\\x", "$(x)",
    "../../x", "a:1.2:3", "(a:1e400)", "[a:1", "((((a:0.5)b:2)]", "🙂" * 50, "\u0000a",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 7, 63, 64, 65, 255, 8192, 2**31, 2**63, -(2**63) - 1, 10**400, 0.0, -0.0, 0.5,
    1e-320, 1e308, -1e308, math.inf, -math.inf, math.nan,
)  # fmt: skip


def hostile(rng, depth=0):
    """Any value that JSON can hold."""
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(TEXTS + PATHS)
    if kind < 0.65:
        return rng.choice(NUMBERS)
    if kind < 0.78 or depth > 2:
        return rng.choice((None, True, False))
    if kind < 0.82:
        return nested(rng.choice((50, 150, 220)), rng.choice(("list", "table")))
    if kind < 0.91:
        return [hostile(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {str(rng.choice(TEXTS[:20])): hostile(rng, depth + 1) for _ in range(rng.randrange(4))}


def nested(levels, kind="list"):
    value = 0
    for _ in range(levels):
        value = [value] if kind == "list" else {"a": value}
    return value


def mutated(rng, document, most=4):
    """A copy of which a few values are others, gone, or new."""
    document = copy.deepcopy(document)
    for _ in range(rng.randrange(most + 1)):
        places = list(_places(document))
        if not places:
            return hostile(rng)
        holder, key = rng.choice(places)
        way = rng.random()
        if way < 0.65:
            holder[key] = hostile(rng)
        elif way < 0.8:
            del holder[key]
        elif isinstance(holder, dict):
            holder[rng.choice((*TEXTS[:30], *PATHS[:8], key))] = hostile(rng)
        else:
            holder.append(hostile(rng))
    return hostile(rng) if rng.random() < 0.03 else document


def _places(value, depth=0):
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs):
        yield value, key
        if isinstance(inner, dict | list) and depth < 12:
            yield from _places(inner, depth + 1)


def damaged(rng, data):
    """The bytes, most often whole, else cut, flipped, doubled or something else."""
    way = rng.random()
    if way < 0.6 or not data:
        return data
    at = rng.randrange(len(data))
    if way < 0.7:
        return data[:at]
    if way < 0.8:
        changed = bytearray(data)
        for _ in range(rng.randrange(1, 5)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
    if way < 0.88:
        end = min(len(data), at + rng.randrange(1, 200))
        return data[:end] + data[at:]
    if way < 0.93:
        return data[:at] + rng.randbytes(rng.randrange(1, 50)) + data[at:]
    return rng.choice(
        (b"", b"\0" * 200, b"\xff\xfe[\0]\0", b"[" * 100_000, b'{"a":' * 50_000, b"<html>",
         b"a." * 50_000 + b"a = 1", b"version https://git-lfs\n", b"\xef\xbb\xbf",
         rng.randbytes(300))
    )  # fmt: skip


def json_bytes(rng, document):
    """As JSON, now and then with a key twice or bytes that are none."""
    text = json.dumps(document, ensure_ascii=rng.random() < 0.7)
    if rng.random() < 0.08 and text.startswith("{") and len(text) > 2:
        text = f"{text[:-1]}, {text[1:]}"
    return damaged(rng, text.encode("utf-8", "surrogatepass"))


def toml_bytes(rng, document):
    """As TOML where it can be that; what cannot is left to the reader to refuse."""
    lines = []
    tables = (
        [(k, v) for k, v in document.items() if isinstance(v, dict)]
        if isinstance(document, dict)
        else []
    )
    plain = document.items() if isinstance(document, dict) else [("x", document)]
    lines += [f"{_key(k)} = {_toml(v)}" for k, v in plain if not isinstance(v, dict)]
    for key, table in tables:
        lines.append(f"[{_key(key)}]")
        lines += [f"{_key(k)} = {_toml(v)}" for k, v in table.items()]
    return damaged(rng, "\n".join(lines).encode("utf-8", "surrogatepass"))


def _key(key):
    plain = str(key)
    return plain if plain.replace("_", "").isalnum() and plain.isascii() else json.dumps(plain)


def _toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value)
