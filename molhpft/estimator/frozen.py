"""Features of molecules by networks that are not trained further, row for row in bounded memory."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from itertools import islice
from pathlib import Path
from typing import Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from molhpft.config.registry import ENCODERS
from molhpft.config.schema import checked_choice
from molhpft.core.determinism import deterministic_on_gpus, half_the_threads
from molhpft.core.evaluate import EVALUATION_SIZE, inference
from molhpft.core.network import Batch, Chain
from molhpft.domains.molecules.featurized import Featurized, Reading, featurized_parts
from molhpft.domains.molecules.further_columns import store_beside
from molhpft.domains.molecules.graphs import GraphStore


class Embedder(Protocol):
    """What has features of molecules: a model, or an encoder alone."""

    @property
    def width(self) -> int:
        """Number of features."""

    @property
    def beside(self) -> tuple[Reading, ...]:
        """What features have behind those of an encoder, which stores have to hold."""

    def features(self, store: GraphStore, rows: Tensor) -> Tensor:
        """Features of the molecules `rows` (m,), float32 (m, width) on the CPU."""


@final
class FrozenEncoder:
    """A pretrained encoder without a head.

    Args:
        backbone: of molecules, with its weights.
    """

    def __init__(self, backbone: Chain) -> None:
        self._backbone = backbone.eval()

    @property
    def width(self) -> int:
        """Number of features."""
        return self._backbone.width

    @property
    def beside(self) -> tuple[Reading, ...]:
        """Nothing: its features are those of the encoder alone."""
        return ()

    def features(self, store: GraphStore, rows: Tensor) -> Tensor:
        """Features of the molecules `rows` (m,), float32 (m, width) on the CPU."""
        return backbone_features([self._backbone], store, rows)


def frozen_encoder(weights: str | Path) -> FrozenEncoder:
    """`pretrained_backbone` as what has features of molecules.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no encoder of molecules takes the file.
    """
    return FrozenEncoder(pretrained_backbone(weights))


def pretrained_backbone(weights: str | Path) -> Chain:
    """The encoder of a weight file, which says its kind and shape, with its weights.

    Args:
        weights: name of a shipped encoder, path of a weight file or of a model's folder, or
            `hub:owner/name`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: no encoder of molecules takes the file.
    """
    choice = checked_choice("encoder", {"weights": str(weights)})
    options = {key: value for key, value in choice.options.items() if key != "weights"}
    encoder = ENCODERS[choice.name]
    backbone = encoder.build(**options)
    encoder.load(backbone, Path(weights))
    return backbone


def backbone_features(backbones: Sequence[Chain], store: GraphStore, rows: Tensor) -> Tensor:
    """Features of m molecules, those of all backbones side by side, float32 (m, k * d) on the CPU.

    Args:
        backbones: k of them, on one device.
        store: molecules.
        rows: of those that are embedded, int64 (m,).
    """
    device = next(backbones[0].parameters()).device
    with ExitStack() as stack:
        for backbone in backbones:
            stack.enter_context(inference(backbone))
        parts = [
            torch.cat([backbone(batch.inputs, batch) for backbone in backbones], dim=1).cpu()
            for batch in unlabelled_batches(store, rows, device)
        ]
    return torch.cat(parts) if parts else torch.empty(0, sum(b.width for b in backbones))


def unlabelled_batches(store: GraphStore, rows: Tensor, device: torch.device) -> Iterator[Batch]:
    """Batches of the molecules `rows` (m,) in their order, without targets, on a device."""
    for some in torch.split(rows, EVALUATION_SIZE):
        yield Batch(store.take(some).to(device), torch.empty(len(some), 0, device=device))


@deterministic_on_gpus()
def part_features(embedder: Embedder, molecules: Featurized) -> tuple[Tensor, Tensor]:
    """Which molecules can be read, bool (n,), and features (n, width), NaN for the others."""
    store = store_beside(molecules, embedder.beside)
    rows = store.readable.nonzero().flatten()
    z = torch.full((len(store), embedder.width), torch.nan)
    z[rows] = embedder.features(store, rows)
    return store.readable, z


def smiles_features(
    embedder: Embedder, smiles: Sequence[str], *, size: int = 2 * EVALUATION_SIZE
) -> NDArray[np.float32]:
    """Features of SMILES strings, (n, width); NaN where a string cannot be read as a molecule.

    Beside the result only a few parts are in memory at a time.

    Args:
        embedder: a model or an encoder.
        smiles: (n,).
        size: strings in a part, which is read by one process while others are embedded.
    """
    z = np.empty((len(smiles), embedder.width), dtype=np.float32)
    strings, begin = iter(smiles), 0
    parts = iter(lambda: list(islice(strings, size)), [])
    with half_the_threads() if len(smiles) > size else nullcontext():
        for molecules in featurized_parts(parts, lambda part: part, embedder.beside):
            end = begin + len(molecules.smiles)
            z[begin:end] = part_features(embedder, molecules)[1].numpy()
            begin = end
    return z


def feature_names(embedder: Embedder) -> list[str]:
    """Names of the columns of features: `z0`, `z1`, ..."""
    return [f"z{k}" for k in range(embedder.width)]
