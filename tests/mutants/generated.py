"""Faults made by rule: another number, another comparison, plus for minus, a dropped `not`.

A fault's name is its file, its function, the text and which of equal ones it is: it stays the same
when lines move. The sample takes the names whose hashes with the seed are least, so that a change
of one function leaves the rest of the sample as it was.
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.mutants.listed import Mutation

NUMERIC = (
    "kit/planning/deciding.py",
    "kit/planning/steps.py",
    "kit/planning/value.py",
    "kit/catalog/lr_schedules.py",
    "kit/diffusion/losses.py",
    "kit/diffusion/noise.py",
    "kit/training/batches.py",
    "kit/training/step.py",
    "kit/dataset/batches.py",
    "kit/dataset/buckets.py",
    "kit/dataset/captions.py",
    "kit/dataset/layout.py",
    "kit/dataset/masks.py",
    "kit/dataset/pixels.py",
    "kit/settings/effective.py",
    "kit/settings/rules/basic.py",
    "kit/settings/rules/noise.py",
    "kit/settings/rules/rates.py",
    "kit/settings/unet_blocks.py",
)
# Turned round: a bound that is shifted changes nothing between fractions, and between whole numbers
# the changed constants shift it.
COMPARED = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
OPERATORS: dict[type[ast.AST], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.Add: "+", ast.Sub: "-",
}  # fmt: skip
# What is told, and not what is done; types; what is kept in memory.
TOLD = (ast.JoinedStr, ast.Raise, ast.Assert, ast.AnnAssign)
TELLING = ("lines", "_subset_lines", "to_json", "described", "_listed", "_counted", "_diverged")


def sample(root: Path, count: int, seed: int) -> list[Mutation]:
    """So many of all generated faults, the same for the same seed."""
    every = [mutation for file in NUMERIC for mutation in generated(root, file)]

    def rank(mutation: Mutation) -> bytes:
        return hashlib.blake2b(f"{seed} {mutation.name}".encode()).digest()

    return sorted(every, key=rank)[:count]


def generated(root: Path, file: str) -> Iterator[Mutation]:
    """Every fault that the rules make of a file."""
    text = (root / file).read_text("utf-8")
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    met: Counter[str] = Counter()
    for function, start, end, after in _places(ast.parse(text), starts, text):
        before = text[start:end]
        line = " ".join(text[text.rfind("\n", 0, start) + 1 : text.find("\n", end)].split())
        name = f"{file} {function}: {before} -> {after} in `{line}`"
        met[name] += 1
        yield Mutation(f"{name} ({met[name]})", file, before, after, at=start)


def _places(tree: ast.AST, starts: list[int], text: str) -> Iterator[tuple[str, int, int, str]]:
    """Function, begin, end and new text of every fault."""

    def offset(line: int, column: int) -> int:
        head = text[starts[line - 1] : starts[line]].encode()[:column]
        return starts[line - 1] + len(head.decode())

    def span(node: ast.expr) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return (
            offset(node.lineno, node.col_offset),
            offset(node.end_lineno, node.end_col_offset),
        )

    def visit(node: ast.AST, function: str) -> Iterator[tuple[str, int, int, str]]:
        if isinstance(node, TOLD) or getattr(node, "name", "") in TELLING:
            return
        if isinstance(node, ast.FunctionDef):
            function = node.name
        for start, end, after in _changes(node, span, text):
            yield function, start, end, after
        for child in ast.iter_child_nodes(node):
            if child not in getattr(node, "decorator_list", []):
                yield from visit(child, function)

    yield from visit(tree, "module")


def _changes(
    node: ast.AST, span: Callable[[ast.expr], tuple[int, int]], text: str
) -> Iterator[tuple[int, int, str]]:
    """The faults of one node."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        start, end = span(node)
        yield start, end, str(node.value + 1) if isinstance(node.value, int) else "1.7"
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield from _operator(node.ops[0], span(node.left)[1], span(node.comparators[0])[0], text)
    elif isinstance(node, ast.BinOp):
        yield from _operator(node.op, span(node.left)[1], span(node.right)[0], text)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        start = span(node)[0]
        yield start, start + len("not "), ""  # brackets behind it stay


def _operator(kind: ast.AST, start: int, end: int, text: str) -> Iterator[tuple[int, int, str]]:
    sign = OPERATORS.get(type(kind))
    between = text[start:end]
    if sign is None or between.count(sign) != 1:
        return
    other = {"+": "-", "-": "+"}.get(sign) or COMPARED[sign]
    at = start + between.index(sign)
    yield at, at + len(sign), other
