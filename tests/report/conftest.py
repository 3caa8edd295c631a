"""A small tree of real runs: methods, seeds, measures, features, baselines, and what is broken."""

import pytest

from molhpft.advice.baselines import run_baselines
from molhpft.config.schema import parse_config
from molhpft.results.table import read_results
from molhpft.run.run import run

MEASURES = ["confidence", "exchange", "targets", "decomposition", "drift", "bound"]
BRIEF = {
    "encoder": {"name": "gcn", "layers": 2, "width": 8},
    "probe": {"lr": 0.01, "epochs": 4},
    "finetune": {"epochs": 2, "lr": 0.003, "keep": "best", "batch_size": 16},
}


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """Folder with HP-FT (3 tau), FT at two rates, LP and logistic regression, two seeds each."""
    root = tmp_path_factory.mktemp("report") / "sweep"
    path = root.parent / "rings.csv"
    rows = [row for n in range(3, 15) for row in (f"{'C' * n}O,0,1", f"C1{'C' * n}1N,1,{n % 2}")]
    path.write_text("\n".join(["smiles,ring,<b>odd|</b>", *rows]) + "\n")
    changes = ["split=random", "split_seed=1", "target_columns=all"]
    options = {"split": "random", "split_seed": 1, "target_columns": "all"}
    task = {"name": "csv", "path": str(path), **options}
    for seed in (0, 1):
        common = {**BRIEF, "task": task, "seed": seed}
        grid = {"name": "hp_ft", "tau": [0, 1, 4]}
        # the bound and kernels take seconds: one run has them
        measures = MEASURES if seed == 0 else [name for name in MEASURES if name != "bound"]
        measured = {"method": grid, "measures": measures, "features": True}
        run(parse_config({**common, **measured}, unused_are="dropped"), root)
        for lr in (0.003, 0.03):
            measures = ["ntk", "direction"] if seed == 0 and lr == 0.003 else []
            changed = {"finetune": {**BRIEF["finetune"], "lr": lr}, "measures": measures}
            run(parse_config({**common, "method": "ft", **changed}, unused_are="dropped"), root)
        run(parse_config({**common, "method": "lp"}, unused_are="dropped"), root)
        run_baselines(str(path), changes, root, only=["linear_bits"], seed=seed)
    (root / "killed.partial").mkdir()
    (root / "damaged").mkdir()
    (root / "damaged" / "summary.json").write_text("{")
    return root


@pytest.fixture(scope="session")
def results(tree):
    return read_results(tree)
