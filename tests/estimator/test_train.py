"""From options to a config, from a table to splits, from a run to a model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from molhpft.config.registry import ENCODERS
from molhpft.config.schema import Choice, resolved
from molhpft.core.evaluate import predict
from molhpft.core.objectives import Squared
from molhpft.domains.molecules.smiles import parse
from molhpft.domains.molecules.splits import scaffold
from molhpft.domains.shipped import DEFAULT_ENCODER, shipped_encoders
from molhpft.estimator.blend import blend_weights
from molhpft.estimator.candidates import key_in_words
from molhpft.estimator.notes import Note
from molhpft.estimator.settings import IN_MEMORY, Inference, model_config
from molhpft.estimator.train import train
from molhpft.estimator.validation import holdout_split
from molhpft.measure.error_scale import cross_fitted_scale
from molhpft.tuning.phase import Phase
from molhpft.tuning.recipes import Recipe
from tests.estimator.builders import (
    BRIEF,
    ENCODER,
    RING,
    SIZE,
    SMILES,
    random_model,
    ring_task,
    size_task,
)
from tests.toy import toy_task

PUBLIC = "weights/gcn_supervised_contextpred.pth"


def config(**changes):
    given = {"encoder": {"name": "gcn"}, "tau": 3, "head": "linear", "seed": 0, "more": {}}
    return model_config(**given | changes)


def loads(encoder):
    """Whether the encoder that was recognised takes its own weights, all of them."""
    options = dict(encoder.options)
    weights = options.pop("weights")
    backbone = ENCODERS[encoder.name].build(**options)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    ENCODERS[encoder.name].load(backbone, weights)
    after = backbone.state_dict().items()
    return all(not tensor.equal(before[n]) for n, tensor in after if n.endswith("linear.weight"))


@pytest.mark.parametrize("name", shipped_encoders())
def test_a_shipped_encoder_is_recognised_by_its_name(name):
    found = config(encoder=name).encoder
    assert found.options["weights"] == Path(name)
    assert loads(found)


def test_a_public_checkpoint_is_recognised(ogb_root):
    path = ogb_root.parent / PUBLIC
    if not path.is_file():
        pytest.skip(f"no public checkpoint at {path}")
    found = config(encoder=path).encoder
    assert found.name == "gcn_pretrain_gnns"
    assert (found.options["layers"], found.options["width"]) == (5, 300)
    assert loads(found)


def test_the_weights_of_a_run_are_recognised(trained):
    _, folder = trained
    found = config(encoder=str(folder.path / "model.safetensors")).encoder
    assert found.name == "gcn"
    assert (found.options["layers"], found.options["width"]) == (2, 8)
    assert loads(found)


@pytest.mark.parametrize("encoder", [{}, {"virtual_node": True}, {"name": "gcn_pretrain_gnns"}])
def test_a_model_is_recognised_by_its_folder(tmp_path, encoder):
    random_model(encoder=encoder).save_pretrained(tmp_path)
    found = config(encoder=tmp_path).encoder
    assert found.name == (ENCODER | encoder)["name"]
    assert loads(found)


@pytest.mark.parametrize(
    ("tau", "means"), [(3, (3,)), ((0, 4), (0, 4)), ([0, 4], (0, 4)), ("auto", "auto")]
)
def test_taus_are_one_or_several_or_auto(tau, means):
    found = config(tau=tau).method
    assert (found.name, found.options["tau"]) == ("hp_ft", means)


def test_further_keys_are_those_of_a_config():
    found = config(more={"finetune": {"epochs": 7}, "cut": "conv1"}, seed=5)
    assert (found.finetune.epochs, found.cut, found.seed) == (7, "conv1", 5)
    assert found.finetune.batch_size == config().finetune.batch_size == 64
    assert config(more={"finetune": {"batch_size": 8}}).finetune.batch_size == 8
    assert found.task == IN_MEMORY

    table = Choice("csv", {"path": Path("a.csv")})
    assert config(task=table).task == table


def test_features_of_a_whole_pretrained_encoder_are_standardised_unless_said_otherwise():
    assert model_config(more={}).standardise
    assert not config().standardise  # random weights
    assert not model_config(more={"cut": "conv4"}).standardise
    assert not model_config(more={"standardise": False}).standardise


def test_a_pretrained_backbone_learns_more_slowly_than_its_head_and_a_random_one_as_fast():
    pretrained, random = model_config(more={}).finetune, config().finetune
    assert (pretrained.backbone_lr or pretrained.lr) < pretrained.lr
    assert (random.backbone_lr or random.lr) == random.lr


def test_what_an_option_leaves_open_may_stand_in_the_config():
    own = {"encoder": {"dropout": 0.25}, "head": {"name": "linear"}, "seed": 3}
    found = model_config(more=own | {"method": {"tau": [1, 2]}})
    assert (found.encoder.options["dropout"], found.head.name, found.seed) == (0.25, "linear", 3)
    assert found.encoder.options["weights"] == Path(DEFAULT_ENCODER)
    assert (found.method.name, found.method.options["tau"]) == ("hp_ft", (1, 2))


@pytest.mark.parametrize(
    ("method", "tau", "means"),
    [
        ("ls_hp_ft", None, "auto"),
        ("ls_hp_ft", 3, (3,)),
        ({"name": "ls_hp_ft", "tau": 4}, None, (4,)),
        ("l2_sp", None, (0,)),
        ("l2_sp", "auto", "auto"),
        ("ft", None, None),
    ],
)
def test_tau_is_that_of_the_method_in_the_config(method, tau, means):
    found = config(tau=tau, more={"method": method}).method
    assert found.options.get("tau") == means


def test_one_config_serves_a_search_over_tau(caplog):
    more = {"probe": {"lr": 0.5, "epochs": 7}}
    assert config(tau="auto", more=more).probe.epochs == 7
    assert not caplog.messages
    assert config(tau=4, more=more).probe.lr == 0.5
    assert "probe.epochs would do nothing: method.tau says" in caplog.messages[-1]
    assert "probe" not in resolved(config(tau=0, more=more))
    assert "tau 0 probes no head; left out of this run" in caplog.messages[-1]


@pytest.mark.parametrize(
    ("members", "changes", "idle"),
    [
        ("kernels", {"tau": 3, "head": None}, "tau: it does"),
        ("kernels", {"tau": None, "head": "linear"}, "head: it does"),
        ("features", {"more": {"finetune": {"epochs": 3}}}, "finetune, head and tau: they do"),
        ("kernels", {"tau": None, "head": None, "more": {"method": "l2_sp"}}, "method: it does"),
        (
            "kernels",
            {"tau": None, "head": None, "more": {"precision": 32, "views": 3}},
            "precision and views: they do",
        ),
        (
            "kernels",
            {"tau": None, "head": None, "more": {"device": "cuda", "checkpoint": 5}},
            "checkpoint and device: they do",
        ),
        ("kernels", {"tau": None, "head": None, "more": {"device": "cpu"}}, None),
        ("fingerprints", {"tau": None, "head": None}, "encoder: it does"),
        ("kernels", {"tau": None, "head": None}, None),
        ("networks", {}, None),
    ],
)
def test_settings_of_networks_are_said_to_do_nothing_without_any(caplog, members, changes, idle):
    config(members=members, **changes)
    said = [f"which alone uses {idle} nothing here"] if idle else []
    assert [said[0] in record.message for record in caplog.records] == [True] * len(said)


def test_numbers_of_numpy_are_numbers():
    more = {"finetune": {"epochs": np.int64(7), "lr": np.float32(0.5)}}
    found = config(tau=np.array([0, 4]), seed=np.int64(5), more=more)
    assert (found.method.options["tau"], found.seed) == ((0, 4), 5)
    assert (found.finetune.epochs, found.finetune.lr) == (7, 0.5)


def pickled(path):
    torch.save(torch.nn.Linear(2, 2), path)


def another(path):
    torch.save({"layer1.weight": torch.zeros(2)}, path)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda path: None, "no weight file at .*w.pth"),
        (pickled, "unpickling"),
        (another, "no graph encoder"),
        (lambda path: path.write_text("hello"), "is not a weight file"),
        (lambda path: path.mkdir(), "no weight file at .*w.pth"),
    ],
    ids=["absent", "pickled", "another network", "text", "folder"],
)
def test_what_are_no_weights_is_one_sentence(tmp_path, write, says):
    path = tmp_path / "w.pth"
    write(path)
    with pytest.raises((ValueError, FileNotFoundError), match=says) as caught:
        config(encoder=path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tau": "long"}, "method.tau is 'long'"),
        ({"head": "deep"}, "unknown head deep"),
        ({"encoder": {"layers": 2}}, "a name among them"),
        ({"encoder": {"name": "gcn", "depth": 2}}, "unknown key encoder.depth"),
        ({"more": {"finetun": {}}}, "did you mean finetune"),
        ({"more": {"finetune": 32}}, "finetune"),
        ({"more": {"method": 5}}, "method"),
        ({"more": {"method": [1]}}, "method"),
        ({"seed": "one"}, "seed"),
        ({"more": {"seed": 1}}, "seed is given twice, by its option as 0 and in the config as 1"),
        ({"more": {"head": "mlp"}}, "head is given twice, by its option as linear"),
        ({"more": {"encoder": "gcn"}}, "encoder is given twice"),
        ({"more": {"encoder": {"name": "gcn"}}}, "encoder is given twice"),
        ({"more": {"method": {"tau": 4}}}, "tau is given twice, by its option as 3"),
        ({"more": {"method": "lp_ft"}}, "method lp_ft is not probed for tau epochs"),
        ({"more": {"task": {"split": "random"}}}, "task is the molecules that are given"),
        ({"more": {"task": {"nonsense": 3}}}, "task is the molecules that are given"),
        ({"more": {"finetune": {"momentum": 0.9}}}, "finetune.momentum would do nothing"),
        ({"tau": None, "more": {"method": "lp", "finetune": {"lr": 1}}}, "lp does not finetune"),
        ({"tau": None, "more": {"method": "l2_sp", "finetune": {"anchor": 0.5}}}, "method.anchor"),
        ({"more": {"members": False}}, "members is no key of this config: the option of that"),
    ],
)
def test_a_word_that_means_nothing_is_one_sentence(changes, says):
    with pytest.raises(ValueError, match=says) as caught:
        config(**changes)
    assert "\n" not in str(caught.value)


UNREADABLE = ("no molecule", "")
POOL = ["CCO", "CCN", "c1ccccc1", "Cc1ccccc1", "C1CC1C", "O=C1CCCC1", *UNREADABLE]
some_molecules = st.lists(st.sampled_from(POOL), max_size=40).map(
    lambda more: [*POOL, "CCC", *more]
)
SHARES = st.floats(0.2, 0.7)
BOTH = pytest.mark.parametrize("how", ["random", "scaffold"])


@BOTH
@settings(max_examples=25, deadline=None)
@given(smiles=some_molecules, share=SHARES, seed=st.integers(0, 99))
def test_every_readable_molecule_is_in_exactly_one_split(how, smiles, share, seed):
    found = holdout_split(smiles, how, validation=share, seed=seed)
    assert list(found) == ["train", "valid"]
    rows = torch.cat(list(found.values())).sort().values.tolist()
    assert rows == [k for k, text in enumerate(smiles) if text not in UNREADABLE]


@settings(max_examples=25, deadline=None)
@given(smiles=some_molecules, share=SHARES, seed=st.integers(0, 99))
def test_a_random_holdout_has_its_share_and_a_seed_draws_it_again(smiles, share, seed):
    found = holdout_split(smiles, "random", validation=share, seed=seed)
    distinct = {split: {smiles[row] for row in rows} for split, rows in found.items()}
    assert not distinct["train"] & distinct["valid"]
    assert abs(len(distinct["valid"]) - share * sum(map(len, distinct.values()))) <= 0.5 + 1e-9
    again = holdout_split(smiles, "random", validation=share, seed=seed)
    assert all(again[split].equal(rows) for split, rows in found.items())


@settings(max_examples=25, deadline=None)
@given(smiles=some_molecules, share=SHARES)
def test_a_scaffold_is_never_in_both_splits(smiles, share):
    found = holdout_split(smiles, "scaffold", validation=share, seed=0)
    train, valid = ({scaffold(parse(smiles[k])) for k in rows} for rows in found.values())
    assert not train & valid


MANY = [f"{'C' * k}C1CC1" if k % 2 else f"C1{'C' * k}CN1" for k in range(1, 101)]


@BOTH
def test_molecules_enough_are_set_aside_for_calibration(how):
    found = holdout_split(MANY, how, validation=0.1, seed=0)
    assert list(found) == ["train", "valid", "calibration"]
    assert torch.cat(list(found.values())).sort().values.tolist() == list(range(100))
    # a sixth: a tenth would be too few for sets worth having
    assert abs(len(found["calibration"]) - 100 / 6) <= 1


@pytest.mark.parametrize("sizes", [(119, 29), (40, 40, 40)])
def test_few_large_scaffolds_are_validated_on_and_calibrate_nothing(sizes):
    smiles = [f"C1{'C' * k}C1" for k, n in enumerate(sizes, 1) for _ in range(n)]
    found = holdout_split(smiles, "scaffold", validation=0.1, seed=0)
    assert {split: len(rows) for split, rows in found.items()} == {
        "train": sum(sizes[:-1]),
        "valid": sizes[-1],
    }


def test_a_random_holdout_deals_both_classes_to_every_split():
    y = (torch.arange(100) < 4).float()[:, None]
    found = holdout_split(MANY, "random", validation=0.1, seed=0, labels=y)
    assert [int(y[rows].sum()) for rows in found.values()] == [2, 1, 1]


@BOTH
@pytest.mark.parametrize("validation", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_share_lies_between_0_and_1(how, validation):
    with pytest.raises(ValueError, match="a share between 0 and 1, got"):
        holdout_split(POOL, how, validation=validation, seed=0)


@BOTH
@pytest.mark.parametrize("smiles", [[], ["CCO"], ["no molecule"], ["", "", "CC"]])
def test_what_leaves_a_split_empty_is_refused(how, smiles):
    with pytest.raises(ValueError, match=rf"{len(smiles)} molecules leave none to (train|valid)"):
        holdout_split(smiles, how, validation=0.1, seed=0)


SPLITS = ("valid", "test")


def members_of(folder, model):
    """Networks that the run has kept, by the key of their recipe, such as tau5."""
    found = {}
    for path in (folder.path / "members").glob("*.safetensors"):
        network = model.spec.network()
        network.load_state_dict(load_file(path))
        found[path.stem] = network.eval()
    return found


def test_networks_of_all_taus_are_blended_by_their_validation_logits(trained):
    model, folder = trained
    task = size_task()
    networks = members_of(folder, model)
    assert sorted(networks) == ["tau0", "tau2", "tau5"]
    logits = {key: predict(network, task, "valid").logits for key, network in networks.items()}
    labels = task.examples.take(task.rows("valid")).targets
    found = {f"tau{member['tau']}": member for member in model.about["members"]}
    for key, one in logits.items():
        assert found[key]["valid"] == pytest.approx(task.objective.score(one, labels))
    weights = blend_weights(
        list(logits.values()), lambda blended: task.objective.score(blended, labels)
    )
    assert [found[key]["weight"] for key in logits] == pytest.approx(weights)
    heaviest = list(logits)[weights.index(max(weights))]
    assert f"tau{model.about['chosen_tau']}" == heaviest
    assert sum(weight > 0 for weight in weights) == len(model.networks) > 1
    blended = sum(w * one for w, one in zip(weights, logits.values(), strict=True))
    score = task.objective.score(blended, labels)
    assert -model.about["scores"]["valid"]["rmse"] == pytest.approx(score, rel=1e-5)
    assert score > max(member["valid"] for member in found.values())


def networks_of(units, tmp_path):
    """Trained on the number of atoms, which can be learned, and on noise, in these units."""
    noise = torch.randn(len(SIZE), generator=torch.Generator().manual_seed(0))
    targets = torch.stack([torch.tensor(SIZE) * units[0], noise * units[1]], 1)
    two = {"targets": targets, "target_names": ("size", "noise"), "objective": Squared()}
    given = config(encoder=BRIEF["encoder"], tau=(0, 2), more=BRIEF["config"])
    task = ring_task(**two, standardise=True)
    _, (folder,) = train(given, task, tmp_path / "runs", Inference(members="networks"))
    files = sorted((folder.path / "members").glob("*.safetensors"))
    return {path.stem: load_file(path) for path in files}


def test_networks_are_the_same_whatever_unit_a_target_is_in(tmp_path):
    one, other = (networks_of(sizes, tmp_path) for sizes in ((1, 1024), (1024, 1)))
    assert list(one) == list(other) == ["tau0", "tau2"]
    for tau, tensors in one.items():
        assert all(torch.equal(tensor, other[tau][name]) for name, tensor in tensors.items())


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
    assert len(model.uncertainty.fingerprints) == len(model.training_smiles)
    assert model.about["notes"] == ["a note"]
    assert model.about["coverage"] == [
        "Prediction intervals are unbounded: there are no calibration molecules to bound them by.",
    ]
    assert model.about["sizes"] == {"train": 30, "valid": 16, "test": 14}


def trained_on(config, task, out, **inference):
    """A model of networks alone, and the folder of the run that made it."""
    model, (folder,) = train(config, task, out, Inference(members="networks", **inference))
    return model, folder


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
        trained_on(brief, one, tmp_path / name)[0]
        for name, one in (("ours", task), ("theirs", other))
    )
    answers, others = (model.predict(task.examples.smiles) for model in (ours, theirs))
    assert answers.values.equal(others.values)
    assert answers.std.equal(others.std)
    assert not answers.sets.nan_to_num(0, 0, 0).equal(others.sets.nan_to_num(0, 0, 0))
    assert ours.about["members"] == theirs.about["members"]


def test_thresholds_are_those_of_the_calibration_split(brief, tmp_path):
    task = with_splits(size_task(), train=30, valid=10, calibration=15, test=5)
    model, _ = trained_on(brief, task, tmp_path, target_coverage=0.8)
    rows = task.splits["calibration"]
    found = model.predict([task.examples.smiles[row] for row in rows.tolist()]).values
    errors = (found - task.objective.values(task.examples.targets[rows])).abs()
    held = model.held_out.splits["calibration"]
    scales = cross_fitted_scale(errors, held.std, held.similarity, held.logits, held.parts)
    # the ceil(16 * 0.8)-th of 15, for a molecule as near to training as can be
    expected = (errors / scales).flatten().sort().values[12]
    found = model.uncertainty.limits[-1] * torch.tensor(task.objective.std)
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=0)
    assert model.about["sizes"]["calibration"] == 15
    assert model.about["scores"]["calibration"]["coverage"] is None
    assert any("calibrated on 15 molecules" in line for line in model.about["coverage"])


def one_class(task, *splits):
    """The rings, with label 1 alone in these splits."""
    targets = task.examples.targets.clone()
    for split in splits:
        targets[task.splits[split]] = 1
    return replace(task, examples=replace(task.examples, targets=targets))


def test_a_test_split_of_one_class_costs_the_score_and_not_the_model(brief, tmp_path):
    model, _ = trained_on(brief, one_class(ring_task(), "test"), tmp_path)
    scores = model.about["scores"]
    assert scores["test"]["rocauc"] is None
    assert scores["valid"]["rocauc"] > 0.5


def test_validation_of_one_class_chooses_by_the_loss(brief, tmp_path):
    task = one_class(ring_task(), "valid", "test")
    model, folder = trained_on(brief, task, tmp_path)
    labels = torch.ones(16, 1)
    losses = {}
    for key, network in members_of(folder, model).items():
        logits = predict(network, task, "valid").logits
        losses[key] = task.objective.loss(logits, labels).item()
    best = max(model.about["members"], key=lambda member: member["valid"])
    assert f"tau{best['tau']}" == min(losses, key=losses.get)
    assert best["valid"] == pytest.approx(-min(losses.values()))
    assert model.about["scores"]["valid"]["rocauc"] is None


def test_every_target_that_was_never_validated_is_listed_with_the_model(brief, tmp_path):
    targets = torch.tensor([RING, [0.0, 1.0] + [float("nan")] * (len(RING) - 2)]).T
    task = ring_task(targets=targets, target_names=("ring", "rare"))
    rows = torch.tensor([0, 1])
    others = {s: r[~torch.isin(r, rows)] for s, r in task.splits.items()}
    task = replace(task, splits={**others, "train": torch.cat([rows, others["train"]])})
    model, _ = trained_on(brief, task, tmp_path)
    assert model.about["unscored"] == {"train": [], "valid": ["rare"], "test": ["rare"]}


def test_a_process_learned_rates_and_says_so_where_validation_cannot_calibrate_it(brief, tmp_path):
    task = ring_task()
    deal = [row for split in ("train", "valid", "test") for row in task.rows(split).tolist()]
    rings, chains = ([row for row in deal if RING[row] == label] for label in (1, 0))
    parts = {"train": chains[:25] + rings[:15], "valid": rings[15:25], "test": chains[25:]}
    task = replace(task, splits={split: torch.tensor(rows) for split, rows in parts.items()})
    model, _ = train(brief, task, tmp_path, Inference(members="fingerprints"))
    assert (model.predict([SMILES[row] for row in parts["test"]]).values < 0.5).all()


def test_a_process_is_not_certain_of_a_target_of_one_class(brief, tmp_path):
    targets = torch.tensor([RING, [1] * len(RING)], dtype=torch.float32).T
    targets[ring_task().rows("test"), 1] = 0
    task = ring_task(targets=targets, target_names=("ring", "known"))
    n = len(task.rows("train")) + len(task.rows("valid"))
    inference = Inference(members="fingerprints", calibration="none")
    model, _ = train(brief, task, tmp_path, inference)
    rate = torch.tensor((n + 1) / (n + 2), dtype=torch.float64)
    # its process says 1, and a logit rises by 4 with what stands for a probability
    expected = (rate.logit() + 4 * (1 - rate)).sigmoid()
    found = model.predict(SMILES[:5]).values[:, 1]
    torch.testing.assert_close(found, expected.expand(5), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["uniform_soup", "greedy_soup"])
def test_a_method_that_averages_weights_is_refused_before_training(brief, tmp_path, name):
    config = replace(brief, method=replace(brief.method, name=name))
    with pytest.raises(ValueError, match=f"method {name} averages the weights of networks"):
        trained_on(config, ring_task(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_training_molecules_of_one_class_are_refused_before_training(brief, tmp_path):
    with pytest.raises(ValueError, match="no target of rings has labels of both classes"):
        trained_on(brief, one_class(ring_task(), "train"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_with_one_tau_the_model_is_the_network_of_the_run(brief, tmp_path):
    method = replace(brief.method, options={"tau": (2,)})
    model, folder = trained_on(replace(brief, method=method), ring_task(), tmp_path)
    chosen = load_file(folder.path / "model.safetensors")
    (network,) = model.networks
    assert network.state_dict().keys() == chosen.keys()
    assert all(tensor.equal(chosen[name]) for name, tensor in network.state_dict().items())
    assert [m["tau"] for m in model.about["members"]] == [model.about["chosen_tau"]] == [2]


def test_taus_that_are_chosen_leave_their_candidates_as_members(brief, tmp_path):
    method = replace(brief.method, options={"tau": "auto"})
    probe = replace(brief.probe, epochs=6)
    config = replace(brief, method=method, probe=probe)
    model, folder = trained_on(config, ring_task(), tmp_path)
    tried = members_of(folder, model)
    assert len(tried) > 1
    answering = {f"tau{member['tau']}" for member in model.about["members"]}
    assert answering == {key.split("-")[0] for key in tried}


def test_probabilities_of_classes_are_scored(brief, tmp_path):
    task = ring_task()
    model, _ = trained_on(brief, task, tmp_path)
    for split in SPLITS:
        rows = task.rows(split)
        p = model.predict([task.examples.smiles[row] for row in rows]).values
        score = task.objective.score(p.logit(), task.examples.targets[rows].float())
        assert model.about["scores"][split]["rocauc"] == pytest.approx(score)


def test_a_task_without_molecules_is_refused(brief, tmp_path):
    with pytest.raises(ValueError, match="made of molecules with labels; toy has others"):
        trained_on(brief, toy_task(), tmp_path)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1e-05])
def test_a_member_is_named_by_the_settings_of_its_networks(smoothing):
    probe = Phase(trains="head", epochs=20, lr=0.1, smoothing=smoothing)
    recipe = Recipe(probe=probe, after=(), repeat=3)
    words = ["tau 20", f"smoothing {smoothing:g}", "repeat 3"]
    assert key_in_words(recipe.key).split(", ") == [w for w in words if w != "smoothing 0"]


@pytest.mark.parametrize("calibration", ["none", "temperature", "platt"])
def test_no_calibration_error_is_counted_where_the_scale_was_fitted(brief, tmp_path, calibration):
    inference = Inference(members="fingerprints", calibration=calibration)
    model, _ = train(brief, ring_task(), tmp_path, inference)
    valid, test = (model.about["scores"][split] for split in ("valid", "test"))
    assert valid["ece_before"] is None
    assert (valid["ece"] is None) == (calibration != "platt")
    assert None not in (test["ece_before"], test["ece"])


def test_a_note_on_an_encoder_is_left_out_where_no_member_reads_it(brief, tmp_path):
    notes = (Note("of data"), Note("of an encoder", of_encoder=True))
    inference = Inference(members="fingerprints")
    model, _ = train(brief, ring_task(), tmp_path, inference, notes=notes)
    assert model.about["notes"] == ["of data"]
    inference = Inference(members="networks")
    model, _ = train(brief, ring_task(), tmp_path / "networks", inference, notes=notes)
    assert model.about["notes"] == ["of data", "of an encoder"]
