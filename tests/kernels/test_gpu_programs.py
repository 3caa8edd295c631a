"""GPU kernels are compiled for GPUs, down to machine code, on whatever machine the tests run."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton.backends.nvidia", exc_type=ImportError)

# a fresh process: this one may have imported triton as an interpreter
COMPILE = """
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

class Target:
    '''Stands for the driver of a GPU; compiling asks it for the generation and no more.'''

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

driver.set_active(Target())

from molhpft.kernels import gpu
from molhpft.kernels.reference import Finish
from tests.kernels.random_graphs import STAR, draw_leaves

machine_code = []

def compiled(program, grid, *arguments):
    options = {"enable_fp_fusion": False}
    machine_code.append(program.warmup(*arguments, grid=grid, **options).asm["cubin"])

gpu._launch = compiled
bond, root, table = (leaf.detach() for leaf in draw_leaves((60, 300), (300,), (61, 300)))
for dtype, relu, dropout in ((torch.float32, True, 0.5), (torch.bfloat16, False, 0.0)):
    x, finish = table.to(dtype), Finish(relu=relu, dropout=dropout, seed=2**63 - 1)
    gpu.convolve(x, bond, root, STAR)
    gpu.convolve_backward(x, x, bond, root, STAR)
    gpu.propagate(x, STAR)
    gpu.embed_backward(x, torch.zeros(61, 9, dtype=torch.long), 174)
    gpu.moments(x)
    gpu.activate(x, root, root, finish)
    gpu.activate_sums(x, x, root, root, finish, root)
    gpu.activate_backward(x, x, root, root, finish, root, root)
print(len([code for code in machine_code if code.startswith(b"\\x7fELF")]))
"""


def test_every_program_compiles_for_a_gpu(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", COMPILE],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["18"]
