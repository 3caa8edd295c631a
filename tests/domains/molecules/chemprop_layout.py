"""Files laid out as chemprop 2 writes them, with random weights and plain hyper-parameters."""

import torch
from torch import nn


def passing_tensors(width, *, bias=False):
    rng = torch.Generator().manual_seed(0)
    shapes = {"W_i.weight": (width, 86), "W_h.weight": (width, width)}
    shapes |= {"W_o.weight": (width, 72 + width), "W_o.bias": (width,)}
    shapes |= {"W_i.bias": (width,), "W_h.bias": (width,)} if bias else {}
    return {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def passing_file(path, width=6, *, bias=False, extra=(), **settings):
    """Message passing alone, laid out as CheMeleon's file."""
    theirs = {**passing_tensors(width, bias=bias), **dict(extra)}
    file = {
        "hyper_parameters": {**passing_settings(width, bias=bias), **settings},
        "state_dict": theirs,
    }
    torch.save(file, path)
    return theirs


def passing_settings(width, *, bias=False):
    plain = {"d_v": 72, "d_e": 14, "d_h": width, "bias": bias, "depth": 3, "undirected": False}
    return {**plain, "activation": "relu"}


def model_file(path, width=6, *, pooling=None, batch_norm=False):
    """A whole model: message passing, aggregation, perhaps a batch norm, and a predictor."""
    pooling = pooling or {"cls": "NormAggregation", "norm": 100}
    settings = {"message_passing": passing_settings(width), "agg": pooling}
    theirs = {f"message_passing.{name}": t for name, t in passing_tensors(width).items()}
    if batch_norm:
        norm = nn.BatchNorm1d(width)
        nn.init.uniform_(norm.running_var)
        theirs |= {f"bn.{name}": t for name, t in norm.state_dict().items()}
    theirs["predictor.ffn.0.0.weight"] = torch.zeros(1, width)
    torch.save({"hyper_parameters": settings, "state_dict": theirs}, path)
    return theirs
