"""A fitted model: an ensemble of networks, what it was trained on and how far to trust it."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelHubMixin
from torch import Tensor

from molhpft.core.batch import Batch
from molhpft.core.network import Network
from molhpft.core.snapshot import EVALUATION_SIZE, inference
from molhpft.domains.hub import fetched
from molhpft.domains.molecules.fingerprints import unpacked
from molhpft.domains.molecules.graphs import GraphStore, graph_store
from molhpft.domains.molecules.reading import Described, described
from molhpft.estimator.prediction import Prediction
from molhpft.estimator.shape import Shape
from molhpft.estimator.storing import Parts, read_parts, write_parts
from molhpft.estimator.trust import Trust
from molhpft.experiments.folder import Json


class Model(
    ModelHubMixin,
    library_name="molhpft",
    license="mit",
    tags=["chemistry", "molecules", "graph-neural-network", "transfer-learning"],
):
    """Networks that answer together for molecules they have not seen.

    `save_pretrained`, `from_pretrained` and `push_to_hub` are those of huggingface_hub; a folder
    works offline.

    Args:
        shape: of the networks.
        networks: the members of the ensemble, which are averaged; the best validating one first.
        trust: calibration, sets and nearness.
        training_smiles: the molecules of the training split.
        about: how the model was made and what it scored, for people: JSON.
    """

    def __new__(cls, *_: Any, **__: Any) -> "Model":  # noqa: D102 - as any class
        # the mixin's own would copy all arguments into a config, which ours writes itself
        return object.__new__(cls)

    def __init__(
        self,
        shape: Shape,
        networks: Sequence[Network],
        trust: Trust,
        training_smiles: tuple[str, ...],
        about: Json,
    ) -> None:
        self.shape = shape
        self.networks = tuple(network.eval() for network in networks)
        self.trust = trust
        self.training_smiles = training_smiles
        self.about = about

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.networks[0].parameters()).device

    def predict(self, smiles: Sequence[str]) -> Prediction:
        """Answers for n molecules, row i for string i; all are in memory at a time."""
        return self.answers(described(smiles))

    def answers(
        self, molecules: Described, near: tuple[Tensor, Tensor] | None = None
    ) -> Prediction:
        """`predict` for molecules that are described already.

        Args:
            molecules: n of them.
            near: similarity to and number of the nearest training molecule, where they are known.
        """
        store = graph_store(molecules.graphs)
        rows = store.readable.nonzero().flatten()
        logits = self.logits(store, rows)
        together, objective = logits.mean(0), self.shape.objective
        one_by_one = torch.stack([self.trust.values(member, objective) for member in logits])
        similarity, nearest = near or self.trust.neighbours.nearest(unpacked(molecules.prints))
        return Prediction(
            readable=store.readable,
            values=_spread_out(self.trust.values(together, objective), rows, len(store)),
            spread=_spread_out(_deviation(one_by_one), rows, len(store)),
            sets=_spread_out(
                self.trust.sets(together, objective, similarity[rows]), rows, len(store)
            ),
            similarity=similarity.where(store.readable, torch.nan),
            nearest=nearest,
            in_domain=(similarity >= self.trust.near) & store.readable,
        )

    def logits(self, store: GraphStore, rows: Tensor) -> Tensor:
        """What each of k members says of m molecules, float32 (k, m, t) on the CPU."""
        with _all_in_eval_mode(self.networks):
            pieces = [
                torch.stack([network(batch) for network in self.networks]).float().cpu()
                for batch in self._batches(store, rows)
            ]
        empty = torch.empty(len(self.networks), 0, len(self.shape.targets))
        return torch.cat([empty, *pieces], dim=1)

    def features(self, store: GraphStore, rows: Tensor) -> Tensor:
        """Features of m molecules, those of all members side by side, float32 (m, k * d)."""
        with _all_in_eval_mode(self.networks):
            pieces = [
                torch.cat([network.features(batch) for network in self.networks], dim=1).cpu()
                for batch in self._batches(store, rows)
            ]
        return torch.cat(pieces) if pieces else torch.empty(0, self.width)

    @property
    def width(self) -> int:
        """Length of `features`."""
        return sum(network.backbone.width for network in self.networks)

    def _batches(self, store: GraphStore, rows: Tensor) -> Iterator[Batch]:
        for some in torch.split(rows, EVALUATION_SIZE):
            inputs = store.take(some).to(self.device)
            yield Batch(inputs, torch.empty(len(some), 0, device=self.device))

    def _save_pretrained(self, save_directory: Path) -> None:
        parts = Parts(
            shape=self.shape,
            networks=self.networks,
            trust=self.trust,
            training_smiles=self.training_smiles,
            about=self.about,
        )
        write_parts(parts, save_directory)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **model_kwargs: Any,
    ) -> "Model":
        """The model in a folder, or else on the hub under a name; see huggingface_hub.

        Args:
            pretrained_model_name_or_path: of the folder, or `owner/name`.
            force_download: whether to fetch again what the cache has.
            token: for the hub.
            cache_dir: where the hub's files are kept.
            local_files_only: whether to leave the hub alone.
            revision: branch, tag or commit on the hub.
            model_kwargs: none; a model has no options.

        Raises:
            FileNotFoundError: neither has a model, or the hub cannot be reached.
            ValueError: the model is damaged or of a newer version, or an option is not known.
        """
        if model_kwargs:
            raise ValueError(f"a model has no options to load it with, got {list(model_kwargs)}")
        # not the mixin's, which would read a folder's config.json by itself and trip over a bad one
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            folder = fetched(
                str(pretrained_model_name_or_path),
                force_download=force_download,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                revision=revision,
            )
        return cls(**read_parts(folder))


@contextmanager
def _all_in_eval_mode(networks: Sequence[Network]) -> Iterator[None]:
    with ExitStack() as stack:
        for network in networks:
            stack.enter_context(inference(network))
        yield


def _deviation(members: Tensor) -> Tensor:
    """Standard deviation over the first axis; `Tensor.std` warns where the others are empty."""
    return (members - members.mean(0)).square().mean(0).sqrt()


def _spread_out(found: Tensor, rows: Tensor, n: int) -> Tensor:
    """Rows of n molecules, of which those not in `rows` have no answer."""
    nothing = False if found.dtype == torch.bool else torch.nan
    whole = torch.full((n, *found.shape[1:]), nothing, dtype=found.dtype)
    whole[rows] = found
    return whole
