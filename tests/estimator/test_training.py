"""From a run to a model: which members answer, and that an interruption changes nothing."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from molhpft.core.evaluate import predict
from molhpft.domains.files import UnwritableError
from molhpft.estimator.train import Answers, train
from tests.estimator.rings import RING, SIZE, ring_task, size_task
from tests.kills import killed_at_save
from tests.toy import toy_task

SPLITS = ("valid", "test")


def members_of(folder, model):
    """Networks that the run has kept, by the key of their recipe, such as tau5."""
    found = {}
    for path in (folder.path / "members").glob("*.safetensors"):
        network = model.shape.network()
        network.load_state_dict(load_file(path))
        found[path.stem] = network.eval()
    return found


def test_members_are_the_best_prefix_of_those_the_run_has_kept(trained):
    model, folder = trained
    task = size_task()
    networks = members_of(folder, model)
    assert sorted(networks) == ["tau0", "tau2", "tau5"]
    logits = {key: predict(network, task, "valid").logits for key, network in networks.items()}
    labels = task.examples.take(task.rows("valid")).targets
    alone = {key: task.objective.score(found, labels) for key, found in logits.items()}
    ranked = sorted(alone, key=lambda key: -alone[key])
    found = model.about["members"]
    assert [member["valid"] for member in found] == sorted(alone.values(), reverse=True)[
        : len(found)
    ]
    prefixes = [torch.stack([logits[key] for key in ranked[: k + 1]]).mean(0) for k in range(3)]
    scores = [task.objective.score(prefix, labels) for prefix in prefixes]
    assert -model.about["scores"]["valid"]["rmse"] == max(scores) > max(alone.values())
    assert len(found) == 1 + scores.index(max(scores)) > 1


def test_the_networks_are_those_of_the_members(trained):
    model, folder = trained
    networks = members_of(folder, model)
    for member, network in zip(model.about["members"], model.networks, strict=True):
        for split in SPLITS:
            ours, theirs = (
                predict(n, size_task(), split) for n in (network, networks[f"tau{member['tau']}"])
            )
            assert ours.logits.equal(theirs.logits)


def test_scores_are_those_of_the_answers(trained):
    model, _ = trained
    task = size_task()
    assert list(model.about["scores"]) == list(SPLITS)
    for split in SPLITS:
        rows = task.rows(split)
        found = model.predict([task.examples.smiles[row] for row in rows]).values[:, 0]
        error = found - torch.tensor(SIZE)[rows]
        rmse = model.about["scores"][split]["rmse"]
        assert rmse == pytest.approx(error.square().mean().sqrt().item(), rel=1e-5)


def test_a_model_knows_its_molecules_and_its_notes(trained):
    model, _ = trained
    task = size_task()
    assert model.training_smiles == tuple(task.examples.smiles[row] for row in task.rows("train"))
    assert len(model.trust.prints) == len(model.training_smiles)
    assert model.about["notes"] == ["a note"]
    assert model.about["promise"] == [
        "Prediction intervals are unbounded: there are no calibration molecules to bound them by.",
    ]
    assert model.about["sizes"] == {"train": 30, "valid": 16, "test": 14}


def with_splits(task, **sizes):
    """The rings dealt anew, so many to each split."""
    deal = torch.randperm(len(task.examples), generator=torch.Generator().manual_seed(1))
    parts = dict(zip(sizes, deal.split([*sizes.values()]), strict=True))
    return replace(task, splits={split: rows.sort().values for split, rows in parts.items()})


def test_nothing_but_sets_hangs_on_calibration_labels(brief, tmp_path):
    task = with_splits(size_task(), train=30, valid=10, calibration=15, test=5)
    targets = task.examples.targets.clone()
    targets[task.splits["calibration"]] *= -3
    other = replace(task, examples=replace(task.examples, targets=targets))
    ours, theirs = (
        train(brief, one, tmp_path / name, Answers())[0]
        for name, one in (("ours", task), ("theirs", other))
    )
    answers, others = (model.predict(task.examples.smiles) for model in (ours, theirs))
    assert answers.values.equal(others.values)
    assert answers.spread.equal(others.spread)
    assert not answers.sets.nan_to_num(0, 0, 0).equal(others.sets.nan_to_num(0, 0, 0))
    assert ours.about["members"] == theirs.about["members"]


def test_thresholds_are_those_of_the_calibration_split(brief, tmp_path):
    task = with_splits(size_task(), train=30, valid=10, calibration=15, test=5)
    model, _ = train(brief, task, tmp_path, Answers(level=0.8))
    rows = task.splits["calibration"]
    found = model.predict([task.examples.smiles[row] for row in rows.tolist()]).values
    errors = (found - task.objective.values(task.examples.targets[rows])).abs().flatten()
    # the ceil(16 * 0.8)-th of 15, for a molecule as near to training as can be
    expected = errors.sort().values[12]
    found = model.trust.limits[-1] * torch.tensor(task.objective.std)
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=0)
    assert model.about["sizes"]["calibration"] == 15
    assert model.about["scores"]["calibration"]["coverage"] is None
    assert any("calibrated by 15 molecules" in line for line in model.about["promise"])


def one_class(task, *splits):
    """The rings, with label 1 alone in these splits."""
    targets = task.examples.targets.clone()
    for split in splits:
        targets[task.splits[split]] = 1
    return replace(task, examples=replace(task.examples, targets=targets))


def test_a_test_split_of_one_class_costs_the_score_and_not_the_model(brief, tmp_path):
    model, _ = train(brief, one_class(ring_task(), "test"), tmp_path, Answers())
    scores = model.about["scores"]
    assert scores["test"]["rocauc"] is None
    assert scores["valid"]["rocauc"] > 0.5


def test_validation_of_one_class_chooses_by_the_loss(brief, tmp_path):
    task = one_class(ring_task(), "valid", "test")
    model, folder = train(brief, task, tmp_path, Answers())
    labels = torch.ones(16, 1)
    losses = {}
    for key, network in members_of(folder, model).items():
        logits = predict(network, task, "valid").logits
        losses[key] = task.objective.loss(logits, labels).item()
    best = model.about["members"][0]
    assert f"tau{best['tau']}" == min(losses, key=losses.get)
    assert best["valid"] == pytest.approx(-min(losses.values()))
    assert model.about["scores"]["valid"]["rocauc"] is None


def test_every_target_that_was_never_validated_is_listed_with_the_model(brief, tmp_path):
    targets = torch.tensor([RING, [0.0, 1.0] + [float("nan")] * (len(RING) - 2)]).T
    task = ring_task(targets=targets, target_names=("ring", "rare"))
    rows = torch.tensor([0, 1])
    others = {s: r[~torch.isin(r, rows)] for s, r in task.splits.items()}
    task = replace(task, splits={**others, "train": torch.cat([rows, others["train"]])})
    model, _ = train(brief, task, tmp_path, Answers())
    assert model.about["unscored"] == {"train": [], "valid": ["rare"], "test": ["rare"]}


def test_training_molecules_of_one_class_are_refused_before_training(brief, tmp_path):
    with pytest.raises(ValueError, match="no target of rings has labels of both classes"):
        train(brief, one_class(ring_task(), "train"), tmp_path, Answers())
    assert not list(tmp_path.iterdir())


def test_without_an_ensemble_the_model_is_the_one_the_run_has_chosen(brief, tmp_path):
    model, folder = train(brief, ring_task(), tmp_path, Answers(ensemble=False))
    chosen = load_file(folder.path / "model.safetensors")
    (network,) = model.networks
    assert network.state_dict().keys() == chosen.keys()
    assert all(tensor.equal(chosen[name]) for name, tensor in network.state_dict().items())
    assert [m["tau"] for m in model.about["members"]] == [model.about["chosen_tau"]]
    assert not (folder.path / "members").exists()


@pytest.mark.parametrize("saves", [1, 5, 9])
def test_an_interrupted_training_goes_on_to_the_same_model(brief, trained, tmp_path, saves):
    with killed_at_save(saves):
        train(brief, size_task(), tmp_path, Answers())
    model, _ = train(brief, size_task(), tmp_path, Answers(), notes=("a note",))
    model.save_pretrained(tmp_path / "resumed")
    trained[0].save_pretrained(tmp_path / "whole")
    for name in ("model.safetensors", "config.json"):
        ours, theirs = (tmp_path / which / name for which in ("resumed", "whole"))
        assert ours.read_bytes() == theirs.read_bytes(), name


def test_taus_that_are_chosen_leave_their_candidates_as_members(brief, tmp_path):
    method = replace(brief.method, options={"tau": "auto"})
    probe = replace(brief.probe, epochs=6)
    model, folder = train(
        replace(brief, method=method, probe=probe), ring_task(), tmp_path, Answers()
    )
    tried = members_of(folder, model)
    assert len(tried) > 1
    answering = {f"tau{member['tau']}" for member in model.about["members"]}
    assert answering <= {key.split("-")[0] for key in tried}


def test_probabilities_of_classes_are_scored(brief, tmp_path):
    task = ring_task()
    model, _ = train(brief, task, tmp_path, Answers())
    for split in SPLITS:
        rows = task.rows(split)
        p = model.predict([task.examples.smiles[row] for row in rows]).values
        score = task.objective.score(p.logit(), task.examples.targets[rows].float())
        assert model.about["scores"][split]["rocauc"] == pytest.approx(score)


@pytest.mark.parametrize("taus", [(), (2, -1), (2, 2)])
def test_taus_that_cannot_be_meant_are_refused_before_training(brief, tmp_path, taus):
    method = replace(brief.method, options={"tau": taus})
    with pytest.raises(ValueError, match=r"tau|epochs should be at least 0, got -1"):
        train(replace(brief, method=method), ring_task(), tmp_path, Answers())
    assert not list(tmp_path.iterdir())


def test_a_task_without_molecules_is_refused(brief, tmp_path):
    with pytest.raises(ValueError, match="made of molecules with labels; toy has others"):
        train(brief, toy_task(), tmp_path, Answers())


def test_a_place_that_cannot_be_written_is_said(brief, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableError, match=r"cannot write .*file"):
        train(brief, ring_task(), tmp_path / "file", Answers())
