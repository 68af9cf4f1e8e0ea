"""`kit selftest`: does this machine compute what others do?"""

from __future__ import annotations

import argparse

from kit import catalog
from kit.cli.command import Command


def _describe(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Exit codes: 0 right; 2 it computes other numbers than it should."


def _act(chosen: argparse.Namespace) -> None:
    results = []
    for result in catalog.load("kit.demo.selftest:selftest")():
        print(result, flush=True)
        results.append(result)
    catalog.load("kit.demo.selftest:require_right")(results)


SELFTEST = Command(
    "train twenty steps on the embedded base and compare them with what they should give",
    _describe,
    _act,
)
