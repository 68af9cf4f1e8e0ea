"""`kit queue`: runs one after another, or one on each GPU, and sweeps."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from kit.cli.command import Command
from kit.cli.parser import share, unused
from kit.cli.settings_arguments import parse_change, read_settings
from kit.errors import KitError, SettingsError
from kit.launching.gpus import visible
from kit.queueing import changing
from kit.queueing.changing import New
from kit.queueing.links import unkept_tokens
from kit.queueing.store import USUAL, VARIABLE, Entry, Queue, queue_in
from kit.queueing.sweeping import checked, new_of, sweep, values_in
from kit.queueing.table import compared, listed, newest_sweep, table
from kit.queueing.working import Worker
from kit.settings import Settings
from kit.settings.effective import gpu_ids

WRONG, STOPPED = 2, 3  # exit codes, as everywhere


def _describe(parser: argparse.ArgumentParser) -> None:
    queue = _takes_queue(parser, default="")
    words = parser.add_subparsers(dest="word", metavar="WORD", title="words")
    for word, (text, _) in WORDS.items():
        below = words.add_parser(word, help=text)
        # What stood before the word counts, unless another one stands behind it.
        share(queue, _takes_queue(below, default=argparse.SUPPRESS))
        if word in ("add", "sweep"):
            _takes_settings(below, many=word == "add")
        elif word == "move":
            below.add_argument("number", type=int, metavar="RUN", help="the run's number")
            below.add_argument("position", type=int, metavar="POSITION", help="1 is the first")
        elif word == "run":
            below.add_argument(
                "--gpus",
                default="",
                metavar="0,1",
                help="one run at a time on each of these GPUs; without it, one run at a time",
            )
        elif word != "list":
            many = "+" if word in ("remove", "retry") else "*"
            below.add_argument("numbers", type=int, nargs=many, metavar="RUN", help=NUMBERS[word])
        if word == "table":
            below.add_argument("--json", action="store_true", help="the rows, for programs")
    parser.epilog = """examples:
  %(prog)s                                         the list
  %(prog)s add cat.toml dog.toml                   at its end
  %(prog)s sweep cat.toml --set network_dim=8,16 --set unet_lr=1e-4,3e-4
  %(prog)s run --gpus 0,1                          work it off, one run on each GPU
  %(prog)s pause 3                                 hold a run back, or stop it for a while"""


def _takes_queue(parser: argparse.ArgumentParser, *, default: str) -> argparse.Action:
    return parser.add_argument(
        "--queue",
        default=default,
        metavar="FOLDER",
        help=f"where the queue lies (default: {VARIABLE}, or else {USUAL})",
    )


def _takes_settings(parser: argparse.ArgumentParser, *, many: bool) -> None:
    if many:
        parser.add_argument("files", nargs="+", type=Path, metavar="run.toml", help="its settings")
    else:
        parser.add_argument("file", type=Path, metavar="run.toml", help="settings to begin with")
    parser.add_argument("--preset", default="", metavar="NAME", help="as of kit train")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="changes",
        metavar="NAME=VALUE" if many else "NAME=VALUE,VALUE",
        help="as of kit train; for every file"
        if many
        else "the values of a setting; may be given again: all combinations are made. A value that "
        "holds a comma stands between quotes: --set 'resolution=\"512,768\",1024'",
    )


NUMBERS = {
    "pause": "numbers of runs; without any, nothing new begins",
    "resume": "numbers of runs; without any, the queue goes on",
    "remove": "numbers of runs",
    "retry": "numbers of runs",
    "table": "numbers of runs (default: those of the newest sweep, or all)",
}


def _act(chosen: argparse.Namespace) -> int | None:
    _, act = WORDS[chosen.word or "list"]
    return act(queue_in(chosen.queue), chosen)


def _list(queue: Queue, chosen: argparse.Namespace) -> None:
    if not queue.folder.exists():
        print(*listed(queue, queue.read()), sep="\n")
        return
    print(*listed(queue, changing.settle(queue)), sep="\n")


def _add(queue: Queue, chosen: argparse.Namespace) -> None:
    made, wrong = [], list[str]()
    for file in chosen.files:
        try:
            made.append(checked(_read(file, chosen).flat()))
        except SettingsError as error:
            wrong += [f"{file}: {problem}" for problem in error.problems]
    if wrong:
        raise SettingsError(wrong)
    print(*_told(changing.add(queue, _new(made), folder=Path.cwd())), sep="\n")


def _sweep(queue: Queue, chosen: argparse.Namespace) -> None:
    varied: dict[str, list[str]] = {}
    for change in chosen.changes:
        name, text = parse_change(change)
        try:
            values = values_in(text)
            if varied.get(name, values) != values:
                print(unused(f"--set {name}={','.join(varied[name])}", text), file=sys.stderr)
            varied[name] = values
        except csv.Error as error:
            raise SettingsError([f"--set {change}: {error}; close the quotes"]) from error
    if not any(len(values) > 1 for values in varied.values()):
        raise KitError(
            "kit queue sweep: no setting has more than one value.",
            "A sweep makes a run for each combination.",
            "Write --set network_dim=8,16,32, or use kit queue add.",
        )
    fixed = [f"{name}={values[0]}" for name, values in varied.items() if len(values) == 1]
    base = read_settings(chosen.file, fixed, preset=chosen.preset).flat()
    made = sweep(base, {name: values for name, values in varied.items() if len(values) > 1})
    added = changing.add(queue, _new(made), folder=Path.cwd(), together=True)
    print(*_told(added), sep="\n")


def _read(file: Path, chosen: argparse.Namespace) -> Settings:
    return read_settings(file, chosen.changes, preset=chosen.preset)


def _new(made: Iterable[Settings]) -> list[New]:
    """What the queue keeps of settings; a token in a link is no part of it."""
    runs = []
    for settings in made:
        for text in unkept_tokens(settings.flat()):
            print(f"! {text}")
        runs.append(new_of(settings.flat()))
    return runs


def _told(added: Iterable[Entry]) -> Iterator[str]:
    for entry in added:
        yield f"{entry.number} {entry.name}: waits"
    yield "kit queue run works it off"


def _run(queue: Queue, chosen: argparse.Namespace) -> int:
    try:
        gpus = [str(number) for number in gpu_ids(chosen.gpus)]
    except ValueError as error:
        raise KitError(
            f"--gpus {chosen.gpus}: {error}.", "They are numbers from 0.", "Write --gpus 0,1."
        ) from error
    for gpu in gpus:
        visible(gpu)
    before = queue.read()
    if not any(entry.state in ("waiting", "started") for entry in before.entries):
        print(*listed(queue, before), sep="\n")
        return 0
    worker = Worker(queue, gpus=list(dict.fromkeys(gpus)), tell=_say)
    tally = worker.work()
    after = queue.read()
    sweeps = {entry.sweep for entry in after.entries if entry.number in tally.ended} - {0}
    for number in sorted(sweeps):
        entries = [entry for entry in after.entries if entry.sweep == number]
        print("", *table(compared(queue, entries)), sep="\n")
    if tally.stopped:
        return STOPPED
    return WRONG if "failed" in tally.ended.values() else 0


def _say(text: str) -> None:
    print(text, flush=True)


def _table(queue: Queue, chosen: argparse.Namespace) -> None:
    rows = compared(queue, newest_sweep(changing.settle(queue), chosen.numbers))
    print(json.dumps(rows, indent=2) if chosen.json else "\n".join(table(rows)))


def _pause(queue: Queue, chosen: argparse.Namespace) -> None:
    for entry in changing.pause(queue, chosen.numbers):
        ends = entry.state == "started"
        print(f"{entry.number} {entry.name}: {'stops after its step' if ends else 'is paused'}")
    if not chosen.numbers:
        print("The queue is paused: what is at work goes on, and nothing new begins.")


def _resume(queue: Queue, chosen: argparse.Namespace) -> None:
    for entry in changing.resume(queue, chosen.numbers):
        print(f"{entry.number} {entry.name}: waits")
    if not chosen.numbers:
        print("The queue goes on.")


def _retry(queue: Queue, chosen: argparse.Namespace) -> None:
    print(*_told(changing.retry(queue, chosen.numbers)), sep="\n")


def _move(queue: Queue, chosen: argparse.Namespace) -> None:
    print(*listed(queue, changing.move(queue, chosen.number, chosen.position)), sep="\n")


def _remove(queue: Queue, chosen: argparse.Namespace) -> None:
    for entry in changing.remove(queue, chosen.numbers):
        print(f"{entry.number} {entry.name}: taken out; its files stay in {entry.output_dir}")


WORDS: dict[str, tuple[str, Callable[[Queue, argparse.Namespace], int | None]]] = {
    "list": ("the runs in their order, with their states (as without any word)", _list),
    "add": ("put runs at the end; their settings are kept as they are now", _add),
    "sweep": ("put a run for each combination of values at the end, named by what differs", _sweep),
    "run": ("work it off; Ctrl-C stops the runs, which go on the next time", _run),
    "table": ("compare runs: settings that differ, loss, validation loss, seconds, file", _table),
    "pause": (
        "begin nothing new; with numbers: hold these back, and stop them with their state",
        _pause,
    ),
    "resume": ("undo pause", _resume),
    "retry": ("let runs wait again that stopped or failed; they go on from their state", _retry),
    "move": ("put a run at another position of the list", _move),
    "remove": ("take runs out; their files stay", _remove),
}
QUEUE = Command(
    "train one run after another, or one on each GPU, and compare them", _describe, _act
)
