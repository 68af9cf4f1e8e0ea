"""Single-line mutations by hand, each a value that reaches its formula wrongly.

A row: a name, the file, a piece of text that stands once in it, what takes its place. Where a file
changes and a text is no longer found once, the script says which row to mend.
"""

# ruff: noqa: E501 -- texts stand as they are in their files
from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """One change of one file."""

    name: str
    file: str
    before: str
    after: str
    at: int = -1  # where `before` begins; -1: it stands once


LISTED = (
    Mutation(
        "1 warm-up off by one",
        "kit/catalog/lr_schedules.py",
        "return step / max(1, params.warmup) if step < params.warmup",
        "return (step + 1) / max(1, params.warmup) if step < params.warmup",
    ),
    Mutation(
        "2 alpha scale inverted",
        "kit/adapters/ops.py",
        "return alpha / rank, float(alpha)",
        "return rank / alpha, float(alpha)",
    ),
    Mutation(
        "3 min-SNR gamma ignored for v",
        "kit/diffusion/losses.py",
        "if noise.min_snr_gamma:",
        'if noise.min_snr_gamma and predicts.value == "epsilon":',
    ),
    Mutation(
        "4 min-SNR v formula",
        "kit/diffusion/losses.py",
        "else capped_B / (snr_B + 1)",
        "else capped_B / snr_B",
    ),
    Mutation(
        "5 caption dropout doubled",
        "kit/dataset/captions.py",
        "random() < settings.caption_dropout_rate)",
        "random() < 2 * settings.caption_dropout_rate)",
    ),
    Mutation(
        "6 bucket step ignored (32)",
        "kit/dataset/layout.py",
        "step=images.bucket_reso_steps",
        "step=32",
    ),
    Mutation(
        "7 huber c wrong (snr)",
        "kit/diffusion/losses.py",
        "return ((1 - c) / (1 + sigma_B) ** 2 + c) * scale",
        "return ((1 - c) / (1 + sigma_B) ** 2 + 2 * c) * scale",
    ),
    Mutation(
        "8 accumulate without dividing",
        "kit/training/step.py",
        "backward(loss_B.mean() / count)",
        "backward(loss_B.mean())",
    ),
    Mutation(
        "9 seed ignored in shuffle",
        "kit/dataset/batches.py",
        'random_at(layout.seed, "order"',
        'random_at(0, "order"',
    ),
    Mutation(
        "10 drop last partial batch",
        "kit/dataset/batches.py",
        "for start in range(0, len(shuffled), layout.batch_size)",
        "for start in range(0, len(shuffled) - layout.batch_size + 1, layout.batch_size)",
    ),
    Mutation(
        "11 rank dropout not rescaled",
        "kit/adapters/lora.py",
        "scale /= 1 - self.rank_dropout.share",
        "scale /= 1",
    ),
    Mutation(
        "12 conv alpha = network alpha",
        "kit/settings/unet_blocks.py",
        "return network.conv_dim or network.network_dim, network.conv_alpha",
        "return network.conv_dim or network.network_dim, network.network_alpha",
    ),
    Mutation(
        "13 SDXL time ids: top/left swapped",
        "kit/dataset/buckets.py",
        "return size[1], size[0], top, left, place",
        "return size[1], size[0], left, top, place",
    ),
    Mutation(
        "14 SDXL sample sizes w/h swapped",
        "kit/training/sampling.py",
        "[[height, width, 0, 0, height, width]]",
        "[[width, height, 0, 0, width, height]]",
    ),
    Mutation(
        "15 TE rate used for the U-Net",
        "kit/settings/effective.py",
        'return {"unet": unet,',
        'return {"unet": text,',
    ),
    Mutation(
        "16 metadata model hash wrong",
        "kit/lorafile/tensors.py",
        "hashlib.sha256(values).hexdigest()",
        "hashlib.sha256(data).hexdigest()",
    ),
    Mutation(
        "17 resume: schedule not restored",
        "kit/training/checkpoint.py",
        'self.optimization.scheduler.load_state_dict(state["schedule"])',
        "pass",
    ),
    Mutation(
        "18 resume: dropout address differs after resume",
        "kit/training/preparation.py",
        "dropout_seed=plan.seed if",
        "dropout_seed=plan.seed + plan.from_step if",
    ),
    Mutation(
        "19 kept epochs off by one",
        "kit/training/checkpoint.py",
        "(saving.save_every_n_epochs or 1) * epochs",
        "(saving.save_every_n_epochs or 1) * (epochs + 1)",
    ),
    Mutation(
        "20 kept steps off by one",
        "kit/training/checkpoint.py",
        "old = step - steps - 1",
        "old = step - steps",
    ),
    Mutation(
        "21 prior weight on the wrong images",
        "kit/training/batches.py",
        "prior_loss_weight if is_reg else 1.0",
        "prior_loss_weight if not is_reg else 1.0",
    ),
    Mutation(
        "22 sampler cfg off",
        "kit/training/sampling.py",
        "return without + scale * (with_words - without)",
        "return with_words",
    ),
    Mutation(
        "23 save_precision ignored",
        "kit/training/lora_saving.py",
        "network.tensors(), settings.saving.save_precision)",
        'network.tensors(), "float")',
    ),
    Mutation(
        "24 stop TE off by one",
        "kit/training/preparation.py",
        "if stop and step > stop and self.network",
        "if stop and step > stop + 1 and self.network",
    ),
    Mutation(
        "25 stop TE floor instead of ceil",
        "kit/planning/value.py",
        "return math.ceil(self.total_steps * share / 100)",
        "return int(self.total_steps * share / 100)",
    ),
    Mutation(
        "26 ip noise in the target too",
        "kit/training/step.py",
        "target = diffusion.target(latents, noise, t_B",
        "target = diffusion.target(latents, input_noise, t_B",
    ),
    Mutation(
        "27 keep_tokens off by one",
        "kit/dataset/captions.py",
        "return every[: settings.keep_tokens], every[settings.keep_tokens :], []",
        "return every[: settings.keep_tokens + 1], every[settings.keep_tokens + 1 :], []",
    ),
    Mutation(
        "28 network_weights alpha not folded",
        "kit/adapters/base.py",
        "self._scale_linear(self.file_scale(alpha) / self.scale)",
        "self._scale_linear(1.0)",
    ),
    Mutation(
        "29 max_timestep inclusive",
        "kit/diffusion/noise.py",
        "torch.randint(least, end, ()",
        "torch.randint(least, end + 1, ()",
    ),
    Mutation(
        "30 module dropout also while sampling",
        "kit/adapters/base.py",
        "self.training and self.module_dropout and",
        "self.module_dropout and",
    ),
    Mutation(
        "31 flip share 25 %",
        "kit/dataset/pixels.py",
        'random_at(seed, "flip", epoch, image, turn).random() < 0.5',
        'random_at(seed, "flip", epoch, image, turn).random() < 0.25',
    ),
    Mutation(
        "32 masked loss divided by mask area",
        "kit/diffusion/losses.py",
        "return loss_BChw if mask_B1hw is None else loss_BChw * mask_B1hw.to(loss_BChw)",
        "return loss_BChw if mask_B1hw is None else loss_BChw * mask_B1hw.to(loss_BChw) / mask_B1hw.mean()",
    ),
    Mutation(
        "33 huber c fixed wrong in wiring (c*2)",
        "kit/diffusion/losses.py",
        "c=noise.huber_c",
        "c=2 * noise.huber_c",
    ),
    Mutation(
        "34 schedule-free average not used",
        "kit/optim/averaging.py",
        "optimizer.eval()\n",
        "pass\n",
    ),
    Mutation(
        "35 network_dropout twice the rate",
        "kit/adapters/lora.py",
        "functional.dropout(hidden, self.dropout)",
        "functional.dropout(hidden, min(1.0, 2 * self.dropout))",
    ),
    Mutation(
        "36 module dropout half the rate",
        "kit/adapters/base.py",
        "torch.rand(()).item() < self.module_dropout",
        "torch.rand(()).item() < self.module_dropout / 2",
    ),
    Mutation(
        "37 scale_weight_norms wiring doubled",
        "kit/training/step.py",
        "self.limit_norms(self.max_weight_norm)",
        "self.limit_norms(2 * self.max_weight_norm)",
    ),
    Mutation(
        "38 max_grad_norm doubled in wiring",
        "kit/training/preparation.py",
        "max_grad_norm=settings.basic.max_grad_norm or",
        "max_grad_norm=2 * settings.basic.max_grad_norm or",
    ),
    Mutation(
        "39 ip_noise_gamma doubled",
        "kit/training/batches.py",
        'return gamma * self._normal("ip"',
        'return 2 * gamma * self._normal("ip"',
    ),
    Mutation(
        "40 noise_offset doubled in feeding",
        "kit/training/batches.py",
        "return diffusion.offset_noise(noise_BChw, draws_BC, strength)",
        "return diffusion.offset_noise(noise_BChw, draws_BC, 2 * strength)",
    ),
    Mutation(
        "41 clip_skip off by one in training",
        "kit/training/caches.py",
        "clip_skip=memory.clip_skip,",
        "clip_skip=max(1, memory.clip_skip - 1),",
    ),
    Mutation(
        "42 noise same for every batch",
        "kit/training/batches.py",
        "tuple(shape[1:]), self.plan.seed, name, micro_step, row)",
        "tuple(shape[1:]), self.plan.seed, name, 0, row)",
    ),
    Mutation(
        "43 LR power doubled in wiring",
        "kit/planning/value.py",
        "power=basic.lr_scheduler_power or 1.0",
        "power=2 * (basic.lr_scheduler_power or 0.5)",
    ),
    Mutation(
        "44 debiased ignored for v in wiring",
        "kit/diffusion/losses.py",
        "if noise.debiased_estimation_loss:",
        'if noise.debiased_estimation_loss and predicts.value == "epsilon":',
    ),
    Mutation(
        "45 LR cycles + 1 in wiring",
        "kit/planning/value.py",
        "cycles=basic.lr_scheduler_num_cycles or 1",
        "cycles=(basic.lr_scheduler_num_cycles or 0) + 1",
    ),
    Mutation(
        "46 huber c doubled in wiring",
        "kit/diffusion/losses.py",
        "c=noise.huber_c",
        "c=2 * noise.huber_c",
    ),
    Mutation(
        "47 zero-terminal SNR of weights as the reference",
        "kit/diffusion/losses.py",
        "timestep_weights(noise, snr(kept_T)",
        "timestep_weights(noise, snr(alphas_cumprod())",
    ),
    Mutation(
        "48 min_snr_gamma doubled in wiring",
        "kit/diffusion/losses.py",
        "min_snr_weight(snr_T, noise.min_snr_gamma,",
        "min_snr_weight(snr_T, 2 * noise.min_snr_gamma,",
    ),
    Mutation(
        "49 v_pred_like_loss doubled in wiring",
        "kit/diffusion/losses.py",
        "noise_like_v_weight(snr_T, noise.v_pred_like_loss)",
        "noise_like_v_weight(snr_T, 2 * noise.v_pred_like_loss)",
    ),
    Mutation(
        "50 scale_v_pred weight squared in wiring",
        "kit/diffusion/losses.py",
        "weight_T = weight_T * v_like_noise_weight(snr_T)",
        "weight_T = weight_T * v_like_noise_weight(snr_T) ** 2",
    ),
    Mutation(
        "51 multires discount squared in wiring",
        "kit/training/batches.py",
        "discount = self.plan.settings.noise.multires_noise_discount",
        "discount = self.plan.settings.noise.multires_noise_discount ** 2",
    ),
    Mutation(
        "52 adaptive_noise_scale doubled in wiring",
        "kit/training/batches.py",
        "offset, noise.adaptive_noise_scale)",
        "offset, 2 * noise.adaptive_noise_scale)",
    ),
    Mutation(
        "53 caption_tag_dropout_rate doubled",
        "kit/dataset/captions.py",
        "if rate := settings.caption_tag_dropout_rate:",
        "if rate := 2 * settings.caption_tag_dropout_rate:",
    ),
    Mutation(
        "54 LoRA+ ratio doubled",
        "kit/settings/effective.py",
        "both if ratio is None else ratio for part",
        "both if ratio is None else 2 * ratio for part",
    ),
    Mutation(
        "55 lr_scheduler_min_lr_ratio halved in wiring",
        "kit/settings/effective.py",
        ".least if given is None else given",
        ".least if given is None else given / 2",
    ),
    Mutation(
        "56 lr_decay_steps halved in wiring",
        "kit/planning/value.py",
        "decay=steps.share_or_steps(basic.lr_decay_steps or 0, self.total_steps)",
        "decay=steps.share_or_steps((basic.lr_decay_steps or 0) / 2, self.total_steps)",
    ),
    Mutation(
        "57 network_dropout halved in wiring",
        "kit/adapters/network.py",
        "{name: getattr(settings, name) for name in row.arguments}",
        "{n: getattr(settings, n) / (1 + (n == 'network_dropout')) for n in row.arguments}",
    ),
    Mutation(
        "58 save_every_n_epochs + 1",
        "kit/planning/value.py",
        "steps.every(self.epoch_of(step), saving.save_every_n_epochs)",
        "steps.every(self.epoch_of(step), (saving.save_every_n_epochs or 0) + 1)",
    ),
    Mutation(
        "59 zero_terminal_snr ignored in noising",
        "kit/training/step.py",
        "noisy = diffusion.add_noise(latents, input_noise, t_B, zero_terminal_snr=zero)",
        "noisy = diffusion.add_noise(latents, input_noise, t_B)",
    ),
    Mutation(
        "60 huber_scale squared in wiring",
        "kit/diffusion/losses.py",
        "scale=noise.huber_scale",
        "scale=noise.huber_scale**2",
    ),
    Mutation(
        "61 loss_type huber acts as smooth_l1",
        "kit/diffusion/losses.py",
        "loss_type=noise.loss_type,",
        'loss_type=noise.loss_type.replace("huber", "smooth_l1"),',
    ),
    Mutation(
        "62 warm-up rounds up",
        "kit/planning/steps.py",
        "return int(total * basic.lr_warmup / 100)",
        "return math.ceil(total * basic.lr_warmup / 100)",
    ),
)

# Names of mutations that may survive, each with the reason; at most two.
EXEMPT: dict[str, str] = {
    "kit/dataset/captions.py _variant: 1 -> 2 in "
    "`return _composed(caption, settings, random, step=1, total=1)` (1)": (
        "only token_warmup_step reads the step, and it is refused where captions are cached"
    ),
}
