"""Which kernels serve which tensors."""

import logging
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from molhpft.kernels import cpu, dispatch
from molhpft.kernels.dispatch import VARIABLE, kernels_for
from molhpft.kernels.ops import propagate
from tests.kernels.random_graphs import STAR, draw_leaves


def test_float32_on_the_cpu_is_fused():
    assert kernels_for(torch.ones(2), torch.ones(3)) is cpu


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_every_other_dtype_goes_by_the_reference(dtype):
    assert kernels_for(torch.ones(2), torch.ones(2, dtype=dtype)) is None


def test_rows_of_nodes_may_be_bfloat16():
    rows = torch.ones(2, dtype=torch.bfloat16)
    assert kernels_for(torch.ones(3), rows=rows) is cpu
    assert kernels_for(torch.ones(3), rows=rows.half()) is None
    assert kernels_for(torch.ones(3), rows=rows.to("meta")) is None


def test_a_device_without_kernels_goes_by_the_reference():
    assert kernels_for(torch.ones(2, device="meta")) is None


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
    assert kernels_for(on_gpu, torch.ones(2)) is None


def test_a_gpu_without_triton_goes_by_the_reference_and_one_warning_says_so(
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


def test_the_variable_forces_the_reference(monkeypatch):
    monkeypatch.setenv(VARIABLE, "reference")
    assert kernels_for(torch.ones(2)) is None
    out = propagate(draw_leaves((61, 3))[0], STAR)
    assert type(out.grad_fn).__name__ != "_FusedBackward"


def test_another_value_of_the_variable_is_refused_with_the_choices(monkeypatch):
    monkeypatch.setenv(VARIABLE, "numba")
    with pytest.raises(
        ValueError, match="MOLHPFT_KERNELS should be auto or reference, got 'numba'"
    ):
        kernels_for(torch.ones(2))
