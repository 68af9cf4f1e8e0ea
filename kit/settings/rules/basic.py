"""Rules about the rates, the optimizer and the schedule."""

from __future__ import annotations

from collections.abc import Iterator

from kit import catalog
from kit.errors import nearest
from kit.settings import Basic, Blocks, NetworkSettings, Rates, effective, foreign_schedules
from kit.settings.optimizer_args import parse_optimizer_args
from kit.settings.optimizer_values import wrong_values
from kit.settings.rules.rule import Changed, Idle, RunLength, idle, notice, problem
from kit.settings.unet_blocks import given_weights

BOTH_SET = "unet_lr and text_encoder_lr are both set; blank them to use it"
FAR = 10  # a rate so many times above or below the advised one is told
# Every setting that some schedule of the menu reads.
OF_SCHEDULES = tuple(dict.fromkeys(name for row in catalog.SCHEDULES.values() for name in row.uses))
NEEDED = {"OneCycleLR": ("max_lr",), "CyclicLR": ("base_lr", "max_lr")}


@problem
def nothing_learns(basic: Basic, rates: Rates) -> Iterator[str]:
    if not any(effective.part_rates(basic, rates).values()):
        yield (
            "[basic] unet_lr and text_encoder_lr: both are 0, so nothing would learn; set one of "
            "them, or leave one blank to use learning_rate"
        )


@problem
def schedule_args(basic: Basic) -> Iterator[str]:
    try:
        parse_optimizer_args(basic.lr_scheduler_args)
        effective.step_rules(basic)
    except ValueError as error:
        yield f"[basic] lr_scheduler_args: {error}"


@problem
def schedule_class(basic: Basic) -> Iterator[str]:
    """A class in lr_scheduler_type, and its arguments, as far as they are known without it."""
    name = basic.lr_scheduler_type.strip()
    if not name or effective.controls_lr(basic):
        return
    if why := foreign_schedules.wrong_class(name):
        yield f"[basic] lr_scheduler_type: {name} {why}"
        return
    takes = parse_optimizer_args(effective.optimizer(basic).takes)
    for text in foreign_schedules.wrong_arguments(name, effective.schedule_args(basic), takes):
        yield f"[basic] lr_scheduler_args: {text}"


@problem
def optimizer_values(basic: Basic) -> Iterator[str]:
    for text in wrong_values(basic.optimizer_type, effective.optimizer_args(basic)):
        yield f"[basic] optimizer_args: {text}"


@problem
def optimizer_args(basic: Basic) -> Iterator[str]:
    row = effective.optimizer(basic)
    try:
        given = parse_optimizer_args(basic.optimizer_args)
    except ValueError as error:
        yield f"[basic] optimizer_args: {error}"
        return
    takes, unused = parse_optimizer_args(row.takes), parse_optimizer_args(row.unused)
    known = {*takes, *row.renamed}
    for name, value in given.items():
        if name == "lr":
            yield "[basic] optimizer_args: lr is not given here; set unet_lr and text_encoder_lr"
        elif name in unused:
            if value != unused[name]:
                other = _next_that_takes(name, row)
                yield (
                    f"[basic] optimizer_args: {basic.optimizer_type} has {name} and does not use "
                    "it; leave it out" + (f", or choose {other}" if other else "")
                )
        elif name not in known:
            yield (
                f"[basic] optimizer_args: {basic.optimizer_type} does not take {name}"
                f"{nearest(name, known)}; it takes {', '.join(takes)}"
            )


@problem
def average_without_momentum(basic: Basic) -> Iterator[str]:
    """The average, which is saved, is found from what was learnt by dividing by the first beta."""
    if effective.controls_lr(basic) != "schedule":
        return
    betas = effective.optimizer_args(basic).get("betas")
    first = betas[0] if isinstance(betas, tuple) and betas else None
    if isinstance(first, int | float) and not 0 < first <= 1:
        yield (
            f"[basic] optimizer_args: the first of the betas is {first:g}; {basic.optimizer_type} "
            "finds the average by dividing by it, so it must be above 0 and at most 1, e.g. 0.9"
        )


def _next_that_takes(argument: str, row: catalog.Optimizer) -> str:
    """The nearest of a row's fallbacks that uses an argument; empty where there is none."""
    while row.fallback:
        name, row = row.fallback, catalog.OPTIMIZERS[row.fallback]
        if argument in parse_optimizer_args(row.takes):
            return name
    return ""


@problem
def one_rate(basic: Basic, rates: Rates, blocks: Blocks) -> Iterator[str]:
    row, name = effective.optimizer(basic), basic.optimizer_type
    if not row.one_rate:
        return
    own = effective.own_rates(basic)
    if own and any(len(set(each)) > 1 for each in (own.first, own.highest)):
        yield (
            f"[basic] lr_scheduler_args: {name} learns every part at one rate; give {own.name} one "
            "number instead of a list"
        )
    different = sorted({rate for rate in effective.part_rates(basic, rates).values() if rate})
    if len(different) > 1 and not own:
        yield (
            f"[basic] text_encoder_lr: {name} learns every part at one rate, but there are "
            f"{' and '.join(f'{rate:g}' for rate in different)}; set unet_lr and text_encoder_lr "
            f"to {row.advised_lr or different[-1]:g}, or one of them to 0"
        )
    if any(effective.plus_ratios(rates).values()):
        yield (
            f"[rates] loraplus_lr_ratio: {name} learns every weight at one rate; set the ratios "
            "to 0, or choose another optimizer"
        )
    if any(given_weights(blocks).values()):
        yield (
            f"[blocks] down_lr_weight: {name} learns every block at one rate; blank the weights of "
            "blocks, or choose another optimizer"
        )


@problem
def own_schedule_alone(basic: Basic) -> Iterator[str]:
    own = catalog.SCHEDULES[basic.lr_scheduler].own and not basic.lr_scheduler_type
    if own and effective.controls_lr(basic) != "rate":
        yield (
            f"[basic] lr_scheduler: {basic.lr_scheduler} is the schedule of an optimizer that "
            "chooses its own rate, such as Adafactor with relative_step=True; choose another, "
            "e.g. constant_with_warmup"
        )


@problem
def cycle_of_another_length(basic: Basic, length: RunLength) -> Iterator[str]:
    """Arguments without which torch makes no such schedule, and a OneCycleLR that ends too early.

    torch raises at the step after its last.
    """
    name, given = effective.schedule_class(basic), effective.schedule_args(basic)
    missing = [each for each in NEEDED.get(name, ()) if each not in given]
    if name == "OneCycleLR" and not {"total_steps", "epochs"} & set(given):
        missing.append("total_steps")
    if missing and not effective.controls_lr(basic):
        shown = {"total_steps": length.total, "base_lr": 1e-5, "max_lr": 1e-4}
        yield (
            f"[basic] lr_scheduler_args: {name} needs {' and '.join(missing)}; write e.g. "
            + " ".join(f"{each}={shown[each]:g}" for each in missing)
        )
    steps = effective.cycle_steps(basic)
    if 0 < steps < length.total:
        yield (
            f"[basic] lr_scheduler_args: OneCycleLR ends after {steps} steps and refuses to go on, "
            f"but the run has {length.total}; write total_steps={length.total}"
        )


@idle
def no_warmup(basic: Basic, rates: Rates) -> Iterator[Idle]:
    if effective.controls_lr(basic) or effective.warms_up(basic, rates):
        return
    why = f"{_schedule(basic)} does not warm up (constant_with_warmup does)"
    if rates.lr_warmup_only_constant:
        why = f"lr_warmup_only_constant is on, and {_schedule(basic)}"
    yield Idle(why, "lr_warmup", asked=bool(basic.lr_warmup_steps or basic.lr_warmup))
    yield Idle(why, "lr_warmup_steps", asked=False)


@idle
def special_ones_count(basic: Basic, rates: Rates) -> Iterator[Idle]:
    is_used = effective.warms_up(basic, rates) and not effective.controls_lr(basic)
    if is_used and basic.lr_warmup_steps is not None:
        yield Idle(f"lr_warmup_steps = {basic.lr_warmup_steps} is set", "lr_warmup")
    if basic.unet_lr is not None and basic.text_encoder_lr is not None:
        yield Idle(BOTH_SET, "learning_rate", asked=False)  # `main_rate_unused` tells it


@idle
def idle_schedule(basic: Basic) -> Iterator[Idle]:
    if effective.controls_lr(basic):
        return  # told there
    foreign = basic.lr_scheduler_type
    used = ("lr_scheduler_args",) if foreign else catalog.SCHEDULES[basic.lr_scheduler].uses
    unused = [name for name in OF_SCHEDULES if name not in used]
    yield Idle(f"{_schedule(basic)} does not use it", *unused)
    if foreign:
        yield Idle(f"{_schedule(basic)} takes its place", "lr_scheduler", asked=True)


def _schedule(basic: Basic) -> str:
    if basic.lr_scheduler_type:
        return f"lr_scheduler_type = {basic.lr_scheduler_type}"
    return f"lr_scheduler = {basic.lr_scheduler}"


@notice
def ends_high(basic: Basic) -> Iterator[str]:
    cycles = basic.lr_scheduler_num_cycles or 1
    waves = basic.lr_scheduler in ("cosine_with_min_lr", "warmup_stable_decay")
    if waves and cycles % 2 == 0 and not basic.lr_scheduler_type:
        yield (
            f"lr_scheduler_num_cycles = {cycles}: {basic.lr_scheduler} makes that many half waves "
            "and ends at the full rate; an odd number ends low"
        )


@notice
def sets_rates(basic: Basic) -> Iterator[str]:
    own = effective.own_rates(basic)
    if not own:
        return
    name, given = own.name, effective.schedule_args(basic)
    yield (
        f"{name} sets the rates by max_lr: learning_rate, unet_lr and text_encoder_lr (except 0) "
        "have no effect"
    )
    if given.get("cycle_momentum", True):
        least, most = (0.85, 0.95) if name == "OneCycleLR" else (0.8, 0.9)
        least, most = given.get("base_momentum", least), given.get("max_momentum", most)
        yield (
            f"{name} moves the optimizer's momentum (the first of its betas), too, between "
            f"{least} and {most}; cycle_momentum=False in lr_scheduler_args keeps it"
        )


@notice
def takes_over(basic: Basic, network: NetworkSettings) -> Iterator[str]:
    row, what = effective.optimizer(basic), effective.controls_lr(basic)
    off = f"; with {row.while_on}=False in optimizer_args they have"
    if what == "rate":
        yield (
            f"{basic.optimizer_type} chooses its own rate: learning_rate, unet_lr, text_encoder_lr "
            f"(except 0), lr_scheduler and lr_warmup have no effect{off}"
        )
    elif what:
        warms_up = "warmup_steps" in parse_optimizer_args(row.takes)
        yield (
            f"{basic.optimizer_type} averages its weights instead of lowering the rate: "
            "lr_scheduler and lr_warmup have no effect"
            + (off if row.while_on else "")
            + ("; it warms up with warmup_steps=100 in optimizer_args" if warms_up else "")
        )
        if network.scale_weight_norms:
            yield (
                f"scale_weight_norms limits the weights that {basic.optimizer_type} learns from; "
                "their average, which is saved, may be somewhat longer"
            )


@idle
def schedule_of_no_use(basic: Basic) -> Iterator[Idle]:
    """What the optimizer takes over; `takes_over` tells the most of it, whatever was asked for."""
    what = effective.controls_lr(basic)
    if what:
        does = "chooses its own rate" if what == "rate" else "averages its weights instead"
        why = f"{basic.optimizer_type} {does}"
        yield Idle(why, "lr_scheduler", "lr_warmup", "lr_warmup_steps", asked=False)
        yield Idle(why, "lr_scheduler_type", *OF_SCHEDULES)


@notice
def far_from_advised(basic: Basic) -> Iterator[str]:
    own, row = effective.own_rates(basic), effective.optimizer(basic)
    rate = max(own.highest if own else effective.learning_rates(basic))
    if not row.advised_lr or effective.controls_lr(basic) == "rate" or not rate:
        return
    if not 1 / FAR <= rate / row.advised_lr <= FAR * 1.001:
        why = " as a factor of the step size that it finds itself" if row.adapts else ""
        yield (
            f"the rate {rate:g} is far from {row.advised_lr:g}, which is advised for "
            f"{basic.optimizer_type}{why}"
        )


@notice
def optimizer_note(basic: Basic) -> Iterator[str]:
    row = effective.optimizer(basic)
    if row.note:
        yield row.note
    for name, value in effective.optimizer_args(basic).items():
        if value and name in row.misleading:
            yield row.misleading[name]


@idle
def two_lengths(basic: Basic) -> Iterator[Idle]:
    if basic.max_train_epochs:
        yield Idle("max_train_epochs is set", "max_train_steps", "epoch")
    elif basic.max_train_steps:
        yield Idle("max_train_steps is set", "epoch")


@notice
def main_rate_unused(basic: Basic, changed: Changed, length: RunLength) -> Iterator[str]:
    """Told of a run: presets name the main rate, too, for programs that show it alone."""
    both_own = basic.unet_lr is not None and basic.text_encoder_lr is not None
    if both_own and "learning_rate" in changed and not effective.own_rates(basic):
        yield f"learning_rate has no effect: {BOTH_SET}"


@notice
def longer_than_the_run(basic: Basic, rates: Rates, length: RunLength) -> Iterator[str]:
    """Steps of the schedule that the run does not have."""
    total, decay = length.total, length.decay
    warmup = (basic.lr_warmup_steps or 0) if effective.warms_up(basic, rates) else 0
    if warmup > total:
        yield (
            f"lr_warmup_steps = {warmup} is more than the run's {total} steps: the rate climbs to "
            "the end and just reaches its full height (sd-scripts would stop below it)"
        )
        return
    decays = basic.lr_scheduler == "warmup_stable_decay" and not basic.lr_scheduler_type
    if decays and not effective.controls_lr(basic) and warmup + decay > total:
        yield (
            f"lr_decay_steps: {decay} steps of decay"
            + (f" and {warmup} of warm-up" if warmup else "")
            + f" are more than the run's {total}: the rate starts to fall below its full height"
        )


@notice
def cycle_left_early(basic: Basic, length: RunLength) -> Iterator[str]:
    """A OneCycleLR that the run leaves before its end."""
    steps = effective.cycle_steps(basic)
    if steps > length.total:
        yield (
            f"OneCycleLR would end after {steps} steps, the run does after {length.total}: its "
            f"last rate is never reached; total_steps={length.total} in lr_scheduler_args reaches "
            "it"
        )
