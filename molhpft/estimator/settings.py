"""From a user's few words to the config of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from molhpft.domains.molecules.checkpoints import fitting_encoder
from molhpft.domains.weights import read_weights
from molhpft.experiments.config import Choice, RunConfig, parse_config
from molhpft.experiments.options import Options

Encoder = str | Path | Mapping[str, Any]
Tau = int | Literal["auto"] | tuple[int, ...]

# what validated best in configs/sweeps/default_settings.yaml and is not a config's own default
HEAD = "mlp"
_FINETUNE: Options = {"batch_size": 32}

IN_MEMORY = Choice("table", {})
"""The task of a config whose molecules are no file."""


def settings(
    *,
    encoder: Encoder,
    tau: Tau,
    head: str | Mapping[str, Any],
    seed: int,
    more: Mapping[str, Any],
    task: Choice = IN_MEMORY,
) -> RunConfig:
    """The config of a model.

    Args:
        encoder: name of a shipped encoder or path of a weight file, whose encoder is recognised; or
            the keys of a config's `encoder`, such as `{"name": "gcn"}` for random weights.
        tau: epochs of head probing, one or several, or "auto".
        head: as in a config.
        seed: of every random number.
        more: further keys of a config: `finetune`, `probe`, `device`, `cut`, ...; one that is also
            given above stands instead of it. Where `finetune` says nothing else, batches are of 32.
        task: of the config.

    Raises:
        FileNotFoundError: there is no such weight file.
        ValueError: a key or value does not fit, or the weights are of no known encoder.
    """
    taus = tau if isinstance(tau, str) else list(tau) if isinstance(tau, tuple | list) else [tau]
    raw: Options = {
        "method": {"name": "hp_ft", "tau": taus},
        "encoder": _encoder(encoder),
        "head": head,
        "seed": seed,
    }
    finetune = more.get("finetune", {})
    if isinstance(finetune, Mapping):
        finetune = {**_FINETUNE, **finetune}
    return parse_config({**raw, **more, "finetune": finetune}, task=task)


def _encoder(given: Encoder) -> Options:
    if isinstance(given, Mapping):
        return dict(given)
    path = Path(given)
    return {**fitting_encoder(read_weights(path)), "weights": str(path)}
