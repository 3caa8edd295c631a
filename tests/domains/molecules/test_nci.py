import pytest
import torch
from rdkit import Chem, RDConfig
from rdkit.Chem import Descriptors

from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.molecules import computed_targets, nci
from molhpft.domains.molecules.nci import nci_alerts_task, nci_descriptors_task
from molhpft.domains.molecules.splits import scaffold_split


@pytest.fixture(scope="module")
def alerts():
    return nci_alerts_task()


@pytest.fixture(scope="module")
def descriptors():
    return nci_descriptors_task()


def test_the_molecules_are_strictly_readable_and_none_comes_twice():
    canonical = [Chem.MolToSmiles(Chem.MolFromSmiles(s)) for s in nci._molecules()]
    assert len(set(canonical)) == len(canonical) == 4892


@pytest.mark.slow
def test_every_molecule_is_in_exactly_one_split_of_ogbs_shares(alerts):
    rows = torch.cat(list(alerts.splits.values()))
    assert rows.sort().values.tolist() == list(range(len(alerts.examples)))
    assert [len(alerts.splits[name]) for name in ("train", "valid", "test")] == [3913, 489, 490]


@pytest.mark.slow
def test_pretraining_trains_on_no_molecule_that_is_tested_on_downstream(alerts, descriptors):
    assert alerts.examples.smiles == descriptors.examples.smiles
    trained = {descriptors.examples.smiles[i] for i in descriptors.splits["train"].tolist()}
    tested = {alerts.examples.smiles[i] for i in alerts.splits["test"].tolist()}
    assert not trained & tested
    ours = scaffold_split(alerts.examples.smiles)
    assert all(torch.equal(ours[name], alerts.splits[name]) for name in ours)


@pytest.mark.slow
def test_every_alert_has_a_fair_share_of_both_classes_in_every_split(alerts):
    assert alerts.objective == Multilabel(metric="rocauc")
    assert alerts.outputs == len(nci.ALERTS) == len(alerts.target_names)
    targets = alerts.examples.targets
    assert ((targets == 0) | (targets == 1)).all()
    for rows in alerts.splits.values():
        share = targets[rows].mean(0)
        assert ((share > 0.03) & (share < 0.6)).all()


@pytest.mark.slow
def test_no_two_alerts_are_the_same_label(alerts):
    assert len({tuple(column) for column in alerts.examples.targets.T.tolist()}) == alerts.outputs


@pytest.mark.slow
def test_the_catalog_that_was_left_out_is_another_taken_twice(alerts):
    left_out, taken = nci._catalog("CHEMBL_BMS"), nci._catalog("NIH")
    assert left_out.GetNumEntries() == taken.GetNumEntries()
    mols = [Chem.MolFromSmiles(smiles) for smiles in alerts.examples.smiles[:400]]
    assert [left_out.HasMatch(mol) for mol in mols] == [taken.HasMatch(mol) for mol in mols]


@pytest.mark.slow
def test_descriptors_are_standard_over_the_training_split(descriptors):
    assert descriptors.objective == Squared()
    train = descriptors.examples.targets[descriptors.splits["train"]].double()
    torch.testing.assert_close(train.nanmean(0), torch.zeros_like(train[0]), atol=1e-5, rtol=0)
    spread = (train - train.nanmean(0)).square().nanmean(0).sqrt()
    torch.testing.assert_close(spread, torch.ones_like(spread), atol=1e-3, rtol=0)
    measured = descriptors.examples.targets[~descriptors.examples.targets.isnan()]
    assert len(measured) > 0.99 * descriptors.examples.targets.numel()
    assert measured.abs().max() < 10


@pytest.mark.slow
def test_a_descriptor_rises_with_what_rdkit_computes_under_its_name(descriptors):
    assert descriptors.outputs == len(descriptors.target_names) > 80
    assert not [name for name in descriptors.target_names if name.startswith("fr_")]
    weight = descriptors.examples.targets[:200, descriptors.target_names.index("MolWt")]
    theirs = [
        Descriptors.MolWt(Chem.MolFromSmiles(smiles))
        for smiles in descriptors.examples.smiles[:200]
    ]
    order = torch.tensor(theirs).argsort()
    assert (weight[order].diff() >= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["alerts", "descriptors"])
def test_the_second_call_computes_nothing_and_gives_the_same(request, monkeypatch, task):
    first = request.getfixturevalue(task)
    for slow in ("_first_rows", "_alert_rows"):
        monkeypatch.setattr(nci, slow, lambda _: pytest.fail("computed again"))
    rows = dict.fromkeys(computed_targets.KINDS, lambda *_: pytest.fail("computed again"))
    monkeypatch.setattr(computed_targets, "_ROWS", rows)
    again = {"alerts": nci_alerts_task, "descriptors": nci_descriptors_task}[task]()
    assert again.fingerprint == first.fingerprint
    torch.testing.assert_close(again.examples.targets, first.examples.targets, equal_nan=True)


def test_an_rdkit_without_its_example_molecules_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(RDConfig, "RDDataDir", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"first_5K\.smi; this build of RDKit does not"):
        nci_alerts_task()
