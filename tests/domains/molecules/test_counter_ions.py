import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import rdBase

from molhpft.domains.molecules import counter_ions
from molhpft.domains.molecules.counter_ions import inchikey_block
from molhpft.domains.molecules.grouped_splits import replicates
from molhpft.domains.molecules.overlap import inchikey_blocks
from molhpft.domains.molecules.smiles import parse

BASE = "CN(C)CCc1ccccc1"
PAMOIC = "OC(=O)c1cc2ccccc2c(Cc2c(O)c(cc3ccccc23)C(=O)O)c1O"
LOSARTAN = "CCCCc1nc(Cl)c(CO)n1Cc1ccc(cc1)c1ccccc1c1n{}"
TOSYLATE = "Cc1ccc(cc1)S(=O)(=O)[O-]"
PARTS = [BASE, PAMOIC, TOSYLATE, "[Na+]", "[Zn+2]", "[Cl-]", "O", "NCCO", "CC(=O)O", "CC(C)=O", "C"]


UNDECYLENATE = "C=CCCCCCCCCC(=O)[O-]"
COMPLEXES = {
    "zinc undecylenate": (
        f"{UNDECYLENATE}.{UNDECYLENATE}.[Zn+2]",
        "C=CCCCCCCCCC(=O)O[Zn]OC(=O)CCCCCCCCC=C",
        "[Zn].C=CCCCCCCCCC(=O)O.C=CCCCCCCCCC(=O)O",
    ),
    "cisplatin": (
        "N.N.Cl[Pt]Cl",
        "[Cl-].[NH3].[Pt+2].[NH3].[Cl-]",
        "[NH3+][Pt-2](Cl)(Cl)[NH3+]",
        "N->[Pt](<-N)(Cl)Cl",
        "[NH3][Pt]([NH3])(Cl)Cl",
    ),
    "silver sulfadiazine": (
        "Nc1ccc(S(=O)(=O)[N-]c2ncccn2)cc1.[Ag+]",
        "Nc1ccc(S(=O)(=O)N([Ag])c2ncccn2)cc1",
    ),
    "ziram": ("CN(C)C(=S)S[Zn]SC(=S)N(C)C", "CN(C)C1=S[Zn]2(S1)SC(=S2)N(C)C"),
    "cerium acetate": (
        "[Ce](OC(C)=O)(OC(C)=O)OC(C)=O",
        "[Ce+3].CC([O-])=O.CC([O-])=O.CC([O-])=O",
    ),
    "phenylmercury acetate": ("c1ccccc1[Hg]OC(C)=O", "CC(=O)[O-].c1ccccc1[Hg+]"),
    "thiomersal": ("CC[Hg]Sc1ccccc1C(=O)O[Na]", "[K+].CC[Hg]Sc1ccccc1C(=O)[O-]"),
    "antimony tartrate": (
        "[Sb+3].[O-]C(=O)C(O)C(O)C(=O)[O-].[K+]",
        "OC(=O)C(O)C(O)C(=O)O.[Sb+3]",
    ),
}


def block(smiles):
    with rdBase.BlockLogs():
        return inchikey_block(parse(smiles))


@pytest.mark.parametrize(
    ("salt", "drug"),
    [
        (f"{BASE}.{PAMOIC}", BASE),
        (f"{BASE}.{BASE}.{PAMOIC}", BASE),
        (f"C[NH3+].{TOSYLATE}", "CN"),
        ("CN.OS(=O)(=O)c1ccccc1", "CN"),
        ("C1CNCCN1.OC(=O)CC(O)(CC(=O)O)C(=O)O", "C1CNCCN1"),
        ("NN.OS(=O)(=O)O", "NN"),
        ("CC(=O)O[Na]", "CC(=O)O"),
        ("CC(O)C(=O)O[Ca]OC(=O)C(C)O", "CC(O)C(=O)O"),
        ("[K+].[O-]c1ccccc1", "Oc1ccccc1"),
        (LOSARTAN.format("[n-]nn1") + ".[K+]", LOSARTAN.format("[nH]nn1")),
        ("[Na]N(c1ncccn1)S(=O)(=O)c1ccc(N)cc1", "N(c1ncccn1)S(=O)(=O)c1ccc(N)cc1"),
        ("Cn1cc[n+](CC)c1.FC(F)(F)S(=O)(=O)[N-]S(=O)(=O)C(F)(F)F", "Cn1cc[n+](CC)c1"),
        ("C[NH3+].[O-][N+](=O)[O-]", "CN"),
        ("c1c[nH]cn1.OC(=O)c1ccccc1O", "OC(=O)c1ccccc1O"),
        ("NCCO.CCCCCCCCC=CCCCCCCCC(=O)O", "CCCCCCCCC=CCCCCCCCC(=O)O"),
        (f"{PAMOIC}.CN(C)C=O", PAMOIC),
        ("C[S+](C)c1ccccc1.F[Sb-](F)(F)(F)(F)F", "C[S+](C)c1ccccc1"),
    ],
)
def test_a_salt_is_its_drug_however_large_the_counter_ion(salt, drug):
    assert block(salt) == block(drug) != ""


@pytest.mark.parametrize(
    ("drug", "solvent"),
    [
        ("OC(=O)c1ccccc1O", "ClCCl"),
        ("NC(CCC(=O)O)C(=O)O", "ClC(Cl)Cl"),
        ("OC(=O)CC(O)(CC(=O)O)C(=O)O", "OCC(O)CO"),
        ("OC(=O)c1cccnc1", "c1ccncc1"),
        ("CCCCCCCC(=O)O", "OCC(O)CO"),
        ("NC(N)=O", "OO"),
        ("[Na+].[Na+].[O-]C(=O)[O-]", "OO.OO.OO"),
        ("O=S(=O)(O)O", "C"),
        ("OC(=O)c1ccccc1", "C1COCCO1"),
        ("OC(=O)CCC(=O)O", "CCOCC"),
        ("CN", "ClC(Cl)Cl"),
        (PAMOIC, "C1CCOC1"),
    ],
)
def test_a_listed_acid_or_base_is_the_molecule_beside_a_smaller_solvent(drug, solvent):
    assert block(f"{drug}.{solvent}") == block(f"{solvent}.{drug}") == block(drug) != ""


@pytest.mark.parametrize("acid", [PAMOIC, TOSYLATE])
def test_a_counter_ion_that_is_alone_is_a_molecule_of_its_own(acid):
    assert block(acid) == block(f"{acid}.[Na+]") == block(f"O.{acid}")
    assert block(acid) != block(BASE)


def test_drugs_with_one_large_counter_ion_are_different_molecules():
    assert replicates([f"{BASE}.{PAMOIC}", f"CCN.{PAMOIC}", PAMOIC]) == [[0], [1], [2]]


@pytest.mark.parametrize("drawings", COMPLEXES.values(), ids=COMPLEXES)
def test_a_complex_is_one_however_bonds_to_its_metal_are_drawn(drawings):
    assert len({block(smiles) for smiles in drawings} - {""}) == 1


@pytest.mark.parametrize("drawings", COMPLEXES.values(), ids=COMPLEXES)
def test_a_complex_is_neither_one_of_its_ligands_nor_that_of_another_metal(drawings):
    parts = drawings[0].split(".")
    metals = ("[Zn", "[Pt", "[Ag", "[Ce", "[Hg", "[Sb")
    other = drawings[0]
    for metal in metals:
        other = other.replace(metal, "[Cu")
    assert block(drawings[0]) not in {block(part) for part in parts if part not in drawings}
    assert block(drawings[0]) != block(other)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_the_parts_does_not_matter(parts, random):
    mixed = parts.copy()
    random.shuffle(mixed)
    assert block(".".join(parts)) == block(".".join(mixed)) != ""


def test_inorganic_salts_are_told_apart():
    assert len({block("[Na+].[Cl-]"), block("[K+].[Cl-]"), block("O"), block("[Na+].[Br-]")}) == 4


def test_a_metal_bound_to_an_atom_of_too_many_bonds_has_a_key_or_none_but_no_error():
    assert inchikey_blocks(["CN(C)(C)(C)[Na]", "[Na]N(C)(C)(C)C.CC", "CC"])[2] != b""


def test_keys_in_the_cache_are_of_the_list_of_today(monkeypatch):
    salt = "CCCCCCN.CN"
    assert inchikey_blocks([salt]) == inchikey_blocks(["CCCCCCN"])
    monkeypatch.setitem(counter_ions._COUNTER_IONS, "hexylamine", "CCCCCCN")
    counter_ions._counter_ion_blocks.cache_clear()
    try:
        assert inchikey_blocks([salt]) == inchikey_blocks(["CN"])
    finally:
        counter_ions._counter_ion_blocks.cache_clear()
