"""What the pages show of commands: each is run in one folder and its output kept in docs/printed.

$ python docs/record.py
$ python docs/record.py resnet own_backbone

Data sets of others are hidden from the commands, so that anybody sees the same, but from those that
need some in MOLHPFT_DATA: `finetune` reads ogbg_molmuv, to say which molecules the encoder knows,
and `tox21` ogbg_moltox21 and the folder weights/ beside MOLHPFT_DATA.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
PRINTED = ROOT / "docs" / "printed"
PICTURES = ROOT / "docs" / "figures"
TABLE = "runs/csv_to_model/alerts.csv"

# in this order: later ones read what earlier ones have written
COMMANDS = {
    "quickstart": "molhpft quickstart",
    "csv_to_model": "python examples/csv_to_model.py",
    "finetune": f"molhpft finetune {TABLE} --out model",
    "predict": f"molhpft predict model {TABLE} --out predictions.csv",
    "predictions": "head -n 4 predictions.csv",
    "explain": "molhpft explain model 'NC(=S)NN=C1C(=O)NC2=C1C=CC=C2' --out why.svg",
    "advise": "molhpft advise configs/methods/hp_ft.yaml --set 'encoder={weights: gcn_structure}'",
    "resnet": "python examples/resnet.py",
    "own_backbone": "python examples/own_backbone.py",
    "tox21": "python examples/reproduce_tox21.py",
}
NEED_DATA = ("finetune", "tox21")
KEPT = {
    "quickstart": {"runs/quickstart/quickstart.png": "../quickstart.png"},
    "csv_to_model": {"runs/csv_to_model/explanation.svg": "explanation.svg"},
    "tox21": {"runs/tox21/tox21.png": "tox21.png"},
}


def record(name: str, work: Path) -> None:
    """Run a command in `work` and keep what it prints, and its pictures."""
    command = COMMANDS[name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if name not in NEED_DATA:
        environment["MOLHPFT_DATA"] = str(work / "no data of others")
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command,
        shell=True,
        cwd=work,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    PRINTED.mkdir(exist_ok=True)
    text = "\n".join([f"$ {command}", *lines])
    (PRINTED / f"{name}.txt").write_text(text + "\n", encoding="utf-8")
    for picture, place in KEPT.get(name, {}).items():
        shutil.copy(work / picture, PICTURES / place)


def main(names: Sequence[str], work: Path) -> None:
    """Some of the commands, or all."""
    for folder in ("examples", "configs"):
        link = work / folder
        link.unlink(missing_ok=True)
        link.symlink_to(ROOT / folder)
    for name in names or COMMANDS:
        record(name, work)
        print(f"wrote docs/printed/{name}.txt")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What the pages show of commands.")
    parser.add_argument("names", nargs="*", choices=[[], *COMMANDS], help="all by default")
    parser.add_argument("--work", type=Path, help="folder to run in, to go on from")
    given = parser.parse_args()
    with TemporaryDirectory() as temporary:
        chosen = given.work or Path(temporary)
        chosen.mkdir(parents=True, exist_ok=True)
        main(given.names, chosen.resolve())
