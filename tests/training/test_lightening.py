"""Out of memory in mid-run: the same step is made again in less, and a resumed run stands there."""

from dataclasses import replace

import pytest
import torch

from kit import planning
from kit.errors import DeviceError
from kit.events import Lightened, Noticed, RolledBack, Stepped
from kit.families import TextEmbeds
from kit.planning import proposals
from kit.training.batches import Batch
from kit.training.loop import train
from kit.training.preparation import prepare
from kit.training.step import TrainingStep, run_step
from tests.support.parts import outcome
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, lora, losses, run, same, toy_settings

STEPS = 6


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    model = write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)
    images = draw_images(tmp_path_factory.mktemp("images"), count=5)
    return lambda out, **changes: toy_settings(
        model,
        images,
        out,
        **{"max_train_steps": STEPS, "text_encoder_lr": 0, "train_batch_size": 4} | changes,
    )


@pytest.fixture(scope="module")
def whole(asked, tmp_path_factory):
    """A run with all the memory that it wants: what it told, and its file."""
    out = tmp_path_factory.mktemp("whole")
    return run(asked(out)), lora(out)


def of(kind, told):
    return [event for event in told if isinstance(event, kind)]


def too_small_for(monkeypatch, rows, *, from_step=1, checkpointed=False):
    """The memory is not enough for more images than these, at the U-Net's own call."""
    whole, begin = TrainingStep.loss, Resources_begin()
    now = [0]

    def begins(self, step):
        now[0] = step
        return begin(self, step)

    def loss(self, batch):
        unet = self.text.family.unet
        saved = checkpointed and unet.is_gradient_checkpointing
        if now[0] >= from_step and len(batch.t_B) > rows and not saved:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")
        return whole(self, batch)

    monkeypatch.setattr("kit.training.preparation.Resources.begin", begins)
    monkeypatch.setattr(TrainingStep, "loss", loss)


def Resources_begin():
    from kit.training.preparation import Resources

    return Resources.begin


def test_checkpointing_comes_first_and_changes_no_bit(tmp_path, asked, whole, monkeypatch):
    too_small_for(monkeypatch, 1, from_step=3, checkpointed=True)
    told = run(asked(tmp_path))
    [event] = of(Lightened, told)
    assert (event.step, event.given_up) == (2, "gradient checkpointing")
    assert event.settings == {"gradient_checkpointing": True}
    assert losses(told) == losses(whole[0])
    assert same(whole[1], lora(tmp_path))


def test_then_fewer_images_at_once_with_the_same_data_and_mean(tmp_path, asked, whole, monkeypatch):
    too_small_for(monkeypatch, 1, from_step=3)
    told = run(asked(tmp_path))
    assert [event.given_up for event in of(Lightened, told)] == [
        "gradient checkpointing",
        "gradient checkpointing, 2 images at once",
        "gradient checkpointing, 1 image at once",
    ]
    assert of(Lightened, told)[-1].settings == {
        "gradient_checkpointing": True,
        "train_batch_size": 1,
        "gradient_accumulation_steps": 4,
    }
    assert [event.step for event in of(Stepped, told)] == list(range(1, STEPS + 1))
    assert losses(told) == pytest.approx(losses(whole[0]), rel=1e-3)


@pytest.mark.parametrize("changes", [{}, {"network_dropout": 0.3}], ids=["plain", "dropout"])
def test_a_run_that_is_left_stands_on_its_rung_when_it_goes_on(
    tmp_path, asked, monkeypatch, changes
):
    rung = "gradient checkpointing, 2 images at once"
    with monkeypatch.context() as patch:
        too_small_for(patch, 2, from_step=3)
        whole = run(asked(tmp_path / "a", **changes))
        first = []
        for event in train(planning.plan(asked(tmp_path / "b", **changes))):
            first.append(event)
            if isinstance(event, Lightened) and event.given_up == rung:
                break
    rest = run(asked(tmp_path / "b", **changes))  # with all the memory that it wants
    assert of(Lightened, rest) == []
    [told] = [event.text for event in of(Noticed, rest) if "as before" in event.text]
    assert told.endswith(rung)
    assert losses(first) + losses(rest) == losses(whole)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))


def test_the_gradient_of_pieces_is_that_of_the_batch(tmp_path, asked):
    plain = {"optimizer_type": "SGDNesterov", "max_grad_norm": 0.0}
    norms = []
    for rows in (0, 3, 1):
        ready, _ = outcome(prepare(planning.plan(asked(tmp_path / str(rows), **plain))))
        ready.training_step.rows = rows
        batches = [ready.batch_builder.batch(number) for number in range(2)]
        sizes = [len(batch.t_B) for batch in batches]
        norms.append(run_step(ready.training_step, batches, count=2))
        ready.close()
    assert max(sizes) == 4  # so that 3 leaves an uneven piece
    for other in norms[1:]:
        assert other.norm == pytest.approx(norms[0].norm, rel=1e-4)
        assert other.losses == pytest.approx(norms[0].losses, rel=1e-4)


def test_pieces_hold_every_row_once():
    batch = Batch(
        latents_BChw=torch.arange(5.0).reshape(5, 1, 1, 1),
        noise_BChw=torch.zeros(5, 1, 1, 1),
        t_B=torch.arange(5),
        weight_B=torch.ones(5),
        tokens=(torch.arange(5).reshape(5, 1, 1),) * 2,
        text_embeds=TextEmbeds(torch.arange(5).reshape(5, 1, 1), torch.arange(5).reshape(5, 1)),
        crops_B6=None,
        micro_step=7,
    )
    assert list(batch.pieces(0)) == [batch]
    pieces = list(batch.pieces(2))
    assert [piece.t_B.tolist() for piece in pieces] == [[0, 1], [2, 3], [4]]
    assert [piece.tokens[1].flatten().tolist() for piece in pieces] == [[0, 1], [2, 3], [4]]
    assert [p.text_embeds.pooled_BP.flatten().tolist() for p in pieces] == [[0, 1], [2, 3], [4]]
    assert {piece.micro_step for piece in pieces} == {7}
    bare = replace(batch, text_embeds=TextEmbeds(batch.text_embeds.hidden_BND))
    assert [piece.text_embeds.pooled_BP for piece in bare.pieces(3)] == [None, None]


def test_where_no_rung_is_left_it_is_told(tmp_path, asked, monkeypatch):
    too_small_for(monkeypatch, 0, from_step=3)
    with pytest.raises(DeviceError, match=r"step 3 .*with gradient checkpointing, 1 image at once"):
        run(asked(tmp_path))
    assert planning.plan(asked(tmp_path)).run.from_step == 2


def test_then_the_settings_that_would_fit_are_named(tmp_path, asked, monkeypatch):
    """As if the miniature were SD 1.5 on a GPU, whose needs are known."""
    too_small_for(monkeypatch, 0, from_step=3)
    monkeypatch.setattr(proposals, "family_of", lambda model: "sd1")
    monkeypatch.setattr(proposals, "room_here", lambda: proposals.Room("gpu", 80_000))
    bf16 = {"mixed_precision": "bf16", "cache_latents": True, "cache_text_encoder_outputs": True}
    with pytest.raises(DeviceError, match=r"Set .*base_precision = int8 \(about \d\.\d GB\)\."):
        run(asked(tmp_path, **bf16))


@pytest.mark.parametrize("at", [1, 4])
def test_out_of_memory_while_the_weights_move_goes_back_first(
    tmp_path, asked, whole, monkeypatch, at
):
    monkeypatch.setattr("kit.training.checkpoint.SHARE", 1e9)
    calls, zero_grad = [], TrainingStep.zero_grad

    def failing(self):
        if not self.is_whole:  # the optimizer has moved the weights already
            calls.append(1)
            if len(calls) == at:
                raise torch.OutOfMemoryError("CUDA out of memory")
        zero_grad(self)

    monkeypatch.setattr(TrainingStep, "zero_grad", failing)
    told = run(asked(tmp_path))
    [back] = of(RolledBack, told)
    assert (back.step, back.from_step) == (at - 1, at)
    [event] = of(Lightened, told)
    assert (event.step, event.given_up) == (at - 1, "gradient checkpointing")
    assert losses(told) == losses(whole[0])
    assert same(whole[1], lora(tmp_path))
