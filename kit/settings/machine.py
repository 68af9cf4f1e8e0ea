"""What of the computer a run uses."""

from __future__ import annotations

from kit import catalog
from kit.settings.setting import Section, setting


class Machine(Section, box="Accelerate launch"):
    """What of the computer a run uses."""

    num_cpu_threads_per_process: int | None = setting(
        None,
        "Number of CPU threads per core",
        "Threads of torch on the CPU, for the whole run and not per core. Blank: 2 beside a GPU, "
        "where more bring nothing, and as many as torch chooses where the CPU itself trains; there "
        "another number rounds a little differently.",
        between=(1, 1024),
        unit="threads",
        shapes_run=False,
    )
    gpu_ids: str = setting(
        "",
        "GPU IDs",
        "The number of the GPU that trains, from 0. Of several, such as 1,0, the first is used: a "
        "run is one process on one GPU. Blank: the current one, usually 0.",
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
