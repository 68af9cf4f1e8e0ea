"""Precision, caches and what else trades memory for time: seen by what is used."""

import shutil
from pathlib import Path

import pytest
import torch

from kit.caching import latents
from kit.families import streaming
from kit.settings.effective import CACHE_FOLDER
from kit.training import preparation
from kit.training.step import run_step
from tests.effects.observers import batch, loss
from tests.effects.stage import Row

BF16 = {"mixed_precision": "bf16"}
LONG = {"caption_suffix": " ".join(f"tag {number}," for number in range(60))}


def dtypes(stage, settings):
    """What the parts are kept in, and what the U-Net computes in."""
    with stage.prepared(settings) as ready:
        family = ready.family
        parts = [family.unet, family.vae, *family.text_encoders, ready.network]
        kept = [next(part.parameters()).dtype for part in parts]
        computed = []
        family.unet.conv_out.register_forward_hook(lambda *seen: computed.append(seen[2].dtype))
        ready.training_step.loss(ready.batch_builder.batch(0)).mean()
        return kept, computed


def recomputed(stage, settings):
    """How often parts of U-Net and text encoder are run in one step, backward pass included."""
    with stage.prepared(settings) as ready:
        calls = []
        family = ready.family
        inner = [family.unet.down_blocks[0].resnets[0].conv1]
        inner.append(next(m for n, m in family.text_encoders[0].named_modules() if n[-3:] == "fc1"))
        for module in inner:
            module.register_forward_hook(lambda module, *_: calls.append(inner.index(module)))
        run_step(ready.training_step, ready.batch_builder.micro_batches(1), count=1)
        return calls


def encodings(stage, settings):
    """How many pictures the VAE is given at each call, before the training and in two epochs."""
    encode, sizes = stage.load_family, []

    def load_family(*args, **kwargs):
        family = encode(*args, **kwargs)
        family.vae.encoder.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
        return family

    stage.load_family = load_family
    try:
        with stage.prepared(settings) as ready:
            before = list(sizes)
            for number in range(2 * ready.plan.batches_per_epoch):
                ready.batch_builder.batch(number)
            return before, sizes[len(before) :]
    finally:
        del stage.load_family


def on_disk(stage, settings):
    """What lies in the cache beside the images once all is prepared."""
    cache = Path(settings.folders.train_data_dir) / CACHE_FOLDER
    with stage.prepared(settings):
        kept = [path.parent.name for path in sorted(cache.rglob("*")) if path.is_file()]
    shutil.rmtree(cache, ignore_errors=True)
    return kept


def token_sources(stage, settings):
    """Whether batches hold tokens, to be encoded at each step, or words that were encoded."""
    with stage.prepared(settings) as ready:
        return [made.text_embeds is not None for made in map(ready.batch_builder.batch, range(3))]


def learning(stage, settings):
    """What the LoRA learns in, and what its gradients are."""
    with stage.prepared(settings) as ready:
        ready.training_step.backward(ready.training_step.loss(ready.batch_builder.batch(0)), 1)
        seen = {str(p.dtype) + str(p.grad.dtype) for p in ready.network.parameters()}
        return sorted(seen)


def in_fp16(stage, settings):
    """What the LoRA is made of; no step, because the CPU trains in no fp16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "check_precision", lambda *_: None)
        with stage.prepared(settings) as ready:
            return sorted({str(p.dtype) for p in ready.network.parameters()})


def kept(stage, settings):
    """Bytes that U-Net and text encoders take."""
    with stage.prepared(settings) as ready:
        parts = (ready.family.unet, *ready.family.text_encoders)
        return [sum(t.nbytes for t in part.state_dict().values()) for part in parts]


def encoders_after_caching(stage, settings):
    """What text encoders are kept in once their outputs are cached: off the GPU in 32 bits."""
    with stage.prepared(settings) as ready:
        return [next(encoder.parameters()).dtype for encoder in ready.family.text_encoders]


def looked_at(stage, settings):
    """How often a second run looks at images to see that its cache is of them."""
    cache = Path(settings.folders.train_data_dir) / CACHE_FOLDER
    looks, look = [], latents.file_hash
    with stage.prepared(settings), pytest.MonkeyPatch.context() as patch:
        patch.setattr(latents, "file_hash", lambda path: looks.append(path.name) or look(path))
        with stage.prepared(settings):
            pass
    shutil.rmtree(cache, ignore_errors=True)
    return looks


def read_whole(stage, settings):
    """Which weights' files are read as a whole."""
    names, read = [], streaming._read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "_families", {})
        patch.setattr(streaming, "_read", lambda file: names.append(file.name) or read(file))
        with stage.prepared(settings):
            return [Path(name).name for name in names]


def attention(stage, settings):
    """Whether the U-Net's attention goes through PyTorch's kernel."""
    fused, kernel = [], torch.nn.functional.scaled_dot_product_attention

    def counted(*args, **kwargs):
        fused.append(1)
        return kernel(*args, **kwargs)

    with stage.prepared(settings) as ready, pytest.MonkeyPatch.context() as patch:
        batch = ready.batch_builder.batch(0)
        text_embeds = ready.batch_builder.text.encode(batch.tokens)
        conditioning = ready.family.condition(text_embeds, batch.crops_B6)
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
        ready.family.predict(batch.latents_BChw, batch.t_B, conditioning)
    return len(fused)


FROZEN = {"text_encoder_lr": 0}

ROWS = {
    "mixed_precision": Row(dtypes, "bf16"),
    "gradient_checkpointing": Row(recomputed, True),
    "cache_latents": Row(encodings, False),
    "cache_latents_to_disk": Row(on_disk, True),
    "vae_batch_size": Row(encodings, 2),
    "no_half_vae": Row(dtypes, True, given=BF16),
    "cache_text_encoder_outputs": Row(token_sources, True, given=FROZEN),
    "cache_text_encoder_outputs_to_disk": Row(on_disk, True, given=FROZEN),
    "clip_skip": Row(loss, 2),
    "max_token_length": Row(batch, 150, given=LONG),
    "full_fp16": Row(in_fp16, True, given={"mixed_precision": "fp16"}),
    "full_bf16": Row(learning, True, given=BF16),
    "base_precision": Row(kept, "nf4"),
    "fp8_base": Row(kept, True),
    "compress_text_encoders": Row(kept, True, given={"base_precision": "int8"}),
    "highvram": Row(
        encoders_after_caching, True, given={**BF16, **FROZEN, "cache_text_encoder_outputs": True}
    ),
    "skip_cache_check": Row(looked_at, True, given={"cache_latents_to_disk": True}),
    "disable_mmap_load_safetensors": Row(read_whole, True),
    "cross_attention": Row(attention, "none"),
    "mem_eff_attn": Row(attention, True, given={"cross_attention": "none"}),
}
