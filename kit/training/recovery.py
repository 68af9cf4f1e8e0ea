"""What a run does where a step fails: skip it, make it in less memory, go back, or end in words.

`attempt` is one step of the optimizer. What it cannot deal with by itself it raises as a Setback;
so does whatever would write weights that are not finite. `go_back` answers a Setback.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from torch import Tensor

from kit.devices import (
    free_memory,
    lacks_deterministic_kernel,
    peak_megabytes,
    ran_out_of_memory,
)
from kit.errors import DeviceError, Diverged, KitError
from kit.events import Event, Lightened, Noticed, RolledBack, Skipped, Stepped
from kit.optim.learning_rates import (
    changed_rates,
    effective_rates_of,
    multiply_rates,
    rates_of,
)
from kit.optim.optimization import Optimization
from kit.planning.ladder import Footing
from kit.planning.proposals import advice, candidate_of
from kit.training.batches import Batch
from kit.training.checkpoint import share_state
from kit.training.orders import Order
from kit.training.preparation import Resources
from kit.training.sharding import out_of_memory
from kit.training.shared_gradient import Seen
from kit.training.soundness import (
    NotFinite,
    Setback,
    Unsound,
    all_finite,
    listed,
    require_finite_network,
    short_name,
)
from kit.training.step import gathered, judged

SLOWER = 0.5  # the rate after going back


def attempt(resources: Resources, step: int) -> Stepped | Skipped | Lightened:
    """One step of the optimizer: what it came to, or that it was left out, and why.

    Lightened: it is still to be made, in less memory.

    Raises: Setback where neither skipping nor less memory is enough; DeviceError.
    """
    try:
        return _stepped(resources, step)
    except Unsound as error:
        return _skipped(resources, step, _diagnosed(resources, step, error))
    except (RuntimeError, MemoryError) as error:
        if lacks_deterministic_kernel(error) and resources.plan.settings.machine.deterministic:
            raise _not_deterministic(error) from error
        if not ran_out_of_memory(error):
            raise
    # Behind the block, where the error no longer holds on to the step's tensors.
    return _lightened(resources, step)


def _not_deterministic(error: BaseException) -> DeviceError:
    return DeviceError(
        f"deterministic: {str(error).strip().splitlines()[0]}",
        "The state of the last whole step is kept.",
        "Turn deterministic off, or choose another attention in cross_attention.",
    )


def _stepped(resources: Resources, step: int) -> Stepped:
    plan, began, rates = resources.plan, time.monotonic(), resources.begin(step)
    begun = resources.ahead.taken(step)
    given = rates_of(resources.optimization)
    training_step = resources.training_step
    seen = begun.seen if begun else _gathered(resources, plan.micro_steps(step), step)
    result = judged(training_step, seen, watch=resources.guardian.watch)
    resources.guardian.took(result, overflowed=training_step.has_overflowed)
    resources.losses.add(result.losses)
    return Stepped(
        step=step,
        epoch=plan.epochs_after(step),
        loss=sum(result.losses) / len(result.losses),
        loss_average=resources.losses.average,
        rates=rates,
        given_rates={} if given == rates else given,
        norm=result.norm,
        seconds=time.monotonic() - (begun.at if begun else began),
        bands=result.bands,
        megabytes=peak_megabytes(training_step.accelerator.device),
    )


def _gathered(resources: Resources, micro_steps: range, step: int) -> list[Seen]:
    """The gradient of a step, of all processes."""
    training_step = resources.training_step
    if training_step.shared is not None:
        resources.ranks.tell_rates(changed_rates(resources.optimization))
        training_step.shared.begin(step, micro_steps)
    return gathered(
        training_step,
        resources.feed.micro_batches(resources.ranks.share(micro_steps)),
        count=len(micro_steps),
        gradient=resources.engine.gradient,
        idle=resources.idle_batch(micro_steps),
    )


# -------------------------------------------------------------------------------- not finite


def _skipped(resources: Resources, step: int, fault: Unsound) -> Skipped:
    """Leave the step out.

    Raises: the fault, where that does not help: weights stay as they are, and too many is enough.
    """
    if fault.kind == "weights" or not resources.guardian.may_skip(step):
        raise fault
    resources.ranks.order(Order.SKIP, step)
    resources.training_step.skip()
    return Skipped(step, fault.words, fault.pictures, resources.guardian.skipped)


def _diagnosed(resources: Resources, step: int, fault: Unsound) -> Unsound:
    """The fault with all that can be found out about it: whose fault it is, and of which step."""
    try:
        require_finite_network(resources.network)
    except NotFinite as deeper:
        fault = deeper
    micro_steps = sorted({micro_step for micro_step, _ in fault.places})
    names = {number: resources.batch_builder.pictures(number) for number in micro_steps}
    fault.pictures = tuple(names[number][row] for number, row in fault.places)
    if not fault.pictures:
        every = (
            resources.batch_builder.pictures(each) for each in resources.plan.micro_steps(step)
        )
        fault.pictures = tuple(name for names in every for name in names)
    broken = [
        names[number][row]
        for number in micro_steps
        for row in _broken_rows(resources.feed.batch(number))
    ]
    if broken:
        fault.is_of_data = True
        fault.words += f"; what was cached or encoded of {listed(broken)} is not finite"
    if layers := _names_of(resources, fault.weights):
        fault.words += f"; it is that of {listed(layers)}"
    fault.step = step
    return fault


def _broken_rows(batch: Batch) -> list[int]:
    """The images of a batch that are not finite before any model has seen them."""
    given = [batch.latents_BChw, batch.mask_B1hw, batch.inpaint_cond_B5hw]
    if batch.text_embeds is not None:
        given += [batch.text_embeds.hidden_BND, batch.text_embeds.pooled_BP]
    there = [each for each in given if each is not None]
    return [row for row in range(len(batch.t_B)) if not all_finite(each[row] for each in there)]


def _names_of(resources: Resources, weights: Iterable[Tensor]) -> list[str]:
    """Layers by their weights; none where all are meant, as after a norm that is no number."""
    wanted = {id(weight) for weight in weights}
    parameters = list(resources.network.named_parameters())
    found = [short_name(name) for name, weight in parameters if id(weight) in wanted]
    learning = [weight for _, weight in parameters if weight.requires_grad]
    return [] if len(found) == len(learning) else found


# ------------------------------------------------------------------------------ out of memory


def _lightened(resources: Resources, step: int) -> Lightened:
    """Free what is held, and take the next rung; the state before the step knows of it.

    Raises: Setback where weights were moved half-way; DeviceError where no rung is left.
    """
    if not resources.training_step.is_whole:
        raise Setback(f"step {step} ran out of memory while it moved the weights")
    resources.training_step.forget()
    if resources.ranks.is_sharded:
        raise sharded_out_of_memory(resources)
    footing = _taken(resources, step)
    resources.checkpoint.keep_change(step - 1)
    share_state(resources.ranks, resources.checkpoint, step - 1)
    return _told(resources, step - 1, footing)


def _taken(resources: Resources, step: int) -> Footing:
    free_memory()
    lightening = resources.lightening
    footing = lightening.lower()
    if footing is None:
        raise _too_large(resources, step)
    lightening.stand_on(footing)
    return footing


def _told(resources: Resources, step: int, footing: Footing) -> Lightened:
    basic = resources.plan.settings.basic
    wanted = footing.settings(resources.lightening.batch_size, basic.gradient_accumulation_steps)
    return Lightened(step, footing.words, wanted)


def sharded_out_of_memory(resources: Resources) -> DeviceError:
    """No rung is taken in mid-step where all processes stand in the middle of it."""
    settings = resources.plan.settings
    return out_of_memory(settings.basic, settings.memory, resources.ranks.count)


def _too_large(resources: Resources, step: int) -> DeviceError:
    batch_size, footing = resources.lightening.batch_size, resources.lightening.footing
    tried = f", with {footing.words}" if footing != Footing() else ""
    gathered = resources.plan.settings.basic.gradient_accumulation_steps
    asked = candidate_of(resources.plan, footing.settings(batch_size, gathered))
    usual = (
        "Lower resolution or network_dim, cache latents and text encoder outputs, or set "
        "base_precision = int8."
    )
    return DeviceError(
        f"The memory was not enough for step {step} (train_batch_size = {batch_size}{tried}).",
        "The state of the last whole step is kept: the same settings go on from there once more "
        "memory is free; other settings begin anew.",
        f"Close what else uses the memory. {advice(asked) or usual}",
    )


# ----------------------------------------------------------------------------------- going back


def go_back(resources: Resources, setback: Setback, done: int) -> tuple[int, list[Event]]:
    """Answer a setback after `done` steps: the step that the run goes on from, and what to tell.

    Raises: Diverged where going back does not help; DeviceError where memory stays too small;
    OutputError where the last state cannot be read.
    """
    step, told = _gone_back(resources, setback, done)
    share_state(resources.ranks, resources.checkpoint, step)
    return step, told


def _gone_back(resources: Resources, setback: Setback, done: int) -> tuple[int, list[Event]]:
    if isinstance(setback, Unsound):
        return _with_a_change(resources, setback, done)
    footing = _taken(resources, done + 1)
    step, notices = _restored(resources)
    resources.lightening.stand_on(footing)
    _keep(resources, step)
    why = "the memory was not enough while the weights were moved"
    back = RolledBack(step, done + 1, why, "less memory")
    return step, [back, *notices, _told(resources, step, footing)]


def _with_a_change(resources: Resources, fault: Unsound, done: int) -> tuple[int, list[Event]]:
    """Back to the last state or the one before, and on with another loss scale or a lower rate."""
    guardian, at = resources.guardian, fault.step or done
    scaler = resources.checkpoint.scaler
    by_scale = scaler is not None and guardian.rollbacks == 0
    helps = by_scale or not resources.optimization.own_rate
    if not (helps and guardian.may_roll_back(fault)):
        raise diverged(resources, fault, at) from fault
    count, footing = guardian.rollbacks + 1, resources.lightening.footing
    # It has led here before: what is wrong may lie in that state already.
    further = guardian.back_at == resources.checkpoint.state_step
    step, notices = _restored(resources, further=further)
    resources.lightening.stand_on(footing)
    known = guardian.rollbacks  # an older state knows nothing of the changes since
    guardian.rolled_back(count, step)
    if scaler is not None and known == 0:
        scaler.load_state_dict({**scaler.state_dict(), "scale": scaler.get_scale() * SLOWER})
        known = 1
    if known < count:
        multiply_rates(resources.optimization, SLOWER ** (count - known))
        resources.checkpoint.owe("rates")  # told when what is owed is made up
    change = f"learning rate x {SLOWER:g}"
    if by_scale and scaler is not None:
        change = f"the loss scale is {scaler.get_scale():g}"
    _keep(resources, step)
    return step, [RolledBack(step, at, fault.words, change), *notices]


def _restored(resources: Resources, *, further: bool = False) -> tuple[int, list[Noticed]]:
    """Weights, optimizer, schedule and scaler of the last state; what had stopped learns again.

    further: of the state before it, where there is one. Returns its step, and what is to be told.
    """
    resources.training_step.is_whole = False  # until all is back, nothing of it is to be kept
    resources.training_step.forget()
    checkpoint = resources.checkpoint
    checkpoint.notices.clear()
    step = checkpoint.restore_last(further=further)
    learns_again(resources.optimization)
    return step, [Noticed(text) for text in checkpoint.notices]


def learns_again(optimization: Optimization) -> None:
    """What had stopped learning does again; `Resources.begin` stops it when it is time."""
    for group in optimization.optimizer.param_groups:
        for weight in group["params"]:
            weight.requires_grad_(True)


def _keep(resources: Resources, step: int) -> None:
    """The state with the change, so that a run that is broken off later goes on with it."""
    resources.training_step.is_whole = True
    resources.checkpoint.keep_change(step)


# ------------------------------------------------------------------------------------- in words


def diverged(resources: Resources, fault: Unsound, step: int) -> KitError:
    """Step, images and cause, in the words of a person who knows the settings."""
    guardian, settings = resources.guardian, resources.plan.settings
    pictures = fault.pictures or tuple(
        name
        for number in resources.plan.micro_steps(step)
        for name in resources.batch_builder.pictures(number)
    )
    counts = [f"{guardian.skipped} steps were skipped"] if guardian.skipped else []
    counts += [f"it went back {guardian.rollbacks} times"] if guardian.rollbacks else []
    before = f" Before that, {' and '.join(counts)}." if counts else ""
    return Diverged(
        f"Step {step} ({_in_words(pictures)}): {fault.words}. This run is over.{before}",
        f"{_kept(resources.checkpoint.state_step)}, and every file written so far is sound.",
        _advice(resources, fault, settings.memory.mixed_precision),
    )


def _kept(step: int) -> str:
    return f"The state of step {step} is kept" if step else "No state was kept yet"


def _in_words(pictures: tuple[str, ...]) -> str:
    names = list(dict.fromkeys(pictures))
    return f"{'image' if len(names) == 1 else 'images'} {listed(names)}"


def _advice(resources: Resources, fault: Unsound, mixed_precision: str) -> str:
    if fault.is_of_data:
        return (
            "Look at this picture and its caption; take it out, or set no_half_vae and empty the "
            "folder .kit_cache beside the images, so that it is encoded anew."
        )
    rates = ", ".join(
        f"{n} {rate:g}" for n, rate in effective_rates_of(resources.optimization).items()
    )
    ways = [f"Lower learning_rate (it was {rates})"]
    ways += ["use mixed_precision = bf16 or no"] if mixed_precision == "fp16" else []
    if resources.guardian.mode != "rollback":
        ways.append("set guardian = rollback, which goes on from the last state at half the rate")
    return ", or ".join(ways) + "."
