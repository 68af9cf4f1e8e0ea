"""Resources of a run, made ready from its plan: model, caches, network, optimizer, state, step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from accelerate import Accelerator

from kit import catalog
from kit.adapters.network import Network
from kit.adapters.param_groups import PartRates
from kit.dataset.batches import Layout
from kit.dataset.buckets import Size
from kit.devices import DTYPES, check_precision, choose_device, describe, make_accelerator
from kit.diffusion.losses import make_objective
from kit.events import Event, Loaded, Noticed
from kit.families import Family
from kit.families.base_model import fetched_model, find_model, load_model, require_model
from kit.families.resting import wake
from kit.families.text import TextConditioner
from kit.optim.learning_rates import effective_rates_of, multiply_rates
from kit.optim.optimization import Optimization
from kit.planning import Plan
from kit.planning.forecast import corrected
from kit.planning.ladder import Footing
from kit.planning.proposals import advice, candidate_of
from kit.runs.run import Run
from kit.settings import Memory, NetworkSettings, Settings, effective
from kit.settings.prompts import Prompt
from kit.settings.unet_blocks import block_plan
from kit.training.ahead import Ahead
from kit.training.batches import Batch, BatchBuilder
from kit.training.caches import run_latents, run_text_embeds, text_conditioner
from kit.training.checkpoint import Checkpoint, share_state
from kit.training.class_word import ask_about_drawn
from kit.training.compiling import compile_unet
from kit.training.copies import copies_for
from kit.training.engine import EngineUsed, StepEngine
from kit.training.engine_choice import make_engine
from kit.training.feed import AHEAD, Feed
from kit.training.guardian import Guardian
from kit.training.kept import Losses
from kit.training.lightening import Lightening
from kit.training.lora_saving import FileWriter, file_writer
from kit.training.network_setup import (
    attached_network,
    check_optimizer,
    make_optimization,
    optimizer_options,
    recompute_gradients,
)
from kit.training.probe import probed
from kit.training.ranks import ALONE, Ranks
from kit.training.sampling import (
    SamplePipeline,
    SampleWriter,
    make_scheduler,
    rescales,
    samplers_of,
)
from kit.training.sharding import divided
from kit.training.shared_gradient import SharedGradient
from kit.training.staging import staged_images, staged_model
from kit.training.state_fit import made_before
from kit.training.step import TrainingStep
from kit.training.stills import Stills, make_stills
from kit.validation.patience import Patience


@dataclass
class Resources:
    """What a run works with: the training step, and all that stands around it."""

    plan: Plan
    training_step: TrainingStep
    network: Network
    batch_builder: BatchBuilder
    samples: SampleWriter
    losses: Losses
    checkpoint: Checkpoint
    guardian: Guardian
    lightening: Lightening
    feed: Feed
    engine_used: EngineUsed
    ranks: Ranks = ALONE
    stills: Stills | None = field(init=False)  # what is validated on
    patience: Patience = field(init=False)
    ahead: Ahead = field(init=False)

    def __post_init__(self) -> None:
        """Read what belongs to the pictures that are validated on, while nobody else reads."""
        self.patience = Patience(self.plan.settings.validation.validation_patience)
        self.stills = make_stills(self.batch_builder, self.ranks)
        self.ahead = Ahead(self.training_step, self.engine, self.feed, self.plan.micro_steps)

    @property
    def family(self) -> Family:
        """The base model."""
        return self.training_step.text.family

    @property
    def optimization(self) -> Optimization:
        """The optimizer and its schedule."""
        return self.training_step.optimization

    @property
    def engine(self) -> StepEngine:
        """What makes the gradients."""
        return self.engine_used.engine

    def begin(self, step: int) -> dict[str, float]:
        """Make ready for a step; returns the rate of every group that it will use."""
        stop = self.plan.text_encoder_stop
        if stop and step > stop and self.network.stop_text_encoders():
            self.engine.reset()
        return effective_rates_of(self.optimization)

    def look_ahead(self, step: int) -> None:
        """Begin a step's gradient before the one before is told, where nothing stands between."""
        stops = step - 1 == self.plan.text_encoder_stop
        if step <= self.plan.total_steps and not stops and not self.checkpoint.owed:
            self.ahead.begin(step)

    def idle_batch(self, micro_steps: range) -> Batch | None:
        """One of another process, to pass through the layers with it: see `Ranks.waits_idle`."""
        waits = self.ranks.waits_idle(micro_steps)
        return self.feed.batch(micro_steps.start) if waits else None

    def notices(self) -> Iterator[Noticed]:
        """What has happened in the base model since the last time."""
        told = (self.family, self.engine, self.engine_used)
        for text in (text for each in told for text in each.take_notices()):
            yield Noticed(text)

    def close(self) -> None:
        """Leave the base model as it was, and no thread behind."""
        self.network.detach_hooks()
        self.feed.close()
        self.batch_builder.close()
        self.ahead.drop()
        self.engine.reset()


def prepare(plan: Plan, ranks: Ranks = ALONE) -> Generator[Event, None, Resources]:
    """Load, cache, attach, restore.

    ranks: the processes that will train it; each prepares its own resources.

    Raises: ModelError, DatasetError, DeviceError, LoraFileError, SettingsError, MissingPackage;
    each says what to change.
    """
    settings, began = plan.settings, time.time()
    require_model(settings.model.pretrained_model_name_or_path)
    device = choose_device(settings.machine)
    if settings.machine.gpu_ids and device.type != "cuda":
        yield Noticed(f"gpu_ids has no effect: {describe(device)} trains, no NVIDIA GPU is there")
    check_precision(device, settings.memory.mixed_precision)
    check_optimizer(
        effective.part_rates(settings.basic, settings.rates),
        optimizer_options(settings.basic, plan.schedule_params),
    )
    with ranks.in_turn():
        path = yield from fetched_model(settings.model.pretrained_model_name_or_path)
        file, notices = find_model(settings, path)
        for text in notices:
            if text not in plan.notices:
                yield Noticed(text)
        file = yield from staged_model(file)
        plan = replace(plan, images=(yield from staged_images(plan.images)))
    accelerator = make_accelerator(
        device, settings.memory.mixed_precision, half_weights=settings.memory.full_fp16
    )
    sharded = settings.machine.shard_base and ranks.count > 1
    family = load_model(settings, file, device, rests=True, sharded=sharded)
    for sampler in samplers_of(plan.prompts, settings.samples.sample_sampler):
        make_scheduler(sampler, family)  # so that one that cannot be used is told before a step
        if family.zero_terminal_snr and not rescales(sampler):
            yield Noticed(
                f"sample_sampler = {sampler} cannot draw from pure noise, as this "
                "zero-terminal-SNR model was trained to: samples will look washed out; ddim or "
                "euler can"
            )
    writer = partial(file_writer, plan, file=file, began=began)
    return (yield from equip(plan, family, accelerator, writer=writer, ranks=ranks))


def equip(
    plan: Plan,
    family: Family,
    accelerator: Accelerator,
    *,
    writer: Callable[..., FileWriter],
    ranks: Ranks = ALONE,
) -> Generator[Event, None, Resources]:
    """The resources around a base model; writer(network, optimization) makes its FileWriter.

    Raises: DatasetError, LoraFileError; each says what to change.
    """
    settings = plan.settings
    text = text_conditioner(family, settings.memory, settings.captions)
    network, rates = _attached(settings, family, seed=plan.seed)
    yield from divided(settings.machine, family, network, accelerator.device, ranks)
    learns = effective.encoder_learns(settings.basic, settings.rates)
    recomputes = settings.memory.gradient_checkpointing
    try:
        if recomputes:
            recompute_gradients(family, text_encoders=learns, draws=network.draws)
        step = _training_step(plan, accelerator, text, network, rates, ranks)
        yield from probed(
            step,
            network,
            layout=plan.layout,
            memory=settings.memory,
            steps=plan.total_steps - plan.from_step,
            told=partial(corrected, plan),
            advice=lambda: advice(candidate_of(plan)),
        )
        latents = yield from run_latents(plan, family, ranks)
        with network.eval_mode():
            text_embeds = yield from run_text_embeds(
                plan, text, accelerator.autocast, ranks, adapters=network.beside_text_encoders()
            )
    except BaseException:
        network.detach_hooks()
        raise
    wake(family.unet)
    compile_unet(family.unet, settings.machine)
    yield from map(Noticed, step.optimization.notices)
    losses, optimization = Losses(plan.batches_per_epoch), step.optimization
    scaler, write = accelerator.scaler, writer(network, optimization)
    checkpoint = Checkpoint(plan, network, optimization, losses, scaler=scaler, write_file=write)
    checkpoint.writing = ranks.writing
    guardian = Guardian(settings.basic.guardian)
    used = EngineUsed(make_engine(step, network, settings.machine, checkpointing=recomputes))
    lightening = _lightening(
        step, used.engine, plan.layout, learns=learns, checkpointing=recomputes
    )
    checkpoint.also = {"guardian": guardian, "footing": lightening, "engine": used}
    yield from _resumed(checkpoint, lightening, ranks)
    _hand_over(step.optimization, accelerator)
    yield _loaded(family, accelerator, network, checkpoint.state_step)
    builder = BatchBuilder(plan, text, latents, text_embeds, ranks.share)
    end, kind = plan.micro_steps(plan.total_steps).stop, accelerator.device.type
    feed = _feed(builder, settings.memory, end=end, beside=kind, every=ranks.count)
    drawn = SamplePipeline(text, settings.samples.sample_sampler, accelerator.autocast)
    samples = _sample_writer(drawn, network, plan.run, plan.prompts, plan.seed, plan.size)
    samples.by_epoch, samples.ranks = bool(settings.samples.sample_every_n_epochs), ranks
    network.train()
    around = (losses, checkpoint, guardian, lightening, feed, used, ranks)
    return (yield from _with_drawn(Resources(plan, step, network, builder, samples, *around)))


def _with_drawn(resources: Resources) -> Generator[Event, None, Resources]:
    """Where no picture is held out, validation asks about what the bare base draws, too."""
    stills = resources.stills
    if stills is None or stills.held_out:
        return resources
    try:
        yield from ask_about_drawn(
            stills, resources.samples.pipeline, resources.network, resources.ranks
        )
    except BaseException:
        resources.close()
        raise
    return resources


def _hand_over(optimization: Optimization, accelerator: Accelerator) -> None:
    """Let accelerate scale what this optimizer steps over.

    It is on the device already; placing it would read its state once more, and round it.
    """
    optimization.optimizer = accelerator.prepare_optimizer(
        optimization.optimizer, device_placement=False
    )


def _sample_writer(
    pipeline: SamplePipeline,
    network: Network,
    run: Run,
    prompts: tuple[Prompt, ...],
    seed: int,
    size: Size,
) -> SampleWriter:
    """What draws the run's prompts, and where their pictures go."""
    return SampleWriter(
        pipeline, network, prompts, folder=run.sample_dir, name=run.name, seed=seed, size=size
    )


def _loaded(family: Family, accelerator: Accelerator, network: Network, step: int) -> Loaded:
    """What is ready, and the step that it goes on from."""
    device, precision = describe(accelerator.device), accelerator.mixed_precision
    return Loaded(family.label, device, precision, len(network.adapters), network.count, step)


def _feed(builder: BatchBuilder, memory: Memory, *, end: int, beside: str, every: int) -> Feed:
    """Ahead of a device that works by itself; a CPU that trains has nothing to spare."""
    is_ahead = beside != "cpu" and effective.caches_latents(memory)
    ahead = AHEAD if is_ahead else 0
    return Feed(builder, end=end, ahead=ahead, pins=beside == "cuda", every=every)


def _lightening(
    step: TrainingStep, engine: StepEngine, layout: Layout, *, learns: bool, checkpointing: bool
) -> Lightening:
    """What a run does where memory runs out; learns: the text encoders do."""
    largest = max(part.batch_size for part in layout.parts)
    footing = Footing(checkpointing)
    return Lightening(step, step.text.family, engine, largest, learns, footing)


def _resumed(checkpoint: Checkpoint, lightening: Lightening, ranks: Ranks) -> Iterator[Noticed]:
    """Restore what the run goes on from, in every process; tell what is to be told of it."""
    if ranks.is_first:
        yield from _restored(checkpoint, lightening)
    share_state(ranks, checkpoint, checkpoint.state_step)


def _restored(checkpoint: Checkpoint, lightening: Lightening) -> Iterator[Noticed]:
    asked, factor = lightening.footing, checkpoint.plan.rate_factor
    if factor != 1 and not checkpoint.optimization.own_rate:
        multiply_rates(checkpoint.optimization, factor)  # a state brings its own
    checkpoint.resume()
    if lightening.footing != asked:
        yield Noticed(f"as before, the memory makes it go on with {lightening.footing.words}")
    for told in checkpoint.notices:
        yield Noticed(told)


def _attached(settings: Settings, family: Family, *, seed: int) -> tuple[Network, PartRates]:
    """The network beside the family's layers, and the rates of its parts and blocks."""
    rates = effective.part_rates(settings.basic, settings.rates)
    blocks = block_plan(settings.blocks, catalog.FAMILIES[family.key].blocks)
    network = attached_network(
        settings.network,
        family,
        rates,
        blocks,
        seed=seed,
        full_precision=effective.full_precision(settings.memory),
    )
    return network, PartRates(rates, blocks, effective.plus_ratios(settings.rates))


def _training_step(
    plan: Plan,
    accelerator: Accelerator,
    text: TextConditioner,
    network: Network,
    rates: PartRates,
    ranks: Ranks,
) -> TrainingStep:
    """The step with all that the settings decide for it, once."""
    settings, family, stop = plan.settings, text.family, plan.text_encoder_stop
    optimization = make_optimization(
        network,
        rates,
        optimizer_options(settings.basic, plan.schedule_params),
        accelerator.device,
        text_encoder_stop=stop if stop < plan.total_steps else 0,
        before=ranks.spread(made_before(plan.run, plan.start) if ranks.is_first else None),
    )
    shared = None
    if ranks.count > 1:  # before anybody knows where the gradients lie
        rows = max(part.batch_size for part in plan.layout.parts)
        shared = SharedGradient(ranks, optimization.optimizer, gathered=plan.gathered, rows=rows)
    objective = make_objective(
        settings.noise,
        predicts=family.predicts,
        zero_terminal_snr=family.zero_terminal_snr,
        device=accelerator.device,
    )
    compiles = settings.machine.dynamo_backend != "no"  # compilers look into no function of ours
    dtype = DTYPES[settings.memory.mixed_precision]
    return TrainingStep(
        accelerator,
        text,
        optimization,
        objective,
        max_grad_norm=settings.basic.max_grad_norm or math.inf,
        max_weight_norm=_max_weight_norm(settings.network),
        limit_norms=network.limit_norms,
        dropout_seed=plan.seed if network.draws else None,
        shared=shared,
        is_sharded=ranks.is_sharded,
        copies=None if compiles else copies_for(network, optimization.optimizer, family, dtype),
    )


def _max_weight_norm(network: NetworkSettings) -> float:
    """scale_weight_norms, or 0 where the LoRA type does not read it, as the plan has said."""
    reads_it = effective.reads(network, "scale_weight_norms")
    return network.scale_weight_norms if reads_it else 0.0
