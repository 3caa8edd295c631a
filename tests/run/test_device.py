"""The machine of a run: what "auto" means, and how many processes there are."""

import pytest
import torch

from molhpft.config.schema import parse_config, resolved
from molhpft.run.device import hardware, launch, multiplies_bfloat16, settled

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}
SRUN = {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "6", "SLURM_NNODES": "2"}


def config(**changes):
    return parse_config({"task": "nci_alerts", **changes})


def test_nothing_stays_open_and_what_is_asked_for_is_kept():
    settled_config = settled(config(), {})
    assert settled_config.device in ("cpu", "cuda")
    assert settled_config.precision in (32, "bf16-mixed")
    assert settled(settled_config, {}) == settled_config
    for precision in (32, "bf16-mixed"):
        assert settled(config(precision=precision), {}).precision == precision


def test_probing_has_one_name_whatever_this_machine_finetunes_in():
    probed = config(method="lp")
    assert settled(probed, {}).precision == "auto"
    assert parse_config(resolved(settled(probed, {}))).precision == "auto"


def test_bfloat16_is_for_encoders_that_round_only_products():
    graphs = settled(config(device="cpu"), {})
    assert (graphs.precision == "bf16-mixed") == multiplies_bfloat16("cpu")
    images = settled(config(device="cpu", encoder="resnet"), {})
    assert images.precision == 32


@pytest.mark.parametrize(
    ("environment", "devices", "nodes"),
    [
        (TORCHRUN, 4, 2),
        (SRUN, 3, 2),
        # an allocation without srun
        ({key: value for key, value in SRUN.items() if key != "SLURM_STEP_ID"}, 1, 1),
        ({}, 1, 1),
    ],
)
def test_processes_are_those_a_launcher_started(environment, devices, nodes):
    launched = settled(config(device="cpu"), environment)
    assert (launched.devices, launched.nodes) == (devices, nodes)


def test_a_number_of_devices_that_contradicts_the_launcher_is_refused():
    with pytest.raises(ValueError, match="devices is 2, but 4 processes a node were started"):
        settled(config(device="cpu", devices=2), TORCHRUN)
    with pytest.raises(ValueError, match="nodes is 3, but 2 nodes were started; leave nodes out"):
        settled(config(device="cpu", devices=4, nodes=3), TORCHRUN)


def test_a_gpu_that_is_not_there_is_an_error():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="device is cuda, but PyTorch sees no GPU here"):
        settled(config(device="cuda"), {})


def test_a_machine_of_one_process_multiplies_in_the_precision_that_was_asked_for():
    a = torch.randn(3, 4)
    for precision, dtype in ((32, torch.float32), ("bf16-mixed", torch.bfloat16)):
        machine = launch(settled(config(device="cpu", precision=precision), {}))
        assert (machine.processes, machine.rank) == (1, 0)
        with machine.autocast():
            assert (a @ a.T).dtype == dtype


@pytest.mark.parametrize(("threads", "words"), [(1, "1 thread"), (2, "2 threads")])
def test_hardware_is_named_with_the_threads_that_are_used(threads, words):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        processor, _, counted = hardware(config(device="cpu")).rpartition(", ")
    finally:
        torch.set_num_threads(before)
    assert counted == words
    assert processor.strip()
