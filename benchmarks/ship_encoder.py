r"""Write the encoder of a finished pretraining run as a shipped encoder: weights, molecules, card.

    python benchmarks/encoders.py --encoders RUN/model.safetensors gcn_structure > probes.md
    python benchmarks/ship_encoder.py RUN --config configs/pretrain/structure_gcn.yaml \
        --name gcn_structure --projection 1024 --half --licences benchmarks/licences.md \
        --probes probes.md --ablation ablation.md

RUN is the run folder. The card is printed from it, from a leak check by InChIKey against the sets
and tables of the config's `without` and of `--against`, and from the Markdown of the files that are
named. `--half` rounds the weights to float16. `--projection` appends a linear map of the features,
see `projected`.
"""

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from run_configs import split_header
from safetensors.torch import save
from torch import Tensor

from molhpft.config.changes import read_config
from molhpft.config.options import keywords
from molhpft.config.schema import RunConfig, load_config, parse_config, resolved
from molhpft.domains.molecules.ogb import ogb_names, ogb_task
from molhpft.domains.molecules.overlap import MoleculeSet, inchikey_blocks, is_among
from molhpft.domains.molecules.pretraining_sources import molecules_trained_on, tested_on
from molhpft.domains.shipped import SHIPPED
from molhpft.domains.weights import ABOUT, read_weights
from molhpft.run.folder import RunFolder

MOST = 12_000_000  # bytes: a shipped encoder is installed with every copy of the package
PREFIX = "backbone."
PROJECT = f"{PREFIX}stages.project.module.weight"
HEAD = "head.stages.linear.module.weight"
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Source:
    """A finished pretraining run and the config that it was run by."""

    folder: RunFolder
    config: RunConfig
    path: Path


@dataclass(frozen=True)
class Sections:
    """Markdown of the card that is written by others.

    Attributes:
        licences: of the data.
        probes: how the features do on other sets.
        ablation: what else was tried; may be empty.
    """

    licences: str
    probes: str
    ablation: str = ""


def read_source(folder: Path, path: Path) -> Source:
    """The run, if it is complete and that config's.

    Raises:
        ValueError: it is not.
    """
    run_folder = RunFolder(folder)
    if not run_folder.is_complete:
        raise ValueError(f"{folder} should be a finished run; it has no summary.json")
    config = load_config(path)
    # a run of an earlier version wrote down what did nothing in it
    written = parse_config(read_config(folder / "config.yaml"), unused_are="dropped")
    ran = replace(written, checkpoint=config.checkpoint)
    if resolved(ran) != resolved(config):
        raise ValueError(f"{folder} should be a run of {path}; its config.yaml says otherwise")
    return Source(run_folder, config, path)


def encoder_tensors(source: Source, *, half: bool, projection: int | None) -> dict[str, Tensor]:
    """The weights of the run's encoder alone.

    Args:
        source: the run.
        half: whether to round to float16 what it can hold; statistics of batch norms and weights
            beyond 65,504 stay float32.
        projection: length of features after `projected`; None leaves them as they are.
    """
    saved = read_weights(source.folder.path / "model.safetensors").tensors
    own = {name: tensor for name, tensor in saved.items() if name.startswith(PREFIX)}
    if projection is not None:
        own[PROJECT] = projected(saved[HEAD], projection)
    return {name: (halved(t) if half else t).contiguous() for name, t in own.items()}


def projected(head: Tensor, width: int) -> Tensor:
    """A linear map to features whose distances are those between predicted targets, (width, d).

    The targets that a linear head predicts are projected at random, which keeps their distances
    (Johnson and Lindenstrauss, 1984) and spreads every target over all features: standardised, a
    feature of its own would count as much for one rare substructure as for all common ones.

    Args:
        head: weights of the linear head of the pretraining, (targets, d).
        width: number of features.
    """
    rng = torch.Generator().manual_seed(0)
    random = torch.randn(width, len(head), generator=rng, dtype=torch.float64)
    return (random @ head.double() / width**0.5).float()


def halved(tensor: Tensor) -> Tensor:
    """A tensor of real numbers in float16, if none of them becomes infinite; any other as it is."""
    if not tensor.is_floating_point():
        return tensor
    rounded = tensor.half()
    return rounded if rounded.isfinite().all() else tensor


def write_encoder(source: Source, file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write weights with what the run says about them, and the length of a projection.

    Raises:
        ValueError: the file would be larger than `MOST`; nothing is written.
    """
    about = read_weights(source.folder.path / "model.safetensors").about
    if PROJECT in tensors:
        about["config"]["encoder"]["projection"] = len(tensors[PROJECT])
    content = save(dict(tensors), metadata={ABOUT: json.dumps(about)})
    if len(content) > MOST:
        raise ValueError(
            f"{file.stem} should have at most {MOST / 1e6:.0f} MB to be shipped, it has "
            f"{len(content) / 1e6:.1f}; write half precision (--half) or train a smaller one"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def precision(tensors: Mapping[str, Tensor]) -> str:
    """In which format real numbers are stored, and that they are loaded as float32."""
    kinds = {name: t.dtype for name, t in tensors.items() if t.is_floating_point()}
    if torch.float16 not in kinds.values():
        return "float32"
    kept = [name for name, kind in kinds.items() if kind != torch.float16]
    but = f" but for {len(kept)} tensors that it cannot hold ({', '.join(kept)})" if kept else ""
    return f"stored in float16{but}, loaded as float32"


def trained_on(source: Source) -> tuple[NDArray[np.bytes_], NDArray[np.bytes_]]:
    """InChIKey blocks of the training molecules, and of those that no `without` would leave out.

    Raises:
        ValueError: they are not as many as the run trained on.
    """
    options = source.config.task.options
    known = keywords(molecules_trained_on)
    given = {key: value for key, value in options.items() if key in known}
    used = molecules_trained_on(**given)
    expected = source.folder.read_json("summary.json")["sizes"]["train"]
    if len(used) != expected:
        raise ValueError(
            f"{source.folder.path} trained on {expected:,} molecules; the data at hand give "
            f"{len(used):,}: put the files that it was trained on in their places"
        )
    everything = molecules_trained_on(**{**given, "without": ()})
    blocks, left = inchikey_blocks(everything), set(used)
    return blocks[np.array([smiles in left for smiles in everything])], blocks


def tested_blocks(name: str) -> dict[str, NDArray[np.bytes_]]:
    """InChIKey blocks of each split of an OGB set, or of `all` molecules of tables."""
    if name not in ogb_names():
        return {"all": tested_on(Path(name))}
    task = ogb_task(name)
    blocks = inchikey_blocks(task.examples.smiles)
    return {split: blocks[rows.numpy()] for split, rows in task.splits.items()}


def leak_table(
    source: Source,
    against: Sequence[str],
    used: NDArray[np.bytes_],
    everything: NDArray[np.bytes_],
) -> list[str]:
    """Markdown: how many molecules of each split were trained on, and how many would have been.

    Args:
        source: of the encoder.
        against: sets and tables.
        used: InChIKey blocks of the training molecules.
        everything: those that could have been.

    Raises:
        ValueError: molecules that the config leaves out were trained on.
    """
    left_out = each(source.config.task.options["without"])
    lines = ["| data set | split | molecules | trained on | without leaving any out |", "|---" * 5]
    lines[1] += "|"
    for name in against:
        for split, theirs in tested_blocks(name).items():
            counts = [int(is_among(theirs, ours).sum()) for ours in (used, everything)]
            if counts[0] and name in left_out and split != "train":
                raise ValueError(
                    f"{counts[0]:,} of {len(theirs):,} molecules of {name} ({split}) were trained "
                    f"on, though {source.path} leaves them out: the data have changed since"
                )
            lines.append(f"| {name} | {split} | {len(theirs):,} | {counts[0]:,} | {counts[1]:,} |")
    return lines


def training_section(source: Source, command: str) -> str:
    """Markdown: the command, how much was trained on, and the losses of some epochs.

    The last epoch's validation loss is that of the finished network; of others it is known only
    where validation chose the epoch.
    """
    summary, folder = source.folder.read_json("summary.json"), source.folder
    rows = [row for row in folder.read_lines("history.jsonl") if row["phase"] == "finetune"]
    chosen = {"first": rows[0], "last": rows[-1]}
    if "valid" in rows[0]:
        best = max(rows, key=lambda row: row["valid"])
        chosen = {"first": rows[0], "best": best, "last": rows[-1]}
    else:
        rows[-1]["valid"] = summary["branches"][0]["final"]["valid"]
    losses = [
        f"{-row['valid']:.4f}" if "valid" in row else "not computed" for row in chosen.values()
    ]
    lines = [
        f"| {row['epoch']} ({what}) | {row['loss']:.4f} | {loss} |"
        for (what, row), loss in zip(chosen.items(), losses, strict=True)
    ]
    return "\n".join(
        [
            f"```bash\n{command}\n```\n",
            f"{len(rows)} epochs of {summary['epoch_size']:,} molecules. Loss:\n",
            "| epoch | training loss | validation loss |\n|---|---|---|",
            *lines,
        ]
    )


def each(value: Any) -> list[str]:
    """What an option lists, as text; one value is a list of it, None is none."""
    if value is None:
        return []
    return [str(one) for one in value] if isinstance(value, list | tuple) else [str(value)]


def data_section(source: Source, leaks: Sequence[str]) -> list[str]:
    """Markdown: sources, targets, which epoch was kept, and what was left out."""
    summary, config = source.folder.read_json("summary.json"), source.config
    options, sizes = config.task.options, summary["sizes"]
    sources, most, share = (each(options.get(key)) for key in ("of", "most", "share"))
    rows = [
        "| source | at most | share of an epoch |",
        "|---|---|---|",
        *(
            f"| `{name}` | {_of(most, k, 'all')} | {_of(share, k, '1')} |"
            for k, name in enumerate(sources)
        ),
    ]
    targets, weights = each(options["targets"]), each(options.get("weights"))
    weighed = ", ".join(f"{t} (weight {_of(weights, k, '1')})" for k, t in enumerate(targets))
    kept = "of least loss on" if config.finetune.keep == "best" else "last; the loss is that of"
    part = "the training splits" if options["use"] == "train" else "all"
    return [
        *rows,
        "",
        f"Of these, {part}: {sizes['train']:,} molecules, {summary['outputs']:,} targets: "
        f"{weighed}. Epoch: the one {kept} {sizes['valid']:,} validation molecules.",
        "",
        "Left out of pretraining were the molecules that these sets validate or test on, and all "
        f"molecules of these tables: {', '.join(each(options['without'])) or 'none'}.",
        "",
        "Molecules of other sets that were trained on, by the first block of the InChIKey "
        "(connectivity) without counter-ions:",
        "",
        *leaks,
    ]


def _of(values: Sequence[str], k: int, otherwise: str) -> str:
    """The k-th of several values, a lone one for all, or the default where there is none."""
    if not values:
        return otherwise
    return values[0] if len(values) == 1 else values[k]


def card(
    source: Source,
    file: Path,
    tensors: Mapping[str, Tensor],
    *,
    leaks: Sequence[str],
    sections: Sections,
) -> str:
    """The model card, as Markdown."""
    encoder, (_, command, _) = source.config.encoder, split_header(source.path.read_text())
    shown = {k: v for k, v in encoder.options.items() if k not in ("weights", "projection")}
    shape = ", ".join(f"{k} {v}" for k, v in shown.items())
    parameters = sum(t.numel() for name, t in tensors.items() if not name.endswith(_BUFFERS))
    if PROJECT in tensors:
        shape += f", and a random projection of the targets it predicts to {len(tensors[PROJECT])}"
    parts = {
        "Data": "\n".join(data_section(source, leaks)),
        "Licences": sections.licences,
        "Training": training_section(source, command),
        "Probes": sections.probes,
        "Ablation": sections.ablation,
    }
    return "\n\n".join(
        [
            f"# {file.stem}",
            f"Encoder `{encoder.name}` ({shape}; {parameters:,} parameters, {precision(tensors)}), "
            f"pretrained by `{source.path}`.",
            f"Use: `encoder: {{weights: {file.stem}}}`.",
            f"sha256: `{hashlib.sha256(file.read_bytes()).hexdigest()}`",
            *(f"## {title}\n\n{text.strip()}" for title, text in parts.items() if text),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the three files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--half", action="store_true", help="write float16")
    parser.add_argument(
        "--projection",
        type=int,
        help="length of features: predicted targets, projected",
    )
    parser.add_argument("--against", nargs="+", default=[], help="further sets and tables")
    for name, what in (("licences", "of the data"), ("probes", "printed by encoders.py")):
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"Markdown, {what}")
    parser.add_argument("--ablation", type=Path, help="Markdown, what else was tried")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    given = parser.parse_args(arguments)
    source, file = read_source(given.run, given.config), given.out / f"{given.name}.safetensors"
    sections = Sections(
        given.licences.read_text(),
        given.probes.read_text(),
        given.ablation.read_text() if given.ablation else "",
    )
    against = dict.fromkeys([*each(source.config.task.options["without"]), *given.against])
    used, everything = trained_on(source)
    leaks = leak_table(source, list(against), used, everything)
    tensors = encoder_tensors(source, half=given.half, projection=given.projection)
    write_encoder(source, file, tensors)
    file.with_suffix(".molecules").write_bytes(MoleculeSet.of(used).to_bytes())
    text = card(source, file, tensors, leaks=leaks, sections=sections)
    file.with_suffix(".md").write_text(f"{text}\n")
    print(text)


if __name__ == "__main__":
    main()
