"""Every method from three encoders on Tox21 at one budget: scores, calibration, energy and shift.

    python benchmarks/methods.py --weights FOLDER --seeds 5

The methods and the budget are in `methods.yaml`: the same training molecules, epochs, rate, batch
and optimizer of finetuning for all. FOLDER holds gcn_supervised_contextpred.pth and
chemprop_admet_classification.pt. Before the table of an encoder comes what the leak check finds:
the molecules that it shares with the task, and how well its own pretrained head, where its file has
one, tells the targets. chemprop's encoder was pretrained on Tox21's assays, so that its methods are
compared on bace too, which it was not. A last table is over all pairs of encoder and task but that.

All of one seed is run before any of the next, and what was run before is read from `--out`, so that
an interrupted call goes on. `--only` runs some methods, for further seeds of these; the tables are
of all that was ever run.
"""

import argparse
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from result_store import ResultStore

from molhpft.advice.inventory import overlap
from molhpft.advice.source_heads import source_head
from molhpft.config.build import build_network, build_recipes, build_task
from molhpft.config.changes import read_config
from molhpft.config.schema import RunConfig
from molhpft.core.evaluate import evaluation_batches, take
from molhpft.core.metrics import task_scores
from molhpft.domains.weights import read_weights
from molhpft.results.statistics import holm, paired
from molhpft.results.table import read_results
from molhpft.run.identity import run_content
from molhpft.sweep.execute import run_trial
from molhpft.sweep.spec import Trial, parse_sweep, settings_text, value_text

VERSION = "methods 1"
CONFIG = Path(__file__).with_name("methods.yaml")
TAU = 16
_MOST_SEEDS = 1000
BASELINE = "ft"
COLUMNS = {
    "ECE": ("ece_test", 3),
    "energy": ("energy", 3),
    "head norm": ("head_norm", 2),
    "distance": ("distance", 2),
    "probe epochs": ("probe_epochs", 0),
    "epochs": ("epochs", 0),
    "s": ("seconds", 1),
}
"""Title of a column to the number of a run that it is the mean of, and its decimals."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Pair:
    """An encoder and the task that it is finetuned on.

    Attributes:
        task: name in the catalog.
        encoder: shipped, or a file in the folder of weights.
        stages: that surgical finetuning trains, the last two with weights.
        leak: whether the encoder was pretrained on the targets of the task.
    """

    task: str
    encoder: str
    stages: tuple[str, ...]
    leak: bool = False


_GCN, _DMPNN = ("conv3", "conv4"), ("message", "atoms")
PAIRS = (
    Pair("ogbg-moltox21", "gcn_supervised_contextpred.pth", _GCN),
    Pair("ogbg-moltox21", "chemprop_admet_classification.pt", _DMPNN, leak=True),
    Pair("ogbg-moltox21", "gcn_structure", _GCN),
    Pair("ogbg-molbace", "chemprop_admet_classification.pt", _DMPNN),
)


def trials_of(pair: Pair, weights: Path, seed: int) -> list[Trial]:
    """The runs of all methods, each with a probe of its own, so that its time is its own."""
    changes = [f"task.name={pair.task}", f"encoder.weights={weights}", f"seed={seed}"]
    raw = read_config(CONFIG, changes)
    surgical = {"name": "surgical", "tau": [TAU], "stages": list(pair.stages)}
    raw["sweep"].append({"method": [surgical]})
    return [replace(trial, shared=()) for trial in parse_sweep(raw, unused_are="dropped")]


def label(trial: Trial) -> str:
    """A method with its settings, in a few words."""
    others = {key: value for key, value in trial.settings.items() if key != "method"}
    words = [value_text(trial.settings["method"]), *([settings_text(others)] if others else [])]
    return ", ".join(words)


def result_of(trial: Trial, out: Path, store: ResultStore) -> Row:
    """Numbers of a finished run, at the tau that validates best, or `error`: why there is none.

    `epochs` are of finetuning, of all that the method finetunes; `seconds` are of processor time.
    """

    def compute() -> Row:
        begin = time.process_time()
        outcome = run_trial(trial, out)
        if outcome.status == "stopped":
            raise OSError(outcome.error)
        if outcome.run is None:
            return {"error": outcome.error}
        return numbers_of(out / outcome.run) | {"seconds": time.process_time() - begin}

    return dict(store.once(depends_on(trial), compute))


def depends_on(trial: Trial) -> dict[str, Any]:
    """What decides the result of a trial: what decides that of its run, and what is read of it."""
    return {"protocol": VERSION, "run": run_content(trial.config)}


def numbers_of(folder: Path) -> dict[str, Any]:
    """What a run folder says of its chosen branch, and how many epochs all of them took."""
    results = read_results(folder)
    chosen = results.table[results.table["chosen"]].iloc[0]
    (run,) = results.runs
    keys = ("final_valid", "final_test", "ece_test", "energy", "head_norm", "distance")
    return {
        **{key: float(chosen[key]) for key in keys},
        "tau": run.summary["chosen_tau"],
        "probe_epochs": sum(row["phase"] == "probe" for row in run.history or ()),
        "epochs": int(results.table["epochs"].sum()),
    }


def table(rows: Mapping[str, Mapping[int, Row]]) -> list[str]:
    """Markdown: a line for each method, then why others have none.

    Args:
        rows: label of a method to the seed to what `result_of` gives.
    """
    ran = finished(rows)
    scores = {
        name: {seed: 100 * row["final_test"] for seed, row in of.items()}
        for name, of in ran.items()
    }
    lines = [
        f"| method | test | above {BASELINE} | p | {' | '.join(COLUMNS)} | seeds |",
        "|---" * (5 + len(COLUMNS)) + "|",
    ]
    for name, above in above_baseline(scores).items():
        means = [
            f"{mean(row[key] for row in ran[name].values()):.{digits}f}"
            for key, digits in COLUMNS.values()
        ]
        cells = [name, mean_and_std(scores[name].values()), above, *means, str(len(ran[name]))]
        lines.append(f"| {' | '.join(cells)} |")
    reasons = {name: next(iter(rows[name].values()))["error"] for name in rows.keys() - ran.keys()}
    return lines + [f"\nNo line for `{name}`: {why}." for name, why in sorted(reasons.items())]


def table_of_all(rows: Mapping[Pair, Mapping[str, Mapping[int, Row]]]) -> list[str]:
    """Markdown: methods that ran in every pair, over pairs and seeds.

    Surgical finetuning, whose stages differ, is one method here.
    """
    scores: dict[str, dict[int, float]] = {}
    ran_in: Counter[str] = Counter()
    for number, of_pair in enumerate(rows.values()):
        for name, of in finished(of_pair).items():
            short = "surgical" if name.startswith("surgical") else name
            # a number for each pair and seed, by which methods are compared
            numbers = {_MOST_SEEDS * number + k: 100 * r["final_test"] for k, r in of.items()}
            scores.setdefault(short, {}).update(numbers)
            ran_in[short] += 1
    scores = {name: of for name, of in scores.items() if ran_in[name] == len(rows)}
    lines = [f"| method | above {BASELINE} | p | better than {BASELINE} |", "|---|---|---|---|"]
    for name, above in above_baseline(scores).items():
        wins = sum(score > scores[BASELINE][key] for key, score in scores[name].items())
        better = "-" if name == BASELINE else f"{wins} of {len(scores[name])}"
        lines.append(f"| {name} | {above} | {better} |")
    return lines


def finished(rows: Mapping[str, Mapping[int, Row]]) -> dict[str, Mapping[int, Row]]:
    """The methods that ran."""
    return {k: of for k, of in rows.items() if not any("error" in row for row in of.values())}


def above_baseline(scores: Mapping[str, Mapping[int, float]]) -> dict[str, str]:
    """Cells of two columns, the largest gap to plain finetuning first.

    The gap is a mean over the runs that both have, with its 95 % interval; p is corrected by Holm.
    """
    gaps = {name: paired(of, scores[BASELINE]) for name, of in scores.items() if name != BASELINE}
    corrected = dict(zip(gaps, holm([p for _, p in gaps.values()]), strict=True))
    cells = {BASELINE: (0.0, "- | -")}
    for name, (gap, _) in gaps.items():
        text = f"{gap.mean:+.2f} | -"
        if isfinite(gap.low):  # several seeds whose gaps differ
            text = f"{gap.mean:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}] | {corrected[name]:.3f}"
        cells[name] = (gap.mean, text)
    order = sorted(cells, key=lambda name: -cells[name][0])
    return {name: cells[name][1] for name in order}


def mean_and_std(values: Iterable[float]) -> str:
    """Of one number a seed."""
    values = list(values)
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def leaks(config: RunConfig) -> list[str]:
    """What of a run's task its encoder has seen: molecules, and targets by its pretrained head."""
    config = replace(config, standardise=False)  # the pretrained head reads features as they are
    task, weights = build_task(config, build_recipes(config)[0]), _weights(config)
    try:
        counts = [
            f"{row['shared']:,} of {row['molecules']:,} of {row['split']}"
            for row in overlap(task, str(weights))
        ]
        lines = [f"Molecules that it was pretrained on: {', '.join(counts)}."]
    except ValueError as error:
        lines = [f"Whether it was pretrained on these molecules is not known: {error}."]
    network = build_network(config, task, build_recipes(config)[0], device=torch.device("cpu"))
    head = source_head(read_weights(weights), width=network.backbone.width)
    if isinstance(head, str):
        return [*lines, f"Its pretraining targets cannot be tried: {head}."]
    test = take(network, evaluation_batches(task, "test"))
    tried = head.probabilities(test.features)
    best = best_outputs(tried, test.targets)
    names = task.target_names or ("the target",)
    scores = [f"{name} {100 * score:.1f}" for name, (_, score) in zip(names, best, strict=True)]
    return [
        *lines,
        f"Its pretrained head, untouched: of its {tried.shape[1]} outputs, that which tells a "
        f"target best has a test ROC-AUC of {', '.join(scores)}. Mean: "
        f"{100 * mean(score for _, score in best):.1f}, by {len({k for k, _ in best})} different "
        "outputs.",
    ]


def best_outputs(outputs: torch.Tensor, targets: torch.Tensor) -> list[tuple[int, float]]:
    """For every target (n, t), which of the outputs (n, k) tells it best, and its ROC-AUC."""
    columns = [column[:, None].expand(targets.shape) for column in outputs.T]
    scores = np.array([task_scores("rocauc", targets, column) for column in columns])
    return [(int(k), float(of[k])) for of in scores.T for k in [of.argmax()]]


def _weights(config: RunConfig) -> Path:
    weights = config.encoder.options["weights"]
    return Path(str(weights))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is left, seed by seed, then print the leak check and a table for each pair."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="as in the tables")
    parser.add_argument("--out", type=Path, default=Path("runs/methods_table"))
    given = parser.parse_args(arguments)
    store = ResultStore(given.out / "results.jsonl")
    rows: dict[Pair, dict[str, dict[int, Row]]] = {pair: {} for pair in PAIRS}
    for seed in range(given.seeds):
        for pair, of_pair in rows.items():
            for trial in trials_of(pair, named(pair.encoder, given.weights), seed):
                name = label(trial)
                if given.only and name not in given.only:
                    result = store.known(depends_on(trial))
                else:
                    result = result_of(trial, given.out, store)
                if result:
                    of_pair.setdefault(name, {})[seed] = result
    for pair, of_pair in rows.items():
        trials = trials_of(pair, named(pair.encoder, given.weights), 0)
        config = next(trial.config for trial in trials if label(trial) == BASELINE)
        lines = ["", f"### {pair.encoder} on {pair.task}", "", *leaks(config), "", *table(of_pair)]
        print("\n".join(lines).replace(f"{given.weights}/", ""))
    fair = {pair: of_pair for pair, of_pair in rows.items() if not pair.leak}
    print("\n### All without a leak of targets\n\n" + "\n".join(table_of_all(fair)))


def named(encoder: str, folder: Path) -> Path:
    """A file in the folder, or a shipped encoder by its name."""
    return folder / encoder if Path(encoder).suffix else Path(encoder)


if __name__ == "__main__":
    main()
