"""Resources of a run, made ready from its plan: model, caches, network, optimizer, state, step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial

from accelerate import Accelerator

from kit import catalog
from kit.adapters.network import Network
from kit.devices import check_precision, choose_device, describe, make_accelerator
from kit.diffusion.losses import make_objective
from kit.events import Event, Loaded, Noticed
from kit.families import Family
from kit.families.base_model import find_model, load_model, require_model
from kit.families.text import TextConditioner
from kit.optim.making import Optimization, effective_rates_of
from kit.planning import Plan
from kit.settings import NetworkSettings
from kit.settings.prompts import Prompt
from kit.settings.rules.rates import encoder_learns
from kit.training.batches import BatchBuilder
from kit.training.caches import run_latents, run_text_embeds, text_conditioner
from kit.training.checkpoint import Checkpoint, Losses
from kit.training.compiling import compile_unet
from kit.training.lora_saving import FileWriter, file_writer
from kit.training.network_setup import (
    attached_network,
    check_optimizer,
    make_optimization,
    recompute_gradients,
)
from kit.training.sampling import SamplePipeline, make_scheduler, rescales, samplers_of
from kit.training.staging import staged_images, staged_model
from kit.training.step import TrainingStep


@dataclass
class Resources:
    """What a run works with: the training step, and all that stands around it."""

    plan: Plan
    training_step: TrainingStep
    network: Network
    batch_builder: BatchBuilder
    pipeline: SamplePipeline
    losses: Losses
    checkpoint: Checkpoint
    typed: list[Prompt] = field(default_factory=list)  # prompts requested along the way

    @property
    def family(self) -> Family:
        """The base model."""
        return self.training_step.text.family

    @property
    def optimization(self) -> Optimization:
        """The optimizer and its schedule."""
        return self.training_step.optimization

    def begin(self, step: int) -> dict[str, float]:
        """Make ready for a step; returns the rate of every group that it will use."""
        stop = self.plan.text_encoder_stop
        if stop and step > stop:
            self.network.stop_text_encoders()
        return effective_rates_of(self.optimization)

    def notices(self) -> Iterator[Noticed]:
        """What has happened in the base model since the last time."""
        for text in self.family.take_notices():
            yield Noticed(text)

    def close(self) -> None:
        """Leave the base model as it was, and no thread behind."""
        self.network.detach_hooks()
        self.batch_builder.latents.close()

    def number_of(self, prompt: Prompt) -> int:
        """The place of a prompt that was typed while it trains: behind those of the plan."""
        if prompt not in self.typed:
            self.typed.append(prompt)
        return len(self.plan.prompts) + self.typed.index(prompt)


def prepare(plan: Plan) -> Generator[Event, None, Resources]:
    """Load, cache, attach, restore.

    Raises: ModelError, DatasetError, DeviceError, LoraFileError, SettingsError, MissingPackage;
    each says what to change.
    """
    settings, began = plan.settings, time.time()
    require_model(settings)
    device = choose_device(settings.machine)
    if settings.machine.gpu_ids and device.type != "cuda":
        yield Noticed(f"gpu_ids has no effect: {describe(device)} trains, no NVIDIA GPU is there")
    check_precision(device, settings.memory.mixed_precision)
    check_optimizer(plan)
    file, notices = find_model(settings)
    for text in notices:
        yield Noticed(text)
    file = yield from staged_model(file)
    plan = yield from staged_images(plan)
    accelerator = make_accelerator(
        device, settings.memory.mixed_precision, half_weights=settings.memory.full_fp16
    )
    family = load_model(settings, file, device)
    for sampler in samplers_of(plan):
        make_scheduler(sampler, family)  # so that one that cannot be used is told before a step
        if family.zero_terminal_snr and not rescales(sampler):
            yield Noticed(
                f"sample_sampler = {sampler} cannot draw from pure noise, as this "
                "zero-terminal-SNR model was trained to: samples will look washed out; ddim or "
                "euler can"
            )
    writer = partial(file_writer, plan, file=file, began=began)
    return (yield from equip(plan, family, accelerator, writer=writer))


def equip(
    plan: Plan, family: Family, accelerator: Accelerator, *, writer: Callable[..., FileWriter]
) -> Generator[Event, None, Resources]:
    """The resources around a base model; writer(network, optimization) makes its FileWriter.

    Raises: DatasetError, LoraFileError; each says what to change.
    """
    settings = plan.settings
    latents = yield from run_latents(plan, family)
    conditioner = text_conditioner(family, settings.memory, settings.captions)
    network = attached_network(plan, family)
    with network.eval_mode():
        text_embeds = yield from run_text_embeds(
            plan, conditioner, accelerator.autocast, adapters=network.beside_text_encoders()
        )
    if settings.memory.gradient_checkpointing:
        recompute_gradients(family, text_encoders=encoder_learns(settings))
    compile_unet(family.unet, settings.machine)
    optimization = make_optimization(plan, family, network, accelerator.device)
    for text in optimization.notices:
        yield Noticed(text)
    averaged = Losses(plan.batches_per_epoch)
    checkpoint = Checkpoint(
        plan,
        network,
        optimization,
        averaged,
        scaler=accelerator.scaler,
        write_file=writer(network, optimization),
    )
    step = checkpoint.resume()
    for text in checkpoint.notices:
        yield Noticed(text)
    optimization.optimizer = accelerator.prepare_optimizer(optimization.optimizer)
    yield Loaded(
        family.label,
        describe(accelerator.device),
        settings.memory.mixed_precision,
        len(network.adapters),
        network.count,
        step,
    )
    return Resources(
        plan=plan,
        training_step=_training_step(plan, accelerator, conditioner, network, optimization),
        network=network.train(),
        batch_builder=BatchBuilder(plan, conditioner, latents, text_embeds),
        pipeline=SamplePipeline(conditioner, settings.samples.sample_sampler, accelerator.autocast),
        losses=averaged,
        checkpoint=checkpoint,
    )


def _training_step(
    plan: Plan,
    accelerator: Accelerator,
    conditioner: TextConditioner,
    network: Network,
    optimization: Optimization,
) -> TrainingStep:
    """The step with all that the settings decide for it, once."""
    settings, family = plan.settings, conditioner.family
    return TrainingStep(
        accelerator,
        conditioner,
        optimization,
        make_objective(
            settings.noise,
            predicts=family.predicts,
            zero_terminal_snr=family.zero_terminal_snr,
            device=accelerator.device,
        ),
        max_grad_norm=settings.basic.max_grad_norm or math.inf,
        max_weight_norm=_max_weight_norm(settings.network),
        limit_norms=network.limit_norms,
        dropout_seed=plan.seed if network.draws else None,
    )


def _max_weight_norm(network: NetworkSettings) -> float:
    """scale_weight_norms, or 0 where the LoRA type does not read it, as the plan has said."""
    reads_it = "scale_weight_norms" in catalog.LORA_TYPES[network.LoRA_type].uses
    return network.scale_weight_norms if reads_it else 0.0
