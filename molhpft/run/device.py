"""The machine of a run: device, precision and processes, by Lightning Fabric."""

import logging
import os
import platform
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from molhpft.config.registry import ENCODERS
from molhpft.config.schema import RunConfig, finetunes
from molhpft.domains.extras import require
from molhpft.tuning.distributed import Machine


def settled(config: RunConfig, environment: Mapping[str, str] = os.environ) -> RunConfig:
    """The config with everything that depends on the machine written out.

    `device` is no longer "auto", nor is `precision` where anything is finetuned. Where `torchrun`
    or `srun` started this process among others, `devices` and `nodes` are theirs.

    Raises:
        ValueError: a device or precision that this machine does not have, or a number of devices
            or nodes other than what the launcher started.
    """
    device = _device(config)
    launched = _launched(environment)
    asked = {"devices": config.devices, "nodes": config.nodes}
    for (name, number), started in zip(asked.items(), launched or (), strict=False):
        if number not in (1, started):
            what = "processes a node" if name == "devices" else "nodes"
            raise ValueError(
                f"{name} is {number}, but {started} {what} were started; "
                f"leave {name} out where torchrun or srun starts them"
            )
    devices, nodes = launched or (config.devices, config.nodes)
    if device == "cuda" and devices > torch.cuda.device_count():
        raise ValueError(
            f"devices is {devices}, but PyTorch sees {torch.cuda.device_count()} GPUs here; "
            "set fewer, or device: cpu"
        )
    precision = _precision(config, device)
    return replace(config, device=device, devices=devices, nodes=nodes, precision=precision)


def launch(config: RunConfig) -> Machine:
    """The machine of a settled config; with several devices, this starts the other processes.

    Raises:
        MissingExtraError: there are several devices, and Lightning Fabric is not installed.
    """
    mixed = config.precision == "bf16-mixed"
    if config.devices * config.nodes == 1:
        device = torch.device(config.device, *([0] if config.device == "cuda" else []))
        return Machine(device=device, mixed=mixed)
    lightning_fabric = require("lightning_fabric", extra="parallel")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # it speaks up where an environment is one it might have joined and was not asked to
        warnings.filterwarnings("ignore", message=".*srun.*")
        fabric = lightning_fabric.Fabric(
            accelerator=config.device,
            devices=config.devices,
            num_nodes=config.nodes,
            strategy="ddp",
            precision="bf16-mixed" if mixed else "32-true",
        )
        fabric.launch()
    return Machine(fabric, fabric.device, mixed)


def hardware(config: RunConfig) -> str:
    """What a run of this config runs on here, in words: "AMD EPYC 7763, 2 threads"."""
    if _device(config) == "cuda":
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' * (threads > 1)}"


def _processor() -> str:
    # Linux tells the model here only
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _device(config: RunConfig) -> Literal["cpu", "cuda"]:
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise ValueError(
            "device is cuda, but PyTorch sees no GPU here; take device auto or cpu (--device)"
        )
    return "cuda" if available and config.device != "cpu" else "cpu"


def _precision(config: RunConfig, device: str) -> Literal["auto", 32, "bf16-mixed"]:
    """What "auto" means here: bfloat16 products where it pays, float32 elsewhere.

    It pays for the encoders that keep their sums in float32, on processors that multiply it.
    """
    # probing is in float32 everywhere, and its result should have one name
    if config.precision != "auto" or not finetunes(config):
        return config.precision
    fast = multiplies_bfloat16(device) and ENCODERS[config.encoder.name].mixed
    return "bf16-mixed" if fast else 32


def multiplies_bfloat16(device: str) -> bool:
    """Whether the device has units for products of bfloat16 numbers."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    capable: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported() and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )
    return capable


def _launched(environment: Mapping[str, str]) -> tuple[int, int] | None:
    """Processes a node and number of nodes, where torchrun or srun started this process."""
    if "TORCHELASTIC_RUN_ID" in environment:
        here = int(environment["LOCAL_WORLD_SIZE"])
        return here, int(environment["WORLD_SIZE"]) // here
    if "SLURM_STEP_ID" in environment and int(environment.get("SLURM_NTASKS", "1")) > 1:
        nodes = int(environment["SLURM_NNODES"])
        return int(environment["SLURM_NTASKS"]) // nodes, nodes
    return None
