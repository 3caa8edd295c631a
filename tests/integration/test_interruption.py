"""Runs as processes: killed and resumed, started twice, and shared by two processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from molhpft.config.schema import parse_config
from molhpft.run.run import run

CONFIG = {
    "task": {"name": "csv", "target_columns": ["ring"], "split": "random"},
    "encoder": {"name": "gcn", "layers": 2, "width": 16, "dropout": 0.2},
    "method": {"name": "hp_ft", "tau": [2]},
    "probe": {"lr": 0.01},
    "finetune": {"epochs": 12, "lr": 0.003, "keep": "best", "batch_size": 8, "schedule": "cosine"},
    "checkpoint": 3,
    "device": "cpu",
}
STEPS = 12 * 8  # epochs times batches of the 64 training molecules


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "rings.csv"
    rows = [f"{'C' * n}O,0\nC1{'C' * n}1N,1" for n in range(3, 43)]
    path.write_text("\n".join(["smiles,ring", *rows]) + "\n")
    return path


def raw_config(table, **changes):
    return {**CONFIG, **changes, "task": {**CONFIG["task"], "path": str(table)}}


def start(table, folder, **changes):
    """A run of its own process, in a session that can be killed whole."""
    config = folder / "config.yaml"
    folder.mkdir(exist_ok=True)
    config.write_text(yaml.safe_dump(raw_config(table, **changes)))
    command = [sys.executable, "-m", "molhpft.cli", "run", str(config), "--out", str(folder)]
    # what a shell runs in the background ignores Ctrl-C, and so would all that it starts
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def finish(process):
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def files_of(folder: Path):
    (run,) = [p for p in folder.iterdir() if p.is_dir()]
    names = ("model.safetensors", "history.jsonl", "summary.json")
    return {name: (run / name).read_bytes() for name in names}


def saved_steps(folder: Path):
    """Steps of finetuning that the run under way has kept; 0 before the first."""
    for path in folder.glob("*.partial/resume/phase-*.safetensors"):
        kept = load_file(path)
        return int(max(v.max() for k, v in kept.items() if k.endswith(".step")))
    return 0


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_resumes_to_the_same_bytes(how, table, tmp_path):
    """As a process it is killed; before and after it is this one, which has imported all."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(parse_config(raw_config(table)), whole)
    process = start(table, killed)
    while saved_steps(killed) < STEPS // 2:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.001)
    os.killpg(process.pid, how)
    said, _ = process.communicate()
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert said.splitlines()[-1] == (
            "interrupted; the same command goes on from what it has kept"
        )
    assert [p.suffix for p in killed.iterdir() if p.is_dir()] == [".partial"]
    run(parse_config(raw_config(table)), killed)
    assert files_of(killed) == files_of(whole)


@pytest.mark.slow
def test_the_same_run_started_twice_waits_for_the_first_and_gives_the_same(table, tmp_path):
    first = start(table, tmp_path / "runs")
    while not saved_steps(tmp_path / "runs"):
        assert first.poll() is None, first.stdout.read()
        time.sleep(0.001)
    os.killpg(first.pid, signal.SIGSTOP)  # so that it cannot end before the second one waits
    second = start(table, tmp_path / "runs")
    waiting = second.stdout.readline()
    os.killpg(first.pid, signal.SIGCONT)
    assert waiting.startswith("waiting for ")
    assert f"on which process {first.pid} on " in waiting
    assert finish(first) == finish(second)
    finish(start(table, tmp_path / "alone"))
    assert files_of(tmp_path / "runs") == files_of(tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["auto", "reference"])
def test_two_processes_train_as_one_does(table, tmp_path, monkeypatch, kernels):
    monkeypatch.setenv("MOLHPFT_KERNELS", kernels)
    encoder = {**CONFIG["encoder"], "dropout": 0.0}
    # Adam would not notice gradients that are scaled by the number of processes
    finetune = {**CONFIG["finetune"], "optimizer": "sgd", "lr": 0.05}
    folders = [tmp_path / str(devices) for devices in (1, 2)]
    for devices, folder in enumerate(folders, start=1):
        changes = {"encoder": encoder, "finetune": finetune, "devices": devices}
        said = finish(start(table, folder, precision=32, **changes))
        assert said.count("Run folder") == 1
    one, two = (load_file(next(f.glob("*/model.safetensors"))) for f in folders)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4, msg=name)
