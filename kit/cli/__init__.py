"""The command `kit`: plan and train from a terminal.

    kit demo                                        teach the embedded base a new thing, in minutes
    kit plan run.toml --set network_dim=16          what would happen, without torch
    kit train run.toml                              do it, or go on with it
    kit watch output/cat                            follow a run of another terminal or notebook
    kit choose output/cat                           which of its files to keep, and why
    kit control output/cat pause                    its buttons: stop, pause, go-on, sample, ...
    kit queue add cat.toml dog.toml                 one run after another: kit queue run
    kit settings > run.toml                         every setting with its help
    kit presets                                     settings to begin with
    kit train run.toml --preset sdxl-subject-16gb   values for an aim, a family and a card
    kit import old.json --toml run.toml             settings of other programs, with a report
    kit export run.toml --kohya-json gui.json       ours for other programs
    kit arrange --training-images photos ...        images into the folders that are expected
    kit balance --dataset-folder images             repeats that balance them
    kit inspect cat.safetensors                     what a LoRA file says about itself
    kit selftest                                    does this machine compute what others do?
    kit bench --family sdxl --px 1024               what a training step costs on this machine

Exit codes: 0 done; 2 something that a person can put right, told without traceback; 3 a training
(train, demo) that was asked to stop, which the same command goes on with (0 where WORLD_SIZE says
that it is one of several processes); 130 Ctrl-C, of a training the second; 1 a fault of ours.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from kit import __version__, catalog
from kit.basemodel.reading_ahead import read_ahead
from kit.cli import bench, choosing, dataset, import_export, presets, queueing, running, selftest
from kit.cli.command import Command
from kit.cli.launching import train_in_processes
from kit.cli.parser import Parser
from kit.cli.settings import act_settings, describe_settings
from kit.cli.settings_arguments import takes_settings
from kit.cli.unfinished import planned, refuse, takes_answer
from kit.control import RunControl, stop_on_interrupt
from kit.errors import DeviceError, KitError, ProcessLost, nearest, without_secrets
from kit.events import Event, Finished
from kit.launching.command import told as as_typed
from kit.planning.forecast import forecast
from kit.processes import here, require_all
from kit.processes.ends import without_stacks
from kit.processes.heartbeats import end_given_up
from kit.reading.texts import from_json
from kit.runs.atomic_write import write_text
from kit.settings import links
from kit.sinks import Console, listening

WRONG = 2  # the exit code of argparse, too
STOPPED = 3  # a training was asked to stop: its state is kept, the same command goes on
INTERRUPTED = 130  # what shells report for Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    links.take_over()
    try:
        _check_command(words)
        parser = _parser()
        chosen, unknown = parser.parse_known_args(words or ["--help"])
        if unknown:
            _refuse_words(parser, chosen, unknown)
        chosen.words = [links.without_tokens(word) for word in words]  # to be shown, or handed on
        code = COMMANDS[chosen.command].act(chosen) or 0
        sys.stdout.flush()
        return code
    except KitError as error:
        print(f"kit: {without_secrets(error)}", file=sys.stderr, flush=True)
        if isinstance(error, ProcessLost):  # a connection's threads wait for one that hangs
            sys.stdout.flush()
            end_given_up()
            os._exit(WRONG)
        return WRONG
    except BrokenPipeError:  # whoever read our output, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("\nkit: interrupted", file=sys.stderr)
        return INTERRUPTED


def _check_command(words: Sequence[str]) -> None:
    """Argparse refuses an unknown word too, but does not say which one was meant."""
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        raise KitError(
            f"kit {words[0]}: there is no such command{nearest(words[0], COMMANDS)}",
            f"There are {', '.join(COMMANDS)}.",
            "kit --help tells what each does.",
        )


def _refuse_words(
    parser: argparse.ArgumentParser, chosen: argparse.Namespace, unknown: Sequence[str]
) -> None:
    """Argparse says of these words only that they are not recognised, beside kit's own usage."""
    inner: list[argparse._SubParsersAction[argparse.ArgumentParser]]
    while inner := [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]:
        below = inner[0].choices.get(getattr(chosen, inner[0].dest, None) or "")
        if below is None:
            break
        parser = below
    options = [a.option_strings[-1] for a in parser._actions if a.option_strings]
    places = [str(a.metavar or a.dest) for a in parser._actions if not a.option_strings]
    meant = nearest(unknown[0].partition("=")[0], options)
    raise KitError(
        f"{parser.prog}: {links.without_tokens(unknown[0])} is nothing that it takes{meant}",
        f"It takes {', '.join([*places, *options])}.",
        f"{parser.prog} --help tells what each is.",
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="kit",
        description="Train LoRA adapters for Stable Diffusion 1.x, 2.x and XL.",
        epilog="kit COMMAND --help tells more about a command. Exit codes: 0 done; 2 something "
        "that you can put right; 3 a training that was asked to stop (the same command goes on).",
    )
    parser.add_argument("--version", action="version", version=f"LoRA Kit {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        below = commands.add_parser(
            name,
            help=command.help,
            description=f"{command.help[0].upper()}{command.help[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.describe(below)
    return parser


# ---------------------------------------------------------------------------- plan and train


def _describe_plan(parser: argparse.ArgumentParser) -> None:
    takes_settings(parser)
    takes_answer(parser)
    parser.add_argument("--json", action="store_true", help="the plan's numbers, for programs")


def _act_plan(chosen: argparse.Namespace) -> None:
    found, launch = planned(chosen)
    told = forecast(found)
    if chosen.json:
        print(json.dumps({**from_json(found.to_json(), "the plan"), "forecast": told}, indent=2))
    else:
        print(found, f"{told}.", sep="\n")
        if launch is not None:
            words = ["train", *chosen.words[1:]]
            print(f"kit train starts: {as_typed(launch, found.settings.machine, words)}")


def _describe_train(parser: argparse.ArgumentParser) -> None:
    takes_settings(parser)
    takes_answer(parser)
    parser.add_argument(
        "--tell-folder",
        type=Path,
        metavar="FILE",
        help="write into FILE where the run's folder is, for programs",
    )


def _act_train(chosen: argparse.Namespace) -> int:
    require_all()
    if here().count > 1:
        without_stacks()
    if not here().is_first:  # of several processes: it learns from the first what to do
        catalog.load("kit.training.following:follow")(here())
        end_given_up()
        return 0
    control = RunControl()
    with stop_on_interrupt(control):  # from here on, not only while it trains
        found, launch = planned(chosen)
        refuse(chosen, found.run)
        if launch is not None:
            return train_in_processes(
                launch,
                found.settings.machine,
                chosen.words,
                run=found.run,
                tell_folder=chosen.tell_folder,
                control=control,
            )
        if chosen.tell_folder:
            write_text(chosen.tell_folder, str(found.run.dir.absolute()))
        print(*found.lines(), sep="\n", flush=True)  # its notices come as events
        print("loading torch and the base model ...", flush=True)
        read_ahead(found.settings.model.pretrained_model_name_or_path)
        train = catalog.load("kit.training.loop:train")
        with (
            closing(Console(found.total_steps)) as console,
            listening(found.run, console, settings=found.settings) as tell,
        ):
            event: Event = Finished(found.run.from_step, "asked to stop")
            for event in train(found, control):
                tell(event)
    return exit_code(event)


def exit_code(last: Event) -> int:
    """0 where the run is done, STOPPED where somebody ended it before.

    Of several processes (WORLD_SIZE, which torchrun sets) each ends with 0: a launcher takes any
    other code for a failure, ends the other processes and begins anew.
    """
    is_done = isinstance(last, Finished) and last.reason == "done"
    is_one_of_several = os.environ.get("WORLD_SIZE", "").strip() not in ("", "0", "1")
    return 0 if is_done or is_one_of_several else STOPPED


# ------------------------------------------------------------------------- demo, inspect


def _describe_demo(parser: argparse.ArgumentParser) -> None:
    for name, kind, default, shown, text in (
        ("--out", Path, Path("output"), "FOLDER", "where the LoRA goes (default: output)"),
        ("--seed", int, 1, "N", "the same seed gives the same LoRA (default: 1)"),
        ("--steps", int, None, "N", "how many steps (default: enough)"),
    ):
        parser.add_argument(name, type=kind, default=default, metavar=shown, help=text)


def _act_demo(chosen: argparse.Namespace) -> int:
    if here().count > 1:
        raise DeviceError(
            f"kit demo is for one process, and {here().count} were launched.",
            "kit train is what several processes can do together.",
            "Start it without the launcher.",
        )
    run_demo = catalog.load("kit.demo.run:main")
    return exit_code(run_demo(chosen.out, seed=chosen.seed, steps=chosen.steps))


def _describe_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="file.safetensors", help="the LoRA file")
    parser.add_argument("--json", action="store_true", help="everything, for programs")


def _act_inspect(chosen: argparse.Namespace) -> None:
    report = catalog.load("kit.tools.inspecting:inspect")(chosen.file)
    describe = catalog.load("kit.tools.inspecting:describe")
    print(json.dumps(report, indent=2) if chosen.json else describe(report))


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "teach the embedded base a new thing and draw it, in minutes, without any download",
        _describe_demo,
        _act_demo,
    ),
    "plan": Command("show what a training would do, without doing it", _describe_plan, _act_plan),
    "train": Command(
        "train a LoRA, or go on with a training of the same settings", _describe_train, _act_train
    ),
    "watch": running.WATCH,
    "control": running.CONTROL,
    "choose": choosing.CHOOSE,
    "queue": queueing.QUEUE,
    "settings": Command("print every setting with its help", describe_settings, act_settings),
    "presets": presets.PRESETS,
    "import": import_export.IMPORT,
    "export": import_export.EXPORT,
    "arrange": dataset.ARRANGE,
    "balance": dataset.BALANCE,
    "inspect": Command("tell what a LoRA file holds", _describe_inspect, _act_inspect),
    "selftest": selftest.SELFTEST,
    "bench": bench.BENCH,
}
