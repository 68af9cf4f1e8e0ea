"""`--machine_rank 1 --same_network`: a reader of further arguments of `accelerate launch`.

Source: accelerate.commands.launch, launch_command_parser.
"""

from __future__ import annotations

import re
import shlex

from kit.errors import nearest

WITH_A_VALUE = (
    "config_file", "machine_rank", "main_process_ip", "rdzv_backend", "rdzv_conf", "max_restarts",
    "monitor_interval", "log_dir", "tee", "role",
)  # fmt: skip
SWITCHES = ("same_network", "enable_cpu_affinity", "debug", "quiet")
# Each has a setting of its own; two words for one thing would contradict each other.
HAS_A_FIELD = re.compile(
    r"num_processes|num_machines|multi_gpu|gpu_ids|main_process_port|mixed_precision|dynamo_\w+|"
    r"num_cpu_threads_per_process|gradient_accumulation_steps|gradient_clipping"
)
OF_DEEPSPEED = re.compile(r"(?:use_)?deepspeed\w*|zero_stage|zero3_\w+|offload_\w+")
OTHER_WAYS = re.compile(r"use_\w+|fsdp_\w+|megatron_lm_\w+|parallelism_\w+|tpu\w*|cpu|mps|fp8_\w+")
LONGEST = 2000  # characters
SHOWN = 40  # letters of a name in a sentence


def parse_launch_args(text: str) -> tuple[str, ...]:
    """The words, each option checked; none where it is blank.

    Raises: ValueError with what is possible. What is no option is never repeated in it.
    """
    if len(text) > LONGEST:
        raise ValueError(f"it has {len(text)} characters, and can have {LONGEST}")
    reader = shlex.shlex(text, posix=True, punctuation_chars=False)
    reader.escape, reader.commenters, reader.whitespace_split = "", "", True
    try:
        words = list(reader)
    except ValueError as error:
        raise ValueError(f"{error}; close every quote") from error
    found, waits = list[str](), ""
    for word in words:
        if waits:
            found.append(word)
            waits = ""
            continue
        if not word.startswith("--"):
            raise ValueError(
                "every argument begins with two dashes, such as --machine_rank 1; a value of "
                "several words stands between quotes"
            )
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        _refuse(name)
        if f"--{name}" in found:
            raise ValueError(f"--{name} stands twice; keep one of them")
        if name in SWITCHES and equals:
            raise ValueError(f"--{name} takes no value")
        found.append(f"--{name}")
        if name in WITH_A_VALUE:
            found += [value] if equals else []
            waits = "" if equals else name
    if waits:
        raise ValueError(f"--{waits} has no value; write --{waits} VALUE")
    return tuple(found)


def _refuse(name: str) -> None:
    """Raises: ValueError for what cannot be passed on, with the reason."""
    if OF_DEEPSPEED.fullmatch(name):
        raise ValueError(
            f"--{name}: LoRA Kit does not train with DeepSpeed. It divides weights that learn, and "
            "a LoRA's are few; where the base model does not fit, base_precision = nf4, "
            "gradient_checkpointing or, on several GPUs, shard_base need less memory"
        )
    if HAS_A_FIELD.fullmatch(name):
        raise ValueError(f"--{name} has a setting of its own; enter it there")
    if OTHER_WAYS.fullmatch(name):
        raise ValueError(
            f"--{name[:SHOWN]}: several processes train here in one way, each with the whole base "
            "model, or with its part of it where shard_base is on; leave it out"
        )
    known = (*WITH_A_VALUE, *SWITCHES)
    if name not in known:
        raise ValueError(
            f"--{name[:SHOWN]} is not passed on{nearest(name, known)}; there are "
            + ", ".join(f"--{each}" for each in sorted(known))
        )


def has(words: tuple[str, ...], name: str) -> bool:
    """Whether an option stands among them."""
    return f"--{name}" in words
