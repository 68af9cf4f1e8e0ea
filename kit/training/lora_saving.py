"""LoRA files along a run's way: the network's tensors, with all that its metadata tells."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

from kit.adapters.network import Network
from kit.basemodel import ModelFile, decide_prediction, locate_vae
from kit.lorafile import tensors as lora_file
from kit.lorafile.metadata import BaseFacts, training_metadata
from kit.optim.optimization import Optimization
from kit.planning import Plan
from kit.randomness import seed_for
from kit.training.soundness import require_finite

FileWriter: TypeAlias = Callable[[Path, int, int], None]  # path, step, epoch


def file_writer(
    plan: Plan, network: Network, optimization: Optimization, *, file: ModelFile, began: float
) -> FileWriter:
    """What writes the network as a LoRA file with its metadata."""
    settings, session = plan.settings, seed_for(plan.run.fingerprint, began.hex()) % 2**32
    model = settings.model
    # A base model of several GB takes seconds to hash: the first file waits for it, not the start.
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hashing")
    base = pool.submit(
        _facts,
        model.pretrained_model_name_or_path,
        file.path,
        predicts=decide_prediction(file, v_parameterization=model.v_parameterization),
        zero_terminal_snr=file.zero_terminal_snr,
    )
    vae = pool.submit(_facts, model.vae, locate_vae(model.vae)) if model.vae else None
    pool.shutdown(wait=False)
    described = optimization.described

    def write(path: Path, step: int, epoch: int) -> None:
        metadata = training_metadata(
            plan,
            family=file.family,
            base=base.result(),
            vae=vae.result() if vae else None,
            optimizer=described,
            started_at=began,
            finished_at=time.time(),
            session_id=session,
            step=step,
            epoch=epoch,
        )
        metadata |= network.unsaid()
        tensors = lora_file.cast(network.tensors(), settings.saving.save_precision)
        require_finite(tensors, _overflows(settings.saving.save_precision))
        lora_file.write_lora(path, tensors, metadata, save_as=settings.saving.save_model_as)

    return write


def _overflows(precision: str) -> str:
    """Weights of any size are finite while they learn; fp16 ends at 65504."""
    return f"weights that are not finite as save_precision = {precision} writes them"


def _facts(name: str, path: Path, **told: Any) -> BaseFacts:
    legacy, whole = lora_file.model_hashes(path)
    return BaseFacts(name, legacy, whole, **told)
