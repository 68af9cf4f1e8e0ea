"""Pictures as they are, which the LoRA is asked about without learning from them.

What belongs to a picture (its latent, its caption) is read once, before the first step; its noise
is made anew at each asking from an address of its own. So nothing here draws from the random
numbers of the training, nor touches what reads for it ahead.

Shapes: B batch.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from kit.adapters.network import Network
from kit.caching.latents import Latent
from kit.caching.text import TextEmbedCache, in_memory
from kit.dataset.batches import AS_IT_IS, ImageUse
from kit.dataset.captions import fullest_captions
from kit.dataset.images import TrainImage
from kit.errors import ProcessLost, in_a_line
from kit.families import TextEmbeds
from kit.training.batches import Batch, BatchBuilder
from kit.training.orders import Order
from kit.training.ranks import ALONE, Ranks
from kit.validation.answers import Answers
from kit.validation.questions import Question, questions


class Answering(Protocol):
    """What is asked: a training step, or a base model with a LoRA beside it."""

    @property
    def accelerator(self) -> Accelerator:
        """Where it computes."""

    def loss(self, batch: Batch) -> Tensor:
        """The loss of each image of a batch that lies there, shape B."""


class Stopped(Exception):
    """A request to stop came between two batches."""

    def __str__(self) -> str:
        return "asked to stop"


@dataclass(frozen=True)
class StillLatents:
    """Latents that were read beforehand, by image: one of `kit.caching.latents.Latents`."""

    kept: Mapping[int, Latent]
    prefetch_batches: int = 0

    def of(self, use: ImageUse, *, epoch: int) -> Latent:
        """Look it up."""
        return self.kept[use.image]

    def prefetch(self, uses: Sequence[ImageUse], *, epoch: int) -> None:
        """All of it is in memory."""

    def end_epoch(self) -> None:
        """There are no threads."""

    def close(self) -> None:
        """There are no threads."""


@dataclass
class Stills:
    """The held-out pictures of a run and as many training pictures, ready to be asked about.

    prior: about pictures that the bare base drew itself (`kit.training.class_word`).
    """

    builder: BatchBuilder
    captions: Mapping[int, str]
    held_out: tuple[Question, ...] = ()
    beside: tuple[Question, ...] = ()
    prior: tuple[Question, ...] = ()
    ranks: Ranks = ALONE  # each asks about its part
    _base: dict[tuple[Question, ...], tuple[float, ...]] = field(default_factory=dict)

    def answers(
        self,
        asked: tuple[Question, ...],
        step: Answering,
        network: Network,
        *,
        rows: int,
        is_stopped: Callable[[], bool],
    ) -> Answers:
        """What the LoRA answers, and the bare base model, which is asked once.

        rows: the most images at once. Raises: Stopped.
        """
        with network.eval_mode():
            losses = self._losses(asked, step, rows, is_stopped)
            if asked not in self._base:
                with switched_off(network):
                    self._base[asked] = self._losses(asked, step, rows, is_stopped, bare=True)
        return Answers(asked, losses, self._base[asked])

    def add(self, images: Sequence[TrainImage], latents: Mapping[int, Latent]) -> None:
        """Further images, whose captions are read as they are, with the indexes behind the plan's.

        Where captions are cached, theirs are.
        """
        builder = self.builder
        every = (*builder.plan.images, *images)
        kept = {i: builder.latents.of(ImageUse(i, AS_IT_IS), epoch=0) for i in self.captions}
        self.captions = {**self.captions, **{i: every[i].caption for i in latents}}
        self.builder = replace(
            builder,
            plan=replace(builder.plan, images=every),
            latents=StillLatents({**kept, **latents}),
        )

    def answer_part(self, order: bytes, step: Answering, network: Network) -> None:
        """This process's own part of what the first one asks.

        Raises: whatever asking raises, once the first one knows it.
        """
        group, bare, rows = pickle.loads(order)
        asked = self._groups[group]
        with (
            suppress(Stopped),
            network.eval_mode(),
            switched_off(network) if bare else nullcontext(),
        ):
            self._losses(asked, step, rows, lambda: False, bare=bare)

    def asked_by(self, order: bytes) -> int:
        """How many questions the first one asks."""
        return len(self._groups[pickle.loads(order)[0]])

    @property
    def _groups(self) -> tuple[tuple[Question, ...], ...]:
        return self.beside, self.held_out, self.prior

    def _losses(
        self,
        asked: tuple[Question, ...],
        step: Answering,
        rows: int,
        is_stopped: Callable[[], bool],
        *,
        bare: bool = False,
    ) -> tuple[float, ...]:
        """The loss of each question, weighed as in training, of all processes."""
        if self.ranks.is_first:
            group = next(i for i, each in enumerate(self._groups) if each is asked)
            order = pickle.dumps((group, bare, rows))
            self.ranks.order(Order.ASK, payload=order)
        try:
            with self.ranks.abreast(passes=(Stopped,)):
                own = self._own_losses(asked, step, rows, is_stopped)
        except ProcessLost:  # who is lost takes part in nothing
            raise
        except Exception as error:
            self.ranks.total([0.0] * len(asked), in_a_line(error))
            raise
        if self.ranks.is_sharded and not self.ranks.is_first:
            own = [0.0] * len(asked)  # the first one has the same
        return tuple(self.ranks.total(own))

    @torch.no_grad()
    def _own_losses(
        self,
        asked: tuple[Question, ...],
        step: Answering,
        rows: int,
        is_stopped: Callable[[], bool],
    ) -> list[float]:
        """By question, those of this process, and else 0; read from the device at the end."""
        order: list[int] = []
        losses: list[Tensor] = []
        for places, batch in self._batches(asked, rows):
            if self.ranks.agreed(is_stopped()):
                raise Stopped
            order += places
            losses.append(step.loss(batch.to(step.accelerator.device)).float())
        found = [0.0] * len(asked)
        for place, loss in zip(order, torch.cat(losses).tolist() if losses else [], strict=True):
            found[place] = loss
        return found

    def _batches(self, asked: Sequence[Question], rows: int) -> Iterator[tuple[list[int], Batch]]:
        """Questions about pictures of one size together, with their places in the order.

        Of several processes each gets every so manieth; where the base is sharded, all.
        """

        def size(place: int) -> tuple[int, ...]:
            return tuple(self.builder.latents.of(_use(asked[place]), epoch=0).mean_Chw.shape)

        parts: list[list[int]] = []
        for _, members in groupby(sorted(range(len(asked)), key=size), key=size):
            places = list(members)
            parts += [places[first : first + rows] for first in range(0, len(places), rows)]
        own = parts if self.ranks.is_sharded else parts[self.ranks.rank :: self.ranks.count]
        for part in own:
            yield part, joined([self._still(asked[place]) for place in part])

    def _still(self, question: Question) -> Batch:
        return self.builder.still(
            question.image,
            caption=self.captions[question.image],
            t=question.t,
            number=question.number,
        )


def make_stills(builder: BatchBuilder, ranks: Ranks = ALONE) -> Stills | None:
    """What a run's plan asks about, read by its own builder; None where it asks nothing.

    Noise is drawn from the validation's seed, so that runs of other seeds can be compared.
    """
    plan = builder.plan
    schedule, noise, seed = plan.validation, plan.settings.noise, plan.settings.validation.from_seed
    if not schedule:
        return None
    chosen = (*schedule.held_out, *schedule.beside)
    captions = {
        i: fullest_captions(plan.images[i].caption, plan.settings_of(i).captions)[0] for i in chosen
    }
    latents = {i: builder.latents.of(ImageUse(i, AS_IT_IS), epoch=0) for i in chosen}
    own = BatchBuilder(
        replace(plan, layout=replace(plan.layout, seed=seed)),
        builder.text,
        StillLatents(latents),
        _kept(builder.text_embeds, (*captions.values(), *schedule.drawn)),
    )
    held_out, beside = (
        questions(
            plan.images,
            group,
            seed=seed,
            least=noise.min_timestep,
            end=noise.max_timestep,
            most=schedule.most,
        )
        for group in (schedule.held_out, schedule.beside)
    )
    return Stills(own, captions, held_out, beside, ranks=ranks)


def _kept(text_embeds: TextEmbedCache | None, captions: Iterable[str]) -> TextEmbedCache | None:
    if text_embeds is None:
        return None
    return in_memory({caption: text_embeds.of([caption]) for caption in captions})


@contextmanager
def switched_off(network: Network) -> Iterator[None]:
    """The bare base model inside the block."""
    network.set_multiplier(0.0)
    try:
        yield
    finally:
        network.set_multiplier(1.0)


def joined(batches: Sequence[Batch]) -> Batch:
    """Several batches of pictures of one size as one."""
    if any(batch.mask_B1hw is not None for batch in batches):
        batches = [batch if batch.mask_B1hw is not None else _unmasked(batch) for batch in batches]
    names = [each.name for each in fields(Batch) if each.name != "micro_step"]
    return Batch(**{name: _joined([getattr(batch, name) for batch in batches]) for name in names})


def _unmasked(batch: Batch) -> Batch:
    """An image without a mask beside others that have one: it is learned whole."""
    sides = batch.latents_BChw.shape[2:]
    return replace(batch, mask_B1hw=torch.ones((len(batch.t_B), 1, *sides)))


def _joined(values: Sequence[Any]) -> Any:
    first = values[0]
    if first is None:
        return None
    if isinstance(first, tuple):
        return tuple(_joined(parts) for parts in zip(*values, strict=True))
    if isinstance(first, TextEmbeds):
        pooled = _joined([each.pooled_BP for each in values])
        return TextEmbeds(torch.cat([each.hidden_BND for each in values]), pooled)
    return torch.cat(list(values))


def _use(question: Question) -> ImageUse:
    return ImageUse(question.image, AS_IT_IS)
