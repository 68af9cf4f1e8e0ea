"""sd-scripts' TOML and command lines come in, with a line for each argument."""

import pytest

from kit.errors import SettingsError
from kit.exchange import Verdict, export_sd_scripts, load_any
from kit.exchange.command_line import arguments_in
from kit.exchange.known import trainer_args
from kit.exchange.repeated import lines_of, of_command
from kit.settings import Settings

GUI_TOML = """
bucket_no_upscale = true
bucket_reso_steps = 64
cache_latents = true
caption_extension = ".txt"
clip_skip = 1
dynamo_backend = "no"
enable_bucket = true
epoch = 1
gradient_accumulation_steps = 1
huber_c = 0.1
huber_scale = 1.0
huber_schedule = "snr"
learning_rate = 0.0001
loss_type = "l2"
lr_scheduler = "cosine"
lr_scheduler_args = []
lr_scheduler_num_cycles = 1
lr_scheduler_power = 1.0
lr_warmup_steps = 0.1
max_bucket_reso = 2048
max_data_loader_n_workers = 0
max_grad_norm = 1.0
max_timestep = 1000
max_token_length = 75
max_train_steps = 1600
min_bucket_reso = 256
mixed_precision = "fp16"
network_alpha = 1
network_args = []
network_dim = 8
network_module = "networks.lora"
noise_offset_type = "Original"
optimizer_args = []
optimizer_type = "AdamW8bit"
output_dir = "out"
output_name = "last"
pretrained_model_name_or_path = "runwayml/stable-diffusion-v1-5"
prior_loss_weight = 1.0
resolution = "512,512"
sample_sampler = "euler_a"
save_every_n_epochs = 1
save_model_as = "safetensors"
save_precision = "fp16"
text_encoder_lr = [ 0.0001, 0.0001,]
train_batch_size = 1
unet_lr = 0.0001
wandb_run_name = "last"
xformers = true
"""
COMMAND = r"""
!accelerate launch --num_cpu_threads_per_process 1 --mixed_precision=bf16 --multi_gpu \
  "C:\sd-scripts\sdxl_train_network.py" ^
  --pretrained_model_name_or_path="D:\my models\base.safetensors" --train_data_dir 'my images' `
  --network_module networks.lora --network_args "conv_dim=4" conv_alpha=1 "rank_dropout=0.1" \
  --network_train_unet_only --optimizer_args "weight_decay=0.1" "betas=0.9,0.99" \
  --max_train_epochs 10 --lr_warmup_steps 5% --xformers --seed=42
"""


def line_of(report, key):
    (line,) = [line for line in report.lines if line.key == key]
    return line


def test_the_file_that_the_gui_writes_comes_in():
    settings, report = load_any(GUI_TOML)
    assert len(report.lines) == GUI_TOML.count(" = ") == sum(report.counts.values())
    assert not report.problems()
    assert report.of(Verdict.UNKNOWN) == ()
    assert settings.changed() == {
        "pretrained_model_name_or_path": "runwayml/stable-diffusion-v1-5",
        "output_dir": "out",
        "max_train_steps": 1600,
        "text_encoder_lr": 1e-4,
        "wandb_run_name": "last",
        "cross_attention": "xformers",
    }
    assert report.assumed == {}


def test_tables_and_a_flat_file_are_the_same():
    flat = 'network_module = "networks.lora"\nnetwork_args = ["conv_dim=4"]\nunet_lr = 1e-3\n'
    tables = flat.replace("unet_lr", "[optimizer_arguments]\nunet_lr")
    assert load_any(flat)[0] == load_any(tables)[0]
    assert load_any(flat)[0].network.conv_dim == 4


def test_what_is_absent_has_the_trainers_own_default_and_is_told():
    settings, report = load_any('network_module = "networks.lora"\ntrain_data_dir = "x"\n')
    assert report.assumed["max_train_steps"] == 1600 == settings.basic.max_train_steps
    assert report.assumed["network_dim"] == 4
    assert report.assumed["lr_scheduler"] == "constant"
    assert report.assumed["caption_extension"] == ".caption"
    assert report.assumed["enable_bucket"] is False
    assert report.assumed["mixed_precision"] == "no"
    assert settings.basic.optimizer_type == "AdamW"
    assert settings.basic.unet_lr is None
    assert settings.basic.lr_warmup == 0
    assert "max_train_steps = 1600" in str(report)


def test_a_command_line_comes_in():
    settings, report = load_any(COMMAND)
    assert settings.model.pretrained_model_name_or_path == r"D:\my models\base.safetensors"
    assert settings.folders.train_data_dir == "my images"
    assert settings.model.sdxl is True
    assert settings.network.LoRA_type == "Kohya LoCon"
    assert (settings.network.conv_dim, settings.network.conv_alpha) == (4, 1)
    assert settings.network.rank_dropout == 0.1
    assert settings.basic.text_encoder_lr == 0
    assert settings.basic.optimizer_args == "weight_decay=0.1 betas=0.9,0.99"
    assert (settings.basic.epoch, settings.basic.max_train_steps) == (10, None)
    assert (settings.basic.lr_warmup, settings.basic.lr_warmup_steps) == (5, None)
    assert settings.basic.seed == 42
    assert settings.memory.mixed_precision == "bf16"
    assert settings.machine.num_cpu_threads_per_process == 1
    assert len(report.lines) == 16
    assert settings.machine.multi_gpu is True
    assert report.missing["train_data_dir"] == "my images"


def test_the_last_of_two_counts_and_words_that_belong_to_nothing_are_told():
    _, report = load_any("train_network.py --seed 1 --seed 2 stray --xformers yes --network_dimm 4")
    assert [line.value for line in report.lines if line.key == "seed"] == ["2", "1"]
    assert {line.key for line in report.of(Verdict.UNKNOWN)} == {"stray", "yes", "network_dimm"}
    assert len(report.problems()) == 3  # as sd-scripts, which refuses them
    assert "did you mean network_dim?" in line_of(report, "network_dimm").told


def test_an_open_quote_is_told():
    with pytest.raises(SettingsError, match="close every quote"):
        load_any('train_network.py --output_name "cat --seed 1')


@pytest.mark.parametrize("name", trainer_args())
def test_every_argument_of_the_trainer_is_judged(name):
    argument = trainer_args()[name]
    words = {"flag": [], "int": ["2"], "float": ["0.5"], "int_or_float": ["3"]}
    value = words.get(argument.type, ["a=1"] if argument.is_list else ["x"])
    if name in ("config_file", "text_encoder_lr"):
        return
    _, report = load_any(" ".join(["train_network.py", f"--{name}", *value, "--sdpa"]))
    keys = [line.key.removeprefix("network_args.a") for line in report.lines]
    assert len(keys) == (2 if name == "sdpa" else 3)
    assert report.of(Verdict.UNKNOWN) == () or name == "network_args"


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        ("--lr_warmup_steps 100", "lr_warmup_steps", 100),
        ("--lr_warmup_steps 0.1", "lr_warmup", 10),
        ("--lr_warmup_steps 0", "lr_warmup", 0),
        ("--text_encoder_lr 1e-5 2e-5", "text_encoder_lr", 1e-5),
        ("--text_encoder_lr 1e-5 --network_train_unet_only", "text_encoder_lr", 0),
        ("--network_train_text_encoder_only", "unet_lr", 0),
        ("--use_8bit_adam", "optimizer_type", "AdamW8bit"),
        ("--optimizer_type adamw8BIT", "optimizer_type", "AdamW8bit"),
        ("--caption_extention .cap", "caption_extension", ".cap"),
        ("--multires_noise_iterations 6", "noise_offset_type", "Multires"),
        ("--noise_offset 0.1", "noise_offset_type", "Original"),
        ("--max_train_epochs 3 --max_train_steps 9", "max_train_steps", None),
        ("--max_train_steps 9", "max_train_steps", 9),
        ("--network_module networks.lora", "LoRA_type", "Standard"),
        ("--resolution 768", "resolution", "768,768"),
        ("--flip_aug", "flip_aug", True),
        ("--flip_aug", "dynamo_backend", "no"),
        ("--torch_compile", "dynamo_backend", "inductor"),
        ("--torch_compile --dynamo_backend eager", "dynamo_backend", "eager"),
        ("--dynamo_backend eager", "dynamo_backend", "no"),
        (
            "--network_module lycoris.kohya --network_args algo=lokr --network_dim 9999",
            "network_dim",
            1024,
        ),
        ("--xformers", "cross_attention", "xformers"),
        ("--sdpa", "cross_attention", "sdpa"),
        ("--fp8_base_unet", "fp8_base", True),
        ("--v2 --v_parameterization", "v_parameterization", True),
        ("--network_args loraplus_lr_ratio=4", "network_dim", 4),
    ],
)
def test_arguments_mean_what_the_trainer_takes_them_for(words, name, expected):
    settings, _ = load_any(f"train_network.py {words}")
    assert settings.flat()[name] == expected


@pytest.mark.parametrize(
    ("words", "word"),
    [
        ("flux_train_network.py --seed 1", "flux_train_network.py"),
        ("train_network.py --network_module networks.lora_flux", "networks.lora_flux"),
        ("train_network.py --noise_offset 0.1 --multires_noise_iterations 6", "multires"),
        ("train_network.py --use_8bit_adam --optimizer_type AdamW", "optimizer_type"),
        ("train_network.py --mixed_precision fp8", "fp8"),
    ],
)
def test_what_cannot_be_done_stops_a_training(words, word):
    _, report = load_any(words)
    assert any(word in problem for problem in report.problems())


def test_arguments_of_other_families_are_told_so():
    _, report = load_any("train_network.py --t5xxl x.safetensors --guidance_scale 1")
    assert [line.told for line in report.lines[1:]] == [
        "belongs to another model family (chroma flux sd3)",
        "belongs to another model family (chroma flux)",
    ]


def test_a_config_file_is_read_and_the_command_line_counts_more(tmp_path):
    (tmp_path / "a.toml").write_text("[x]\nnetwork_dim = 16\nseed = 3\n")
    (tmp_path / "run.sh").write_text(
        "#!/bin/sh\npython train_network.py --config_file a.toml --seed 4\n"
    )
    settings, report = load_any(tmp_path / "run.sh")
    assert (settings.network.network_dim, settings.basic.seed) == (16, 4)
    assert {line.key for line in report.lines} == {"script", "config_file", "network_dim", "seed"}


def test_switches_of_the_launcher_take_no_word():
    entries = arguments_in("accelerate launch --multi_gpu train_network.py --flip_aug")
    assert entries == {"accelerate.multi_gpu": True, "script": "train_network.py", "flip_aug": True}


def test_the_launchers_options_come_in_and_what_only_it_needs_is_told():
    settings, report = load_any(
        "accelerate launch --multi_gpu --num_processes=4 --num_machines 2 --machine_rank 1 "
        "--main_process_ip 10.0.0.1 --same_network --main_process_port 29501 --use_deepspeed "
        "--zero_stage 2 --tee 3 train_network.py --network_module networks.lora"
    )
    machine = settings.machine
    assert (machine.num_processes, machine.num_machines, machine.multi_gpu) == (4, 2, True)
    assert machine.main_process_port == 29501
    assert machine.extra_accelerate_launch_args == (
        "--machine_rank 1 --main_process_ip 10.0.0.1 --same_network"
    )
    assert not report.problems()
    assert "DeepSpeed" in line_of(report, "accelerate.zero_stage").told
    assert "does without it" in line_of(report, "accelerate.tee").told


def test_several_processes_go_out_in_the_command_above_the_settings():
    settings = Settings().replace(num_processes=2, gpu_ids="2,0", main_process_port=29501)
    text, notices = export_sd_scripts(settings)
    assert text.splitlines()[0] == (
        "# accelerate launch --multi_gpu --num_processes 2 --num_machines 1 "
        "--main_process_port 29501 --gpu_ids 2,0 train_network.py --config_file THIS_FILE"
    )
    assert "num_processes" not in text.partition("\n")[2]
    assert [n for n in notices if "above the settings" in n and n.startswith("num_processes = 2")]
    one = export_sd_scripts(Settings())[0]
    assert one.startswith("# accelerate launch train_network.py --config_file")


def test_an_argument_that_stands_twice_is_told_with_both_values(tmp_path):
    (tmp_path / "more.toml").write_text("network_alpha = 4\nflip_aug = true", "utf-8")
    command = tmp_path / "command.txt"
    command.write_text(
        "accelerate launch --num_processes 2 --num_processes 1 train_network.py --flip_aug "
        "--network_module networks.lora --network_dim 8 --flip_aug --network_dim=16 "
        "--network_args conv_dim=4 conv_alpha=1 conv_dim=8 --config_file more.toml "
        "--network_alpha 2",
        "utf-8",
    )
    settings, report = load_any(command)
    assert (settings.network.network_dim, settings.network.conv_dim) == (16, 8)
    again = "given again with another value, which counts"
    assert [str(line) for line in report.lines if again in line.told] == [
        f"accelerate.num_processes = 2: {again}: 1",
        f"network_dim = 8: {again}: 16",
        f"network_args.conv_dim = 4: {again}: 8",
        f"network_alpha = 4: {again}: 2",
    ]


def test_a_secret_that_stands_twice_stays_one():
    text = "--huggingface_token hf_one --huggingface_token hf_two --network_dim 4"
    assert "hf_" not in str([str(line) for line in lines_of(of_command(text))])


def test_tables_of_a_file_that_say_otherwise_are_told():
    text = '[a]\nnetwork_module = "networks.lora"\nnetwork_dim = 4\n[b]\nnetwork_dim = 8\n'
    settings, report = load_any(text)
    assert settings.network.network_dim == 8
    assert any("given again" in line.told and line.value == "4" for line in report.lines)
