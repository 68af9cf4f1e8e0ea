"""What of the computer a run uses."""

from __future__ import annotations

from kit import catalog
from kit.settings.setting import Section, setting


class Machine(Section, box="Accelerate launch"):
    """What of the computer a run uses."""

    num_processes: int = setting(
        1,
        "Number of processes",
        "How many processes train one LoRA together, each on a GPU of its own; of several machines "
        "all of them. With more than one, Train and kit train start accelerate launch themselves. "
        "A step then learns from batch size x processes x gradient accumulation images; epochs, "
        "steps and rates stay as they are entered. On a machine without a GPU they share its "
        "processor.",
        between=(1, 1024),
        unit="processes",
        shapes_run=False,
        search="several GPUs, distributed, DDP, two GPUs",
    )
    num_machines: int = setting(
        1,
        "Number of machines",
        "How many machines train together. Each starts the same command, with --machine_rank (0 on "
        "the first) and --main_process_ip (the first one's address) in Extra accelerate launch "
        "arguments, and reads pictures and base model from its own disk.",
        between=(1, 128),
        unit="machines",
        shapes_run=False,
    )
    num_cpu_threads_per_process: int | None = setting(
        None,
        "Number of CPU threads per core",
        "Threads of torch on the CPU, for each process and not per core. Blank: 2 beside a GPU, "
        "where more bring nothing, and as many as torch chooses where the CPU itself trains; there "
        "another number rounds a little differently.",
        between=(1, 1024),
        unit="threads",
        shapes_run=False,
    )
    multi_gpu: bool = setting(
        False,
        "Multi GPU",
        "Train on every GPU of this machine, or on every one in GPU IDs, one process on each. "
        "Number of processes, where it is more than 1, says so by itself and counts more.",
        shapes_run=False,
        search="several GPUs, all GPUs, two GPUs",
    )
    scale_lr_by_processes: bool = setting(
        False,
        "Scale learning rates by processes",
        "A new run begins with every learning rate times the square root of the number of "
        "processes, since a step learns from so many times as many images. Off: rates stay as they "
        "are entered. What was scaled stays so where the run goes on with another number.",
        gui=None,
    )
    shard_base: bool = setting(
        False,
        "Shard the base model",
        "For a base model that a card cannot hold: each of several processes keeps its part of the "
        "U-Net and gathers a block's weights while it computes (FSDP2), over and over, so steps "
        "take longer. The LoRA is the same but for rounding. Text encoders and VAE stay whole. "
        "Not with base_precision, torch.compile or step_engine = graph. Tested on CPUs; on GPUs "
        "not yet run.",
        gui=None,
        source="https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html",
        shapes_run=False,
        search="FSDP, FSDP2, fully_shard, model too large for one card",
    )
    gpu_ids: str = setting(
        "",
        "GPU IDs",
        "The numbers of the GPUs that train, from 0, such as 1,0: as many of them as there are "
        "processes, in this order. Blank: the first ones, or for one process the current one, "
        "usually 0.",
        shapes_run=False,
    )
    main_process_port: int = setting(
        0,
        "Main process port",
        "The port over which the processes find each other. 0: a free one; of several machines "
        "29500, which must be open on the first.",
        between=(0, 65535),
        shapes_run=False,
    )
    max_data_loader_n_workers: int = setting(
        0,
        "Max num workers for DataLoader",
        "Threads that read and cut pictures ahead, while latents are cached and, where they are "
        "not, while the GPU trains. 0: read when they are needed. The batches are the same.",
        between=(0, 64),
        box="Parameters / Advanced",
        shapes_run=False,
    )
    persistent_data_loader_workers: bool = setting(
        False,
        "Persistent data loader",
        "Keep these threads from one epoch to the next instead of beginning new ones, which takes "
        "about a millisecond.",
        box="Parameters / Advanced",
        shapes_run=False,
    )
    dynamo_backend: str = setting(
        "no",
        "Dynamo backend",
        "Compile the U-Net with torch.compile; inductor is the one that makes it faster. The first "
        "steps of each bucket size take minutes, so it only pays for long runs with few sizes. "
        "Results are rounded differently.",
        choices=tuple(catalog.COMPILERS),
        source="https://docs.pytorch.org/docs/stable/generated/torch.compile.html",
        resumes="asked",
    )
    dynamo_mode: str = setting(
        "default",
        "Dynamo mode",
        "Only inductor: reduce-overhead uses CUDA graphs and more memory, max-autotune tries many "
        "kernels and takes longest to compile.",
        choices=("default", "reduce-overhead", "max-autotune"),
        resumes="asked",
    )
    dynamo_use_fullgraph: bool = setting(
        False,
        "Dynamo use fullgraph",
        "Refuse to go on where the U-Net cannot be compiled in one piece, instead of running the "
        "rest uncompiled.",
        resumes="asked",
    )
    dynamo_use_dynamic: bool = setting(
        False,
        "Dynamo use dynamic",
        "Compile once for all bucket sizes instead of anew for each; somewhat slower steps.",
        resumes="asked",
    )
    extra_accelerate_launch_args: str = setting(
        "",
        "Extra accelerate launch arguments",
        "Further arguments of accelerate launch, for several processes, such as --machine_rank 1 "
        "--main_process_ip 10.0.0.1. What has a field here is entered there; DeepSpeed is refused.",
        source="https://huggingface.co/docs/accelerate/package_reference/cli",
        shapes_run=False,
    )
    step_engine: str = setting(
        "auto",
        "Step engine",
        "How a step is made on an NVIDIA GPU. graph: recorded once for each bucket size and "
        "replayed, which spares the host nearly all of its work. eager: call by call. auto: graph, "
        "after the first steps were made both ways and agreed; where it cannot be, eager, and the "
        "run says why. Elsewhere always eager.",
        choices=("auto", "graph", "eager"),
        gui=None,
        box="Parameters / Advanced",
        shapes_run=False,
    )
    deterministic: bool = setting(
        False,
        "Deterministic",
        "Kernels that add up in one order, so that two equal runs on one GPU end in equal files; "
        "somewhat slower. On a CPU they do so anyway.",
        gui=None,
        box="Parameters / Advanced",
        source="https://docs.pytorch.org/docs/stable/notes/randomness.html",
        resumes="asked",
    )
