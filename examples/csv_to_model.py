"""From a CSV to a model that says how uncertain its predictions are.

Holds out rare scaffolds, finetunes the shipped encoder by HP-FT, predicts the held-out molecules
with standard deviations, prediction sets and the applicability domain, and draws which atoms made
it predict what it does for one of them.
Without --data the table is made of molecules that RDKit ships; its label says whether a molecule
has a part that RDKit's SureChEMBL catalog of structural alerts knows.

$ python examples/csv_to_model.py
$ python examples/csv_to_model.py --data tox21.csv.gz --out runs/tox21_model
"""

import argparse
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.nci import nci_alerts_task
from molhpft.domains.molecules.splits import scaffold_split
from molhpft.estimator import HPFTClassifier
from molhpft.estimator.card import members_in_words
from molhpft.estimator.explain import draw, explain

ALERT = "CHEMBL_SureChEMBL"
# with one epoch of finetuning, Gaussian processes would answer alone; only networks are explained
QUICK = {
    "members": "networks",
    "config": {"probe": {"epochs": 8}, "finetune": {"epochs": 1}},
}


def example_table(path: Path, molecules: int) -> Path:
    """Write a CSV of molecules that RDKit ships, with one label each."""
    task = nci_alerts_task()
    shipped = cast(Molecules, task.examples)
    targets = shipped.targets[torch.arange(len(shipped))]
    labels = targets[:, task.target_names.index(ALERT)].int()
    table = pd.DataFrame({"smiles": shipped.smiles, "alert": labels})
    table.head(molecules).to_csv(path, index=False)
    return path


def read(path: Path, smiles_column: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to learn from and rows to predict; no scaffold is in both."""
    if not path.is_file():
        raise FileNotFoundError(f"no table at {path}")
    table = pd.read_csv(path)
    if smiles_column not in table:
        raise ValueError(f"no column {smiles_column!r} in {path}: --smiles-column says which")
    table = table.rename(columns={smiles_column: "smiles"})
    table = table[["smiles", *table.select_dtypes("number")]]
    rows = scaffold_split(list(table["smiles"]), fractions=(0.8, 0.0, 0.2))
    return table.iloc[rows["train"].tolist()], table.iloc[rows["test"].tolist()]


def learn(train: pd.DataFrame, options: dict[str, Any]) -> HPFTClassifier:
    """A fitted model; what answers is chosen by molecules that a member did not train on."""
    model = HPFTClassifier(random_state=0, **options)
    model.fit(train[["smiles"]], train.drop(columns="smiles"))
    members = ", ".join(members_in_words(model.model_.about["members"]))
    print(f"learned from {len(train):,} molecules; finetuned after probing for tau {model.tau_}")
    print(f"members that answer together: {members}")
    return model


def predict(model: HPFTClassifier, test: pd.DataFrame) -> pd.DataFrame:
    """Inference for the first target as a table, and what they were worth."""
    prediction = model.predict_with_uncertainty(test["smiles"])
    name = test.columns[1]
    predictions = pd.DataFrame(
        {
            "smiles": test["smiles"].to_numpy(),
            name: test[name].to_numpy(),
            "p": prediction.values[:, 0],
            "std": prediction.std[:, 0],
            "set": [
                " or ".join(str(k) for k in (0, 1) if s[k]) for s in prediction.sets[:, 0].tolist()
            ],
            "similarity": prediction.similarity,
            "in_domain": prediction.in_domain,
        }
    )
    known = predictions[predictions[name].notna() & predictions["p"].notna()]
    near = known[known["in_domain"]]
    held = [f"{label:.0f}" in own for label, own in zip(near[name], near["set"], strict=True)]
    share = f"{sum(held) / len(held):.1%}" if held else "none"
    print(f"\n{name}: in domain the set holds the label of {share} of held-out molecules")
    for where, rows in (("all", known), *known.groupby("in_domain")):
        auc = roc_auc_score(rows[name], rows["p"]) if rows[name].nunique() == 2 else float("nan")
        what = {True: "in domain", False: "outside it"}.get(where, where)
        print(f"  {what:10}  {len(rows):5,} molecules  ROC-AUC {auc:.3f}")
    return predictions


def main(options: argparse.Namespace) -> None:
    """All of it; what is written lies in the folder `--out`."""
    options.out.mkdir(parents=True, exist_ok=True)
    data = options.data or example_table(options.out / "alerts.csv", 300 if options.quick else 1000)
    train, test = read(data, options.smiles_column)
    model = learn(train, QUICK if options.quick else {})
    predictions = predict(model, test)
    predictions.to_csv(options.out / "predictions.csv", index=False)
    print(predictions.head(8).round(3).to_string(index=False, max_colwidth=32))

    model.save_pretrained(options.out / "model")
    print(f"wrote predictions.csv and model in {options.out}")
    if not model.model_.networks:
        print("no network is among the members, so that no atom can be explained")
        return
    chosen = predictions[predictions["in_domain"]].nlargest(1, "p")["smiles"].iloc[0]
    explanation = explain(model.model_, chosen, target=test.columns[1])
    draw(explanation, options.out / "explanation.svg")
    print(f"explained in explanation.svg: {chosen}, logit {explanation.logit:.2f}", end=" ")
    print(f"(an average atom everywhere: {explanation.baseline:.2f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="From a CSV to a model with uncertainty.")
    parser.add_argument("--data", type=Path, help="CSV with SMILES and columns of 0 and 1")
    parser.add_argument("--smiles-column", default="smiles")
    parser.add_argument("--out", type=Path, default=Path("runs/csv_to_model"))
    parser.add_argument("--quick", action="store_true", help="300 molecules, one epoch")
    given = parser.parse_args()
    try:
        main(given)
    except (ValueError, OSError) as error:
        parser.exit(2, f"error: {error}\n")
