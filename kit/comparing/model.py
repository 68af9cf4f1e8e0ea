"""A run's base model, which can wear its files one after the other."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor

from kit.adapters.network import Network, parts_of
from kit.devices import check_precision, choose_device, make_accelerator
from kit.diffusion.losses import Objective, make_objective
from kit.events import Event
from kit.families import Family
from kit.families.base_model import fetched_model, find_model, load_model, require_model
from kit.families.text import TextConditioner
from kit.settings import NetworkSettings, Settings
from kit.settings.unet_blocks import BlockPlan
from kit.training.batches import Batch
from kit.training.caches import text_conditioner
from kit.training.network_setup import attached_network
from kit.training.sampling import SamplePipeline
from kit.training.step import denoising_loss


@dataclass(frozen=True)
class Model:
    """The base model with all that a run's settings say of how it reads and computes."""

    text: TextConditioner
    accelerator: Accelerator
    objective: Objective
    network: NetworkSettings
    sampler: str

    @property
    def family(self) -> Family:
        """The base model."""
        return self.text.family

    @property
    def pipeline(self) -> SamplePipeline:
        """What draws with it, and with the file that it wears."""
        return SamplePipeline(self.text, self.sampler, self.accelerator.autocast)

    def loss(self, batch: Batch) -> Tensor:
        """The denoising loss of each picture of a batch on the device, as in training."""
        return denoising_loss(batch, self.text, self.objective, self.accelerator.autocast)

    @contextmanager
    def wearing(self, lora: Path) -> Iterator[Network]:
        """The LoRA file acts inside the block.

        Raises: LoraFileError where it does not fit.
        """
        settings = self.network.model_copy(
            update={"network_weights": str(lora), "dim_from_weights": True}
        )
        parts = dict.fromkeys(parts_of(self.family), 1.0)
        network = attached_network(settings, self.family, parts, BlockPlan(), seed=0).eval()
        try:
            yield network
        finally:
            network.detach_hooks()


@dataclass(frozen=True)
class Loader:
    """Loads the base model that a run's settings name."""

    settings: Settings

    def model(self) -> Generator[Event, None, Model]:
        """It, on the device.

        Raises: ModelError, DeviceError; each says what to change.
        """
        settings, memory = self.settings, self.settings.memory
        require_model(settings.model.pretrained_model_name_or_path)
        device, precision = choose_device(settings.machine), memory.mixed_precision
        check_precision(device, precision)
        path = yield from fetched_model(settings.model.pretrained_model_name_or_path)
        file, _ = find_model(settings, path)
        family = load_model(settings, file, device)
        return Model(
            text_conditioner(family, memory, settings.captions),
            make_accelerator(device, precision, half_weights=False),
            make_objective(
                settings.noise,
                predicts=family.predicts,
                zero_terminal_snr=family.zero_terminal_snr,
                device=device,
            ),
            settings.network,
            settings.samples.sample_sampler,
        )
