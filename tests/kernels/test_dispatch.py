"""Which kernels serve which tensors."""

import logging
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from molhpft.kernels import cpu, dispatch
from molhpft.kernels.dispatch import VARIABLE, collate_kernel, kernels_for

ONES = torch.ones(2)


def test_float32_on_the_cpu_is_fused():
    assert kernels_for(ONES, torch.ones(3)) is cpu
    assert collate_kernel(torch.device("cpu")) is cpu.collate


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_reference_serves_every_other_dtype(dtype):
    assert kernels_for(ONES, ONES.to(dtype)) is None


def test_rows_of_nodes_may_be_bfloat16():
    assert kernels_for(ONES, rows=ONES.bfloat16()) is cpu
    assert kernels_for(ONES, rows=ONES.half()) is None


def test_the_reference_serves_a_device_without_kernels():
    assert kernels_for(ONES.to("meta")) is None
    assert kernels_for(ONES, rows=ONES.bfloat16().to("meta")) is None
    assert collate_kernel(torch.device("cuda")) is None


@pytest.fixture
def on_gpu():
    """A tensor that is on a GPU as far as it says; nothing can be computed on it."""
    dispatch._gpu.cache_clear()
    yield FakeTensor(FakeTensorMode(), torch.ones(2, device="meta"), torch.device("cuda:0"))
    dispatch._gpu.cache_clear()


def test_float32_on_a_gpu_is_fused_too(on_gpu):
    pytest.importorskip("triton", exc_type=ImportError)
    from molhpft.kernels import gpu

    assert kernels_for(on_gpu, on_gpu) is gpu
    assert kernels_for(on_gpu, ONES) is None


def test_the_reference_serves_a_gpu_without_triton_and_one_warning_says_so(
    on_gpu, monkeypatch, caplog
):
    monkeypatch.setitem(sys.modules, "triton", None)
    for name in ("gpu", "gpu_programs"):
        monkeypatch.delitem(sys.modules, f"molhpft.kernels.{name}", raising=False)
        monkeypatch.delattr(f"molhpft.kernels.{name}", raising=False)
    with caplog.at_level(logging.WARNING):
        assert kernels_for(on_gpu) is None
        assert kernels_for(on_gpu) is None
    (record,) = caplog.records
    assert "triton cannot be imported" in record.getMessage()


@pytest.mark.parametrize("ask", [lambda: kernels_for(ONES), lambda: collate_kernel(ONES.device)])
def test_the_variable_forces_the_reference_and_another_value_is_refused(ask, monkeypatch):
    monkeypatch.setenv(VARIABLE, "reference")
    assert ask() is None
    monkeypatch.setenv(VARIABLE, "numba")
    with pytest.raises(ValueError, match="MOLHPFT_KERNELS should be auto or reference, got 'numba"):
        ask()
