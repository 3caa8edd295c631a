"""Tox21 of the paper: energy, probed head, finetuned score and feature shift against tau.

Runs configs/finetune/tox21_hpft.yaml: a public GCN of pretrain-gnns (Hu et al., 2020), one probe,
and a finetuning from the head of each of six taus. The paper's own encoder was never published, so
levels differ; what has to agree is how the columns move with tau.

$ python examples/reproduce_tox21.py --weights gcn_supervised_contextpred.pth
"""

import argparse
from pathlib import Path
from textwrap import fill

from molhpft.config.schema import load_config
from molhpft.domains.files import Json, data_folder
from molhpft.domains.molecules.ogb import ogb_folder
from molhpft.results.terminal import reading
from molhpft.run.run import run
from molhpft.studies.drawing import tau_figure

CONFIG = Path(__file__).parents[1] / "configs" / "finetune" / "tox21_hpft.yaml"
WEIGHTS = data_folder().parent / "weights" / "gcn_supervised_contextpred.pth"
# Table 1 of Ren et al. (2023), on validation
PAPER = {"HP0-FT": 81.274, "HP-FT, tau chosen": 83.263, "HP200-FT": 79.666}
QUICK = ["method.tau=[0, 4]", "finetune.epochs=1"]


def missing(weights: Path) -> list[str]:
    """What has to be fetched first, and how; nothing is downloaded unasked."""
    told = []
    if not ogb_folder("ogbg-moltox21").is_dir():
        told.append(
            f"data: {ogb_folder('ogbg-moltox21')} is not there. `molhpft data ogbg-moltox21` "
            "fetches it from OGB; MOLHPFT_DATA says where to."
        )
    if not weights.is_file():
        told.append(
            f"weights: {weights} is not there. Fetch model_gcn/supervised_contextpred.pth from "
            "the repository pretrain-gnns of snap-stanford and give its path as --weights."
        )
    return told


def against_tau(rows: list[Json]) -> str:
    """A line a tau; scores in percent."""
    lines = [" tau    AIE  HP valid  HP test  FT valid  FT test  distance  cosine    dot   norm"]
    for row in rows:
        hp, ft, shift = row["probe"], row["final"], row["shift"]
        scores = [100 * score for part in (hp, ft) for score in (part["valid"], part["test"])]
        moved = [shift[key] for key in ("distance", "cosine", "dot", "norm")]
        form = "{:4}{:7.3f}{:10.2f}{:9.2f}{:10.2f}{:9.2f}{:10.3f}{:8.3f}{:7.3f}{:7.3f}"
        lines.append(form.format(row["tau"], row["energy"]["aie"], *scores, *moved))
    return "\n".join(lines)


def beside_the_paper(rows: list[Json], chosen: int) -> str:
    """The paper's numbers and ours, validation ROC-AUC in percent."""
    ours = {row["tau"]: 100 * row["final"]["valid"] for row in rows}
    names = [(0, "HP0-FT"), (chosen, "HP-FT, tau chosen"), (200, "HP200-FT")]
    lines = ["validation ROC-AUC (%)  paper   here"]
    for tau, name in names:
        if tau in ours:
            lines.append(f"  {name:20}{PAPER[name]:7.2f}{ours[tau]:7.2f}")
    return "\n".join(lines)


def main(weights: Path, out: Path, changes: list[str]) -> None:
    """The run, its table and its figure."""
    folder = run(load_config(CONFIG, [f"encoder.weights={weights}", *changes]), out)
    summary = folder.read_json("summary.json")
    rows = summary["branches"]
    print(against_tau(rows))
    print("\n" + fill(reading(summary), 88))
    print(f"\n{beside_the_paper(rows, summary['chosen_tau'])}")
    names = ["FT", *["HP-FT"] * (len(rows) - 1)]
    tau_figure(list(zip(names, rows, strict=True)), out / "tox21.png", score="ROC-AUC (%)")
    print(f"\nwrote tox21.png and the run folder in {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Tox21 against tau, as in the paper.")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--out", type=Path, default=Path("runs/tox21"))
    parser.add_argument("--quick", action="store_true", help="two taus, one epoch")
    given = parser.parse_args()
    if told := missing(given.weights):
        parser.exit(2, "missing\n  " + "\n  ".join(told) + "\n")
    try:
        main(given.weights, given.out, QUICK if given.quick else [])
    except (ValueError, OSError) as error:
        parser.exit(2, f"error: {error}\n")
