"""Which step engine a run gets: graphs where the device has them and the step can be replayed."""

from __future__ import annotations

import torch

from kit.adapters.network import Network
from kit.devices import describe
from kit.settings import Machine
from kit.training.cuda_graphs import CudaGraphs
from kit.training.engine import DRAWN_TWICE, EagerEngine, StepEngine
from kit.training.graph_engine import GraphEngine, Recorder
from kit.training.step import TrainingStep


def recorder_for(device: torch.device) -> Recorder | None:
    """What captures steps on this device; None where nothing does."""
    return CudaGraphs(device) if device.type == "cuda" else None


def make_engine(
    step: TrainingStep, network: Network, machine: Machine, *, checkpointing: bool
) -> StepEngine:
    """The engine that `step_engine` asks for, or the eager one, with the reason as a notice."""
    device, asked = step.accelerator.device, machine.step_engine
    if asked == "eager" or machine.dynamo_backend != "no":  # the latter told by the plan
        return EagerEngine(step)
    recorder = recorder_for(device)
    if recorder is None:
        told = f"step_engine = graph has no effect: {describe(device)} has no graphs"
        return EagerEngine(step, [told] if asked == "graph" else [])
    if reason := _cannot_be_replayed(step, network, checkpointing=checkpointing):
        return EagerEngine(
            step, [f"the steps are made call by call (step_engine = eager): {reason}"]
        )
    return GraphEngine(step, recorder, insists=asked == "graph")


def _cannot_be_replayed(step: TrainingStep, network: Network, *, checkpointing: bool) -> str:
    """Why a step of this network is not the same calls every time; "" where it is."""
    if step.is_sharded:
        return "with shard_base the processes gather weights in every step, waiting for each other"
    if network.decides_on_host:
        return (
            "module_dropout and DyLoRA draw which calls a step is made of, and a recorded step "
            "makes the same ones every time"
        )
    if network.draws and checkpointing:
        return DRAWN_TWICE
    return ""
