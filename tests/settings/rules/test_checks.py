"""Each rule between settings, seen from outside: what triggers it, and what does not."""

import re
from pathlib import Path

import pytest

from kit.settings import Settings, rules
from kit.settings.effective import caches_latents, caches_text_embeds, learning_rates
from kit.settings.rules import (
    RunLength,
    every_rule,
    idle_settings,
    length_notices,
    length_problems,
    notices,
    problems,
)
from kit.settings.rules.rule import notice

SOUND = Settings()
NO_EFFECT = re.compile(r"(\w+) has no effect: ")  # whatever stands in it
ADDRESS = "--machine_rank 0 --main_process_ip 10.0.0.1"
RULES = {rule.name: rule for rule in every_rule()}

DADAPT = {"unet_lr": 1, "text_encoder_lr": 1}
SHARDED = {"shard_base": True, "num_processes": 2}
PROBLEMS = {
    "preset": [dict(LoRA_type="LyCORIS/LoHa", LyCORIS_preset="everything")],
    "unit": [
        dict(LoRA_type="Kohya DyLoRA", unit=3),
        dict(LoRA_type="LyCORIS/DyLoRA", unit=4, conv_dim=6),
    ],
    "blocks_that_do_not_fit": [
        dict(LoRA_type="LyCORIS/BOFT"),
        dict(LoRA_type="LyCORIS/BOFT", network_dim=16, conv_dim=8),
    ],
    "lists_of_no_family": [
        dict(block_dims="4,4"),
        dict(down_lr_weight="slope"),
        dict(up_lr_weight="-1"),
        dict(block_alphas="-1," * 24 + "1"),
    ],
    "stop_alone": [
        dict(unet_lr=0, stop_text_encoder_training=40),
        dict(unet_lr=None, learning_rate=0, stop_text_encoder_training=99),
    ],
    "schedule_class": [
        dict(lr_scheduler_type="NoSuch"),
        dict(lr_scheduler_type="no_such_package.schedules.Slow"),
        dict(lr_scheduler_type="kit.events.Slow"),
        dict(lr_scheduler_type="not a name"),
        dict(lr_scheduler_type="ReduceLROnPlateau"),
        dict(lr_scheduler_type="LambdaLR", lr_scheduler_args="lr_lambda=x"),
        dict(lr_scheduler_type="StepLR"),
        dict(lr_scheduler_type="StepLR", lr_scheduler_args="step_size=3 steps=3"),
        dict(lr_scheduler_type="StepLR", lr_scheduler_args="step_size=0"),
        dict(lr_scheduler_type="StepLR", lr_scheduler_args="step_size=3 last_epoch=2"),
        dict(lr_scheduler_type="ExponentialLR", lr_scheduler_args="gamma=fast"),
        dict(lr_scheduler_type="MultiStepLR", lr_scheduler_args="milestones=30"),
        dict(lr_scheduler_type="PolynomialLR", lr_scheduler_args="total_iters=0"),
        dict(lr_scheduler_type="CosineAnnealingLR", lr_scheduler_args="T_max=0"),
        dict(lr_scheduler_type="CosineAnnealingWarmRestarts", lr_scheduler_args="T_0=1.5"),
        dict(lr_scheduler_type="OneCycleLR", lr_scheduler_args="max_lr=1 anneal_strategy=sin"),
        dict(
            optimizer_type="Adafactor",
            optimizer_args="relative_step=False",
            lr_scheduler_type="CyclicLR",
            lr_scheduler_args="base_lr=1e-5 max_lr=1e-4",
        ),
    ],
    "optimizer_values": [
        dict(optimizer_args="betas=0.9"),
        dict(optimizer_args="betas=0.9,2"),
        dict(optimizer_args="betas=0.9,0.99,0.999"),
        dict(optimizer_args="eps=fast"),
        dict(optimizer_args="weight_decay=-1"),
        dict(optimizer_type="AdamW", optimizer_args="amsgrad=2"),
        dict(optimizer_type="SGDNesterov", optimizer_args="momentum=0"),
        dict(optimizer_type="SGDNesterov", optimizer_args="dampening=0.1"),
        dict(optimizer_type="Adafactor", optimizer_args="relative_step=False warmup_init=True"),
        dict(optimizer_type="Adafactor", optimizer_args="clip_threshold=0"),
        dict(DADAPT, optimizer_type="DAdaptLion", optimizer_args="decouple=False"),
        dict(DADAPT, optimizer_type="Prodigy", optimizer_args="slice_p=1.5"),
    ],
    "nothing_learns": [
        dict(unet_lr=0, text_encoder_lr=0),
        dict(unet_lr=None, text_encoder_lr=0, learning_rate=0),
    ],
    "random_crop_with_cache": [
        dict(random_crop=True),
        dict(random_crop=True, cache_latents=False, cache_latents_to_disk=True),
    ],
    "cached_text_embeds_with_learning_encoder": [
        dict(cache_text_encoder_outputs=True),
        dict(cache_text_encoder_outputs_to_disk=True, text_encoder_lr=None),
    ],
    "dim_from_weights_without_file": [dict(dim_from_weights=True)],
    "bucket_bounds": [
        dict(bucket_no_upscale=False, min_bucket_reso=576),
        dict(bucket_no_upscale=False, max_bucket_reso=448),
        dict(bucket_no_upscale=False, resolution="256", bucket_reso_steps=512),
    ],
    "sides_in_latents": [
        dict(bucket_reso_steps=50),
    ],
    "optimizer_args": [
        dict(optimizer_args="weight_decay"),
        dict(optimizer_args="wieght_decay=0.1"),
        dict(optimizer_args="lr=1"),
        dict(optimizer_type="AdamW", optimizer_args="d_coef=2"),
    ],
    "average_without_momentum": [
        dict(optimizer_type="AdamWScheduleFree", optimizer_args="betas=0,0.999"),
        dict(optimizer_type="RAdamScheduleFree", optimizer_args="betas=-0.5,0.999"),
        dict(
            optimizer_type="prodigyplus.ProdigyPlusScheduleFree",
            optimizer_args="betas=0.0,0.99",
            unet_lr=1,
            text_encoder_lr=1,
        ),
    ],
    "one_rate": [
        dict(optimizer_type="Prodigy"),
        dict(optimizer_type="DAdaptAdam", unet_lr=1, text_encoder_lr=0.5),
    ],
    "own_schedule_alone": [
        dict(lr_scheduler="adafactor"),
        dict(
            lr_scheduler="adafactor",
            optimizer_type="Adafactor",
            optimizer_args="relative_step=False",
        ),
    ],
    "schedule_args": [
        dict(lr_scheduler_args="gamma"),
        dict(lr_scheduler="piecewise_constant"),
        dict(lr_scheduler="piecewise_constant", lr_scheduler_args="step_rules=1:9,2:3,1"),
    ],
    "timesteps": [dict(min_timestep=500, max_timestep=500)],
    "adaptive_without_offset": [
        dict(adaptive_noise_scale=0.1),
    ],
    "mask_without_source": [dict(masked_loss=True)],
    "inpainting_with_cache": [
        dict(train_inpainting=True),
        dict(train_inpainting=True, cache_latents=False, cache_latents_to_disk=True),
    ],
    "colour_with_cache": [dict(color_aug=True)],
    "separator": [dict(caption_separator="")],
    "warmup_with_cache": [
        dict(token_warmup_step=9, cache_text_encoder_outputs=True, text_encoder_lr=0)
    ],
    "prompts": [dict(sample_prompts="a cat --q 3", sample_at_first=True)],
    "samples_without_prompts": [
        dict(sample_at_first=True),
        dict(sample_every_n_epochs=1),
        dict(sample_every_n_steps=10, sample_prompts=" \n"),
    ],
    "full_needs_mixed": [
        dict(full_bf16=True),
        dict(full_fp16=True, mixed_precision="no"),
        dict(full_fp16=True, full_bf16=True),
    ],
    "two_base_precisions": [dict(fp8_base=True, base_precision="nf4")],
    "without_logging_folder": [dict(log_with="tensorboard"), dict(log_with="all")],
    "tracker_config": [dict(log_with="wandb", log_tracker_config="no such file.toml")],
    "log_folder_name": [
        dict(logging_dir="logs", log_prefix="a/"),
        dict(logging_dir="logs", log_tracker_name="a:b"),
    ],
    "gone_backend": [dict(dynamo_backend="ofi")],
    "repo_id": [dict(huggingface_repo_id="cats"), dict(huggingface_repo_id="a/b/c")],
    "path_in_repo": [dict(huggingface_path_in_repo="../x"), dict(huggingface_path_in_repo="/x")],
    "resume_place": [
        dict(resume_from_huggingface=True),
        dict(resume_from_huggingface=True, resume="anna/cats"),
    ],
    "gpu_numbers": [dict(gpu_ids="all"), dict(gpu_ids="-1")],
    "processes_by_machine": [
        dict(num_processes=3, num_machines=2, extra_accelerate_launch_args=ADDRESS),
        dict(num_machines=2, extra_accelerate_launch_args=ADDRESS),
    ],
    "sharded_base": [
        dict(SHARDED, base_precision="int8"),
        dict(SHARDED, fp8_base=True),
        dict(SHARDED, dynamo_backend="inductor"),
        dict(SHARDED, step_engine="graph"),
        dict(shard_base=True, multi_gpu=True, base_precision="nf4"),
    ],
    "too_few_gpus_named": [
        dict(num_processes=2, gpu_ids="1"),
        dict(num_processes=3, gpu_ids="1,1,0"),
    ],
    "launch_arguments": [
        dict(num_processes=2, extra_accelerate_launch_args="--use_deepspeed"),
        dict(num_processes=2, extra_accelerate_launch_args="--num_processes 3"),
        dict(num_processes=2, extra_accelerate_launch_args="--machine_rank"),
        dict(num_processes=2, extra_accelerate_launch_args="--role a --role a"),
        dict(num_processes=2, extra_accelerate_launch_args='--role "open'),
    ],
    "machines_without_address": [
        dict(num_processes=2, num_machines=2),
        dict(num_processes=2, num_machines=2, extra_accelerate_launch_args="--machine_rank 1"),
    ],
    "nothing_left_to_train": [dict(validation_split=1), dict(validation_split=1.0, seed=3)],
}  # fmt: skip
NOTICES = {
    "no_warmup": [
        dict(lr_scheduler="constant"),
        dict(lr_scheduler="constant", lr_warmup=0, lr_warmup_steps=5),
        dict(lr_scheduler_type="LinearLR"),
    ],
    "idle_schedule": [
        dict(lr_scheduler_num_cycles=3),
        dict(lr_scheduler_power=2, lr_scheduler="linear"),
        dict(lr_decay_steps=0.3),
        dict(lr_scheduler_args="step_size=3"),
        dict(
            lr_scheduler_type="torch.optim.lr_scheduler.MultiStepLR",
            lr_scheduler_args="milestones=30,60 gamma=0.5",
        ),
        dict(lr_scheduler_type="LinearLR"),
    ],
    "sets_rates": [
        dict(lr_scheduler_type="OneCycleLR", lr_scheduler_args="max_lr=1e-3 total_steps=100"),
        dict(lr_scheduler_type="CyclicLR", lr_scheduler_args="max_lr=1e-3 base_lr=1e-4"),
    ],
    "ends_high": [dict(lr_scheduler="cosine_with_min_lr", lr_scheduler_num_cycles=2)],
    "other_noise": [dict(multires_noise_iterations=3)],
    "idle_details": [
        dict(huber_c=0.5),
        dict(noise_offset_random_strength=True),
        dict(ip_noise_gamma_random_strength=True),
        dict(multires_noise_discount=0.5, noise_offset_type="Multires"),
        dict(conditioning_data_dir="masks"),
        dict(prior_loss_weight=2),
    ],
    "idle_captions": [
        dict(keep_tokens=1),
        dict(token_warmup_min=2),
        dict(cached_caption_variants=2),
    ],
    "two_ways_to_keep": [
        dict(keep_tokens=1, keep_tokens_separator="|||", shuffle_caption=True),
    ],
    "sides_of_a_preset": [
        dict(LoRA_type="LyCORIS/iA3", LyCORIS_preset="ia3", train_on_input=False)
    ],
    "unread_by_type": [
        dict(conv_dim=4),
        dict(conv_alpha=4),
        dict(factor=4),
        dict(LoRA_type="LyCORIS/iA3", network_dim=4),
        dict(LoRA_type="LyCORIS/GLoRA", use_tucker=True),
        dict(LoRA_type="LyCORIS/LoHa", bypass_mode=True),
        dict(LoRA_type="LyCORIS/iA3", loraplus_lr_ratio=16),
        dict(LoRA_type="LyCORIS/Diag-OFT", loraplus_unet_lr_ratio=16),
    ],
    "sizes_of_a_file": [
        dict(dim_from_weights=True, network_weights="a.safetensors", network_dim=4),
        dict(dim_from_weights=True, network_weights="a.safetensors", rs_lora=True),
    ],
    "dropouts_that_are_off": [
        dict(LoRA_type="LyCORIS/LoKr", rank_dropout_scale=True),
        dict(LoRA_type="LyCORIS/LoCon", bypass_mode=True),
        dict(LoRA_type="LyCORIS/LoCon", bypass_mode=True, rank_dropout=0.1, dora_wd=True),
    ],
    "axis_without_dora": [dict(LoRA_type="LyCORIS/LoKr", wd_on_output=True)],
    "in_bf16": [
        dict(LoRA_type="LyCORIS/LoKr", save_precision="bf16"),
        dict(LoRA_type="Kohya LoHa", save_precision="bf16"),
        dict(LoRA_type="LyCORIS/Diag-OFT", save_precision="bf16"),
    ],
    "strong_alpha": [dict(network_dim=8, network_alpha=16)],
    "takes_over": [
        dict(optimizer_type="Adafactor"),
        dict(optimizer_type="Adafactor", optimizer_args="relative_step=True"),
        dict(optimizer_type="AdamWScheduleFree"),
        dict(optimizer_type="AdamWScheduleFree", scale_weight_norms=1),
        dict(optimizer_type="prodigyplus.ProdigyPlusScheduleFree", unet_lr=1, text_encoder_lr=1),
    ],
    "schedule_of_no_use": [
        dict(optimizer_type="Adafactor", lr_scheduler_num_cycles=3),
        dict(optimizer_type="AdamWScheduleFree", lr_scheduler_type="LinearLR"),
    ],
    "far_from_advised": [
        dict(optimizer_type="Prodigy", text_encoder_lr=1e-4),
        dict(unet_lr=0.1),
        dict(optimizer_type="SGDNesterov"),
    ],
    "optimizer_note": [
        dict(optimizer_type="SGDNesterov8bit", unet_lr=0.1, text_encoder_lr=0.1),
        dict(optimizer_type="pytorch_optimizer.CAME", optimizer_args="ams_bound=True"),
    ],
    "bucket_sizes_unused": [
        dict(min_bucket_reso=128),
        dict(max_bucket_reso=1024),
        dict(enable_bucket=False, bucket_reso_steps=32),
        dict(enable_bucket=False, bucket_no_upscale=False),
    ],
    "sample_steps_unused": [
        dict(sample_prompts="a cat", sample_every_n_steps=5, sample_every_n_epochs=1),
    ],
    "prompts_never_drawn": [dict(sample_prompts="a cat")],
    "options_given_twice": [dict(sample_prompts="a --s 9 --d 2 --s 8", sample_at_first=True)],
    "options_skipped": [
        dict(sample_prompts="a cat --g 3", sample_at_first=True),
        dict(sample_prompts="a cat\na dog --cn edges.png --ctr 0.25", sample_at_first=True),
    ],
    "opposite_weights": [dict(debiased_estimation_loss=True, min_snr_gamma=5)],
    "sides_cut_in_latents": [dict(enable_bucket=False, resolution="512,650")],
    "two_lengths": [
        dict(max_train_epochs=2, max_train_steps=5),
        dict(max_train_epochs=2, epoch=3),
        dict(max_train_steps=5, epoch=3),
    ],
    "pickle_without_metadata": [dict(save_model_as="ckpt")],
    "idle_states": [
        dict(save_last_n_epochs_state=1),
        dict(save_last_n_steps_state=1),
        dict(save_state=True, save_state_on_train_end=True),
    ],
    "bf16_of_other_formulas": [dict(LoRA_type="LyCORIS/LoKr", save_precision="bf16")],
    "two_starts": [dict(resume="x", network_weights="a.safetensors")],
    "cost_of_base_precision": [
        dict(base_precision="int8"),
        dict(fp8_base=True),
    ],
    "nothing_to_compress": [dict(compress_text_encoders=True)],
    "unused_log_settings": [
        dict(log_config=True),
        dict(logging_dir="logs", wandb_run_name="cat"),
        dict(log_with="wandb", logging_dir="logs"),
    ],
    "attention": [
        dict(cross_attention="xformers"),
    ],
    "attention_that_saves": [dict(mem_eff_attn=True)],
    "idle_memory": [
        dict(skip_cache_check=True),
        dict(highvram=True, cache_latents=False),
        dict(vae_batch_size=2, cache_latents=False),
        dict(no_half_vae=True, mixed_precision="no"),
    ],
    "idle_hub_settings": [
        dict(async_upload=True),
        dict(huggingface_repo_id="anna/cats", save_state_to_huggingface=True),
    ],
    "further_gpus": [dict(gpu_ids="1,0"), dict(gpu_ids="1,0,2", num_processes=2)],
    "counted_processes": [dict(multi_gpu=True, num_processes=2)],
    "idle_launch": [
        dict(main_process_port=29501),
        dict(extra_accelerate_launch_args="--debug"),
        dict(scale_lr_by_processes=True),
        dict(shard_base=True),
        dict(shard_base=True, base_precision="int8"),
    ],
    "blocks_unused": [
        dict(block_lr_zero_threshold=0.1),
        dict(conv_block_dims="2," * 24 + "2"),
        dict(block_dims="2," * 24 + "2", dim_from_weights=True, network_weights="a.safetensors"),
        dict(LoRA_type="LyCORIS/Diag-OFT", block_alphas="2," * 24 + "2"),
    ],
    "stop_without_learning": [dict(stop_text_encoder_training=50, text_encoder_lr=0)],
    "shares_of_no_rate": [
        dict(optimizer_type="Adafactor", down_lr_weight="linear+0.1"),
        dict(optimizer_type="Adafactor", learning_rate_te2=1e-3),
    ],
    "ratios_of_no_rate": [dict(optimizer_type="Adafactor", loraplus_lr_ratio=16)],
    "parts_that_do_not_learn": [
        dict(unet_lr=0, loraplus_unet_lr_ratio=16),
        dict(text_encoder_lr=0, loraplus_text_encoder_lr_ratio=16),
        dict(unet_lr=0, block_dims="2," * 24 + "2"),
    ],
    "ratio_overruled": [
        dict(loraplus_lr_ratio=16, loraplus_unet_lr_ratio=8, loraplus_text_encoder_lr_ratio=0),
    ],
    "idle_compiling": [
        dict(dynamo_use_fullgraph=True),
        dict(dynamo_backend="aot_eager", dynamo_mode="max-autotune"),
    ],
    "compiled_instead": [dict(step_engine="graph", dynamo_backend="inductor")],
    "threads_to_keep": [dict(persistent_data_loader_workers=True)],
    "kept_of_none": [
        dict(save_every_n_epochs=None, save_last_n_epochs=2),
        dict(save_last_n_steps=2),
    ],
    "sampler_of_none": [
        dict(sample_sampler="euler"),
        dict(
            sample_sampler="euler", sample_prompts="a --ss ddim\nb --ss lms", sample_at_first=True
        ),
    ],
    "separator_of_nothing": [dict(caption_separator=";")],
    "multires_without_levels": [dict(noise_offset_type="Multires", noise_offset=0)],
    "special_ones_count": [
        dict(lr_warmup=20, lr_warmup_steps=5),
        dict(lr_warmup=20, lr_warmup_steps=0),
    ],
    "convolutions_of_a_preset": [
        dict(LoRA_type="LyCORIS/LoHa", LyCORIS_preset="attn-only", conv_dim=4),
        dict(LoRA_type="LyCORIS/LoCon", LyCORIS_preset="full-lin", use_tucker=True),
    ],
    "encoder_of_a_preset": [
        dict(LoRA_type="LyCORIS/LoKr", LyCORIS_preset="unet-only", text_encoder_lr=1e-4),
    ],
    "split_beside_a_count": [dict(validation_split=0.1, validation_count=2)],
    "nothing_is_validated": [dict(validation_seed=3), dict(max_validation_steps=4)],
}
LENGTH_PROBLEMS = {  # of a run of 100 steps, of which the schedule falls in 20
    "cycle_of_another_length": [
        dict(lr_scheduler_type="OneCycleLR", lr_scheduler_args="max_lr=1e-3"),
        dict(lr_scheduler_type="OneCycleLR", lr_scheduler_args="total_steps=100"),
        dict(lr_scheduler_type="OneCycleLR", lr_scheduler_args="max_lr=1e-3 total_steps=99"),
        dict(lr_scheduler_type="CyclicLR", lr_scheduler_args="max_lr=1e-3"),
    ],
}
LENGTH_NOTICES = {  # of the same run, which has 4 epochs
    "main_rate_unused": [dict(learning_rate=1e-3, unet_lr=1e-4, text_encoder_lr=1e-4)],
    "never_saved": [dict(save_every_n_epochs=5), dict(save_every_n_steps=101)],
    "never_drawn": [
        dict(sample_prompts="a", sample_every_n_epochs=5),
        dict(sample_prompts="a", sample_every_n_steps=101),
    ],
    "dropped_epochs": [
        dict(caption_dropout_every_n_epochs=1),
        dict(caption_dropout_every_n_epochs=5),
    ],
    "never_validated": [
        dict(validation_count=2, validate_every_n_epochs=5),
        dict(validate_every_n_steps=101),
    ],
    "longer_than_the_run": [
        dict(lr_warmup_steps=101),
        dict(lr_scheduler="warmup_stable_decay", lr_decay_steps=20, lr_warmup_steps=81),
    ],
    "cycle_left_early": [
        dict(lr_scheduler_type="OneCycleLR", lr_scheduler_args="max_lr=1e-3 total_steps=101"),
    ],
}
HUNDRED = RunLength(100, 20, epochs=4)
FINE = {
    "None where it means something": dict(
        DADAPT, optimizer_type="prodigyplus.ProdigyPlusScheduleFree",
        optimizer_args="eps=None betas=0.9,None use_schedulefree=False",
    ),
    "turns that come": dict(
        save_every_n_epochs=4, save_last_n_epochs=2, save_every_n_steps=100, sample_prompts="a",
        sample_every_n_epochs=4, sample_sampler="euler", validation_count=2,
        validate_every_n_steps=100, caption_dropout_every_n_epochs=4,
    ),
    "a separator of tags that move": dict(caption_separator=";", shuffle_caption=True),
    "layers of the whole preset": dict(
        LoRA_type="LyCORIS/LoCon", conv_dim=4, use_tucker=True, text_encoder_lr=1e-4
    ),
    "warm-up in steps": dict(lr_warmup_steps=5),
    "one part learns": dict(unet_lr=0),
    "a blank rate is the main rate": dict(unet_lr=None, text_encoder_lr=0),
    "random crop without cache": dict(random_crop=True, cache_latents=False),
    "cached words of a frozen encoder": dict(cache_text_encoder_outputs=True, text_encoder_lr=0),
    "bounds do not matter without upscaling": dict(resolution="4096", max_bucket_reso=2048),
    "a length by steps": dict(max_train_steps=500),
    "no warm-up": dict(lr_scheduler="constant", lr_warmup=0),
    "cycles of restarts": dict(lr_scheduler="cosine_with_restarts", lr_scheduler_num_cycles=3),
    "power of polynomial": dict(lr_scheduler="polynomial", lr_scheduler_power=2),
    "convolutions of LoCon": dict(LoRA_type="Kohya LoCon", conv_dim=4, conv_alpha=2),
    "Adafactor with our rate": dict(
        optimizer_type="Adafactor", optimizer_args="relative_step=False"
    ),
    "Prodigy at its advised rate": dict(
        optimizer_type="Prodigy", unet_lr=1, text_encoder_lr=1, optimizer_args="d_coef=0.5"
    ),
    "Prodigy for one part": dict(optimizer_type="Prodigy", unet_lr=1, text_encoder_lr=0),
    "D-Adaptation with the name that people know": dict(
        optimizer_type="DAdaptLion", unet_lr=1, text_encoder_lr=1, optimizer_args="decouple=True"
    ),
    "ProdigyPlus without its average": dict(
        optimizer_type="prodigyplus.ProdigyPlusScheduleFree", unet_lr=1, text_encoder_lr=0.5,
        optimizer_args="use_schedulefree=False",
    ),
    "ProdigyPlus without its average may have no momentum": dict(
        optimizer_type="prodigyplus.ProdigyPlusScheduleFree", unet_lr=1, text_encoder_lr=1,
        optimizer_args="use_schedulefree=False betas=0,0.99",
    ),
    "CAME without its bound": dict(
        optimizer_type="pytorch_optimizer.CAME", optimizer_args="ams_bound=False"
    ),
    "upscaling with bounds": dict(
        bucket_no_upscale=False, min_bucket_reso=320, max_bucket_reso=1024
    ),
    "samples with prompts": dict(sample_prompts="a cat", sample_every_n_epochs=1),
    "the text encoder alone, to the end": dict(unet_lr=0, stop_text_encoder_training=100),
    "LoRA+ where we give the rate": dict(
        optimizer_type="Adafactor", optimizer_args="relative_step=False", loraplus_lr_ratio=16
    ),
    "an off interval is no interval": dict(sample_every_n_steps=0),
}  # fmt: skip


def cases(table):
    return [
        pytest.param(rule, values, id=f"{rule}-{number}")
        for rule, examples in table.items()
        for number, values in enumerate(examples)
    ]


@pytest.mark.parametrize(("rule", "values"), cases(PROBLEMS))
def test_a_contradiction_is_refused_by_its_rule(rule, values):
    settings = SOUND.replace(**values)
    told = list(RULES[rule](settings))
    assert told
    assert set(told) <= set(problems(settings))


@pytest.mark.parametrize(("rule", "values"), cases(NOTICES))
def test_what_has_no_effect_is_told_by_its_rule(rule, values):
    settings = SOUND.replace(**values)
    told = list(RULES[rule](settings))
    assert told
    assert set(told) <= set(notices(settings))
    assert problems(settings) == []
    named = {found[1] for text in told if (found := NO_EFFECT.match(text))}
    assert named <= set(idle_settings(settings)), "told, but not grey in the form: see @idle"


@pytest.mark.parametrize(("rule", "values"), cases(LENGTH_PROBLEMS))
def test_what_the_runs_length_rules_out_is_refused_by_its_rule(rule, values):
    settings = SOUND.replace(**values)
    told = list(RULES[rule](settings, HUNDRED))
    assert told and told == length_problems(settings, HUNDRED)


@pytest.mark.parametrize(("rule", "values"), cases(LENGTH_NOTICES))
def test_what_does_not_fit_the_runs_length_is_told_by_its_rule(rule, values):
    settings = SOUND.replace(**values)
    told = list(RULES[rule](settings, HUNDRED))
    assert told and told == length_notices(settings, HUNDRED)
    assert length_problems(settings, HUNDRED) == []


@pytest.mark.parametrize("values", FINE.values(), ids=FINE)
def test_what_belongs_together_is_neither_refused_nor_remarked(values):
    settings = SOUND.replace(**values)
    assert problems(settings) == []
    assert notices(settings) == []


def test_the_defaults_are_sound():
    assert problems(SOUND) == []
    assert notices(SOUND) == []


def test_every_rule_has_an_example_here():
    found = {
        (rule.stops, rule.needs_length): {each.name for each in every_rule() if alike(each, rule)}
        for rule in every_rule()
    }
    examples = {
        (True, False): set(PROBLEMS),
        (False, False): set(NOTICES),
        (True, True): set(LENGTH_PROBLEMS),
        (False, True): set(LENGTH_NOTICES),
    }
    for kind, names in examples.items():
        told = f"write an example, values that set it off, for {found[kind] - names}"
        assert found[kind] <= names, told
        assert not names - found[kind], "examples of no rule, or of a rule of another kind"


def alike(rule, other):
    return (rule.stops, rule.needs_length) == (other.stops, other.needs_length)


def test_rules_have_names_of_their_own_and_the_forms_order():
    names = [rule.name for rule in every_rule()]
    assert len(names) == len(set(names))
    order = list(Settings.model_fields)
    places = [order.index(rule.section) for rule in every_rule()]
    assert places == sorted(places)
    lines = [(order.index(r.section), r.function.__code__.co_firstlineno) for r in every_rule()]
    assert lines == sorted(lines)


def test_sentences_come_in_the_forms_order():
    settings = SOUND.replace(
        gpu_ids="all", bucket_reso_steps=50, train_inpainting=True, min_timestep=9, max_timestep=9
    )
    order = [text.partition("]")[0] for text in problems(settings)]
    assert order == ["[model", "[images", "[noise", "[machine"]


def test_every_file_of_rules_has_the_name_of_a_section():
    names = {path.stem for path in Path(rules.__file__).parent.glob("*.py")}
    assert names - {"__init__", "rule"} == {rule.section for rule in every_rule()}


def test_a_rule_that_asks_for_something_else_is_refused_at_once():
    def wrong(count: int):
        yield ""

    with pytest.raises(TypeError, match="wrong: count is no section of the settings"):
        notice(wrong)


def test_all_contradictions_are_told_at_once():
    settings = SOUND.replace(unet_lr=0, text_encoder_lr=0, dim_from_weights=True, random_crop=True)
    assert len(problems(settings)) == 3


@pytest.mark.parametrize("rule", [*PROBLEMS])
def test_a_problem_names_its_setting_with_its_section(rule):
    for values in PROBLEMS[rule]:
        for text in RULES[rule](SOUND.replace(**values)):
            assert text.startswith("[")
            assert "] " in text and ":" in text


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (dict(), (1e-4, 5e-5)),
        (dict(learning_rate=3e-4, unet_lr=None), (3e-4, 5e-5)),
        (dict(learning_rate=3e-4, unet_lr=None, text_encoder_lr=None), (3e-4, 3e-4)),
        (dict(unet_lr=0), (0, 5e-5)),
    ],
)
def test_a_blank_rate_is_the_main_rate_and_zero_stays_zero(values, expected):
    assert learning_rates(SOUND.replace(**values).basic) == expected


def test_caching_to_disk_is_caching():
    def memory(**values):
        return SOUND.replace(**values).memory

    assert caches_latents(memory(cache_latents=False, cache_latents_to_disk=True))
    assert not caches_latents(memory(cache_latents=False))
    assert caches_text_embeds(memory(cache_text_encoder_outputs_to_disk=True))
    assert not caches_text_embeds(memory())
