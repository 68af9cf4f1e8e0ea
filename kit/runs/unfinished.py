"""Words about an unfinished run that is made otherwise than what is asked now."""

from __future__ import annotations

from collections.abc import Iterator

from kit.errors import KitError
from kit.runs.run import Run


def told_of_unfinished(run: Run) -> Iterator[str]:
    """What a plan says of it."""
    other = run.unfinished
    if other is None:
        return
    if run.resumes:
        yield f"goes on with {run.name} at step {run.from_step}, although {other.told}"
        return
    if not other.differences:
        yield f"{other.name} is not finished (step {other.step}); as asked, {run.name} begins anew"
        return
    what = f"{other.name} is not finished (step {other.step}), and was made otherwise: {other.told}"
    if run.asks:
        yield f"{what}. Go on with it, or begin anew as {run.name}"
    elif other.can_go_on:
        yield f"{what}. This run begins anew as {run.name}, as asked"
    elif other.step:
        folder = run.kept_in / f"{other.name}.run"
        yield (
            f"{what}. So this one begins anew as {run.name}; resume = {folder} begins it with the "
            f"state of {other.name}, and {folder / 'run.toml'} are the settings that go on with it"
        )
    else:
        yield f"{what}. Nothing was learned in it yet; this one is named {run.name}"


def is_past(run: Run, total_steps: int) -> str:
    """Why a run cannot go on with what is asked now, if it has come too far; otherwise ""."""
    if run.unfinished is None or run.from_step < total_steps:
        return ""
    return (
        f"[folders] output_name: {run.name} is at step {run.from_step} already, and with what is "
        f"asked now the whole run has {total_steps}; begin anew, or raise epoch"
    )


def refuse_undecided(
    run: Run,
    *,
    go_on: str = 'kit.plan(settings, unfinished="go on")',
    begin_anew: str = 'kit.plan(settings, unfinished="begin anew")',
) -> None:
    """Let nobody train before it is decided.

    go_on, begin_anew: how a person says it.

    Raises: KitError where it is not decided.
    """
    other = run.unfinished
    if other is None or not run.asks:
        return
    raise KitError(
        f"{other.name} is not finished (step {other.step}), and was made otherwise than what is "
        f"asked now: {other.told}.",
        "It can go on with what is asked now, or stay as it is while a new run begins; nothing was "
        "touched.",
        f"To go on with it:            {go_on}\nTo begin anew as {run.name}: {begin_anew}",
    )
