"""What a drug is given with as a salt: acids, bases and ions that are not the drug themselves."""

import json
from functools import cache, reduce

from rdkit import Chem
from rdkit.Chem import rdinchi
from rdkit.Chem.MolStandardize import rdMolStandardize

from molhpft.domains.files import digest

BLOCK_LENGTH = 14
"""Letters of an InChIKey that stand for formula and connectivity."""

_VERSION = 4  # raised with every change of `inchikey_block` beside that of the list
_CARBON = 6
_METAL_IONS = frozenset((3, 11, 12, 19, 20, 37, 38, 55, 56))  # of groups 1 and 2, but beryllium
_OTHER_METALS = frozenset(
    (4, 13, *range(21, 32), *range(39, 52), *range(57, 85), *range(89, 113))
)  # antimony is one, germanium and arsenic are none

# where all parts of a molecule stand here it is the largest, so that a drug may stand here, too
_COUNTER_IONS = {
    # sulfonic and sulfuric acids
    "mesylate": "CS(=O)(=O)O",
    "esylate": "CCS(=O)(=O)O",
    "isethionate": "OCCS(=O)(=O)O",
    "edisylate": "OS(=O)(=O)CCS(=O)(=O)O",
    "besylate": "OS(=O)(=O)c1ccccc1",
    "tosylate": "Cc1ccc(cc1)S(=O)(=O)O",
    "closylate": "OS(=O)(=O)c1ccc(Cl)cc1",
    "dodecylbenzenesulfonate": "CCCCCCCCCCCCc1ccc(cc1)S(=O)(=O)O",
    "sulfosalicylate": "OC(=O)c1cc(ccc1O)S(=O)(=O)O",
    "napsylate": "OS(=O)(=O)c1ccc2ccccc2c1",
    "1-napsylate": "OS(=O)(=O)c1cccc2ccccc12",
    "napadisylate": "OS(=O)(=O)c1cccc2c1cccc2S(=O)(=O)O",
    "camsylate": "CC1(C)C2CCC1(CS(=O)(=O)O)C(=O)C2",
    "cyclamate": "OS(=O)(=O)NC1CCCCC1",
    "sulfate": "OS(=O)(=O)O",
    "methyl sulfate": "COS(=O)(=O)O",
    "ethyl sulfate": "CCOS(=O)(=O)O",
    "lauryl sulfate": "CCCCCCCCCCCCOS(=O)(=O)O",
    "docusate": "CCCCC(CC)COC(=O)CC(C(=O)OCC(CC)CCCC)S(=O)(=O)O",
    "triflate": "OS(=O)(=O)C(F)(F)F",
    "triflimide": "FC(F)(F)S(=O)(=O)NS(=O)(=O)C(F)(F)F",
    # carboxylic acids
    "acetate": "CC(=O)O",
    "trifluoroacetate": "OC(=O)C(F)(F)F",
    "propionate": "CCC(=O)O",
    "caproate": "CCCCCC(=O)O",
    "caprylate": "CCCCCCCC(=O)O",
    "caprate": "CCCCCCCCCC(=O)O",
    "laurate": "CCCCCCCCCCCC(=O)O",
    "palmitate": "CCCCCCCCCCCCCCCC(=O)O",
    "stearate": "CCCCCCCCCCCCCCCCCC(=O)O",
    "oleate": "CCCCCCCCC=CCCCCCCCC(=O)O",
    "undecylenate": "C=CCCCCCCCCC(=O)O",
    "glycolate": "OCC(=O)O",
    "lactate": "CC(O)C(=O)O",
    "levulinate": "CC(=O)CCC(=O)O",
    "oxalate": "OC(=O)C(=O)O",
    "malonate": "OC(=O)CC(=O)O",
    "succinate": "OC(=O)CCC(=O)O",
    "fumarate or maleate": "OC(=O)C=CC(=O)O",
    "malate": "OC(=O)CC(O)C(=O)O",
    "tartrate": "OC(=O)C(O)C(O)C(=O)O",
    "dibenzoyltartrate": "OC(=O)C(OC(=O)c1ccccc1)C(OC(=O)c1ccccc1)C(=O)O",
    "ditoluoyltartrate": "Cc1ccc(cc1)C(=O)OC(C(=O)O)C(OC(=O)c1ccc(C)cc1)C(=O)O",
    "glutarate": "OC(=O)CCCC(=O)O",
    "adipate": "OC(=O)CCCCC(=O)O",
    "sebacate": "OC(=O)CCCCCCCCC(=O)O",
    "camphorate": "CC1(C)C(CCC1(C)C(=O)O)C(=O)O",
    "citrate": "OC(=O)CC(O)(CC(=O)O)C(=O)O",
    "gluconate": "OCC(O)C(O)C(O)C(O)C(=O)O",
    "glucoheptonate": "OCC(O)C(O)C(O)C(O)C(O)C(=O)O",
    "glucuronate": "OC1OC(C(=O)O)C(O)C(O)C1O",
    "glucuronate, open": "O=CC(O)C(O)C(O)C(O)C(=O)O",
    "mucate": "OC(=O)C(O)C(O)C(O)C(O)C(=O)O",
    "lactobionate": "OCC(O)C(OC1OC(CO)C(O)C(O)C1O)C(O)C(O)C(=O)O",
    "pantothenate": "CC(C)(CO)C(O)C(=O)NCCC(=O)O",
    "ascorbate": "OCC(O)C1OC(=O)C(O)=C1O",
    "benzoate": "OC(=O)c1ccccc1",
    "salicylate": "OC(=O)c1ccccc1O",
    "gentisate": "OC(=O)c1cc(O)ccc1O",
    "acedoben": "CC(=O)Nc1ccc(cc1)C(=O)O",
    "mandelate": "OC(C(=O)O)c1ccccc1",
    "cinnamate": "OC(=O)C=Cc1ccccc1",
    "hippurate": "OC(=O)CNC(=O)c1ccccc1",
    "nicotinate": "OC(=O)c1cccnc1",
    "orotate": "OC(=O)c1cc(=O)[nH]c(=O)[nH]1",
    "pyroglutamate": "OC(=O)C1CCC(=O)N1",
    "xinafoate": "OC(=O)c1ccc2ccccc2c1O",
    "3-hydroxy-2-naphthoate": "OC(=O)c1cc2ccccc2cc1O",
    "pamoate": "OC(=O)c1cc2ccccc2c(Cc2c(O)c(cc3ccccc23)C(=O)O)c1O",
    "formate": "OC=O",
    "carbonate": "OC(=O)O",
    # other acids
    "phosphate": "OP(=O)(O)O",
    "nitrate": "O[N+](=O)[O-]",
    "perchlorate": "OCl(=O)(=O)=O",
    "hexafluorophosphate": "F[P-](F)(F)(F)(F)F",
    "hexafluoroantimonate": "F[Sb-](F)(F)(F)(F)F",
    "tetrafluoroborate": "F[B-](F)(F)F",
    "tetraphenylborate": "c1ccc(cc1)[B-](c1ccccc1)(c1ccccc1)c1ccccc1",
    "picrate": "Oc1c(cc(cc1[N+](=O)[O-])[N+](=O)[O-])[N+](=O)[O-]",
    "saccharinate": "O=C1NS(=O)(=O)c2ccccc12",
    "acesulfamate": "CC1=CC(=O)NS(=O)(=O)O1",
    # amino acids, bases and quaternary ions
    "glycine": "NCC(=O)O",
    "aspartate": "NC(CC(=O)O)C(=O)O",
    "glutamate": "NC(CCC(=O)O)C(=O)O",
    "lysine": "NCCCCC(N)C(=O)O",
    "arginine": "NC(CCCN=C(N)N)C(=O)O",
    "meglumine": "CNCC(O)C(O)C(O)C(O)CO",
    "trometamol": "NC(CO)(CO)CO",
    "triethanolamine": "OCCN(CCO)CCO",
    "diethanolamine": "OCCNCCO",
    "ethanolamine": "OCCN",
    "ethylenediamine": "NCCN",
    "diethylamine": "CCNCC",
    "isopropylamine": "CC(C)N",
    "erbumine": "CC(C)(C)N",
    "imidazole": "c1c[nH]cn1",
    "choline": "C[N+](C)(C)CCO",
    "epolamine": "OCCN1CCCC1",
    "triethylamine": "CCN(CC)CC",
    "cyclohexylamine": "NC1CCCCC1",
    "dicyclohexylamine": "C1CCC(CC1)NC1CCCCC1",
    "benethamine": "C(CNCc1ccccc1)c1ccccc1",
    "benzathine": "C(CNCc1ccccc1)NCc1ccccc1",
    "hydrabamine": ("CC(C)c1ccc2c(c1)CCC1C2(C)CCCC1(C)CNCCNCC1(C)CCCC2(C)c3ccc(cc3CCC12)C(C)C"),
    "tetraethylammonium": "CC[N+](CC)(CC)CC",
    "tetrabutylammonium": "CCCC[N+](CCCC)(CCCC)CCCC",
    # what molecules crystallise with
    "methanol": "CO",
    "ethanol": "CCO",
    "isopropanol": "CC(C)O",
    "acetone": "CC(C)=O",
    "acetonitrile": "CC#N",
    "ethyl acetate": "CCOC(C)=O",
    "dimethylformamide": "CN(C)C=O",
    "dimethyl sulfoxide": "CS(C)=O",
    "toluene": "Cc1ccccc1",
    "benzene": "c1ccccc1",
    "pentane": "CCCCC",
    "hexane": "CCCCCC",
    "heptane": "CCCCCCC",
    "cyclohexane": "C1CCCCC1",
    "methane": "C",
    "dichloromethane": "ClCCl",
    "chloroform": "ClC(Cl)Cl",
    "tetrachloromethane": "ClC(Cl)(Cl)Cl",
    "1,2-dichloroethane": "ClCCCl",
    "diethyl ether": "CCOCC",
    "tert-butyl methyl ether": "COC(C)(C)C",
    "dioxane": "C1COCCO1",
    "tetrahydrofuran": "C1CCOC1",
    "propanol": "CCCO",
    "butanol": "CCCCO",
    "2-butanone": "CCC(C)=O",
    "nitromethane": "C[N+](=O)[O-]",
    "dimethylacetamide": "CN(C)C(C)=O",
    "N-methylpyrrolidone": "CN1CCCC1=O",
    "pyridine": "c1ccncc1",
    "ethylene glycol": "OCCO",
    "propylene glycol": "CC(O)CO",
    "glycerol": "OCC(O)CO",
    "hydrogen peroxide": "OO",
    "urea": "NC(N)=O",
}


def block_rule() -> str:
    """Name of the rule of `inchikey_block`, another one with every change of the list above."""
    return digest(json.dumps([_VERSION, *_COUNTER_IONS.values()]))


def inchikey_block(mol: Chem.Mol) -> str:
    """First block of the InChIKey of a molecule without its counter-ions; "" where it has no InChI.

    Of several parts, the molecule is the largest by heavy atoms that is no known counter-ion; if
    all are known, the largest of them. Of equally large ones it is that whose key comes last in the
    alphabet. Ions of one atom, water and ammonia count only where there is nothing else: the key
    is then that of all parts together. Metals of groups 1 and 2 are ions, also where the molecule
    is drawn with bonds to them. Salts and complexes of other metals are known by metal and ligands
    together, whether bonds between them are drawn or not.
    """
    parts = Chem.GetMolFrags(_without_metal_bonds(mol), asMols=True, sanitizeFrags=False)
    parts = tuple(map(_without_charge, parts))
    if any(_has_other_metal(part) and not _is_counter_ion(part) for part in parts):
        return _complex_block(mol)
    if len(parts) == 1:
        return _block(parts[0])
    sized = [(part.GetNumHeavyAtoms(), _block(part)) for part in parts if not _is_lone_atom(part)]
    drugs = [own for own in sized if own[1] not in _counter_ion_blocks()]
    return max(drugs or sized or [(0, _block(mol))])[1]


def _complex_block(mol: Chem.Mol) -> str:
    """Block of neutral metals and ligands side by side; metals of groups 1 and 2 are left out."""
    disconnector = rdMolStandardize.MetalDisconnector()
    disconnector.SetMetalNof(_any_of_metals_bound())
    parted = Chem.RWMol(_disconnected(_without_metal_bonds(mol), disconnector))
    for atom in parted.GetAtoms():
        if atom.GetAtomicNum() in _OTHER_METALS:  # drawings differ in where its charge stands
            atom.SetFormalCharge(0)
            atom.SetNumRadicalElectrons(0)
    parts = Chem.GetMolFrags(parted, asMols=True, sanitizeFrags=False)
    remaining = [part for part in parts if part.GetAtomWithIdx(0).GetAtomicNum() not in _METAL_IONS]
    return _block(reduce(Chem.CombineMols, map(_without_charge, remaining)))


@cache
def _any_of_metals_bound() -> Chem.Mol:
    metals = ",".join(f"#{number}" for number in sorted(_OTHER_METALS))
    others = "".join(f"!#{number}" for number in sorted(_OTHER_METALS))
    return Chem.MolFromSmarts(f"[{metals}]~[{others}]")


def _has_other_metal(part: Chem.Mol) -> bool:
    return any(atom.GetAtomicNum() in _OTHER_METALS for atom in part.GetAtoms())


def _is_counter_ion(part: Chem.Mol) -> bool:
    return _block(part) in _counter_ion_blocks()


def _is_lone_atom(part: Chem.Mol) -> bool:
    """Whether it has one heavy atom at most, and that no carbon: an ion, water or ammonia."""
    heavy = [atom.GetAtomicNum() for atom in part.GetAtoms() if atom.GetAtomicNum() > 1]
    return not heavy or (len(heavy) == 1 and heavy[0] != _CARBON)


def _without_metal_bonds(mol: Chem.Mol) -> Chem.Mol:
    """The molecule with metals of groups 1 and 2 as ions."""
    metals = [atom for atom in mol.GetAtoms() if atom.GetAtomicNum() in _METAL_IONS]
    if not any(atom.GetDegree() for atom in metals):
        return mol
    return _disconnected(mol, rdMolStandardize.MetalDisconnector())


def _disconnected(mol: Chem.Mol, disconnector: rdMolStandardize.MetalDisconnector) -> Chem.Mol:
    try:
        return disconnector.Disconnect(mol)
    except ValueError:  # a molecule that is read in spite of its valences
        return mol


def _without_charge(part: Chem.Mol) -> Chem.Mol:
    """The part with its protons: InChI itself takes an anion of nitrogen for another molecule."""
    if not any(atom.GetFormalCharge() for atom in part.GetAtoms()):
        return part
    try:
        return rdMolStandardize.Uncharger().uncharge(part)
    except ValueError:  # as above
        return part


@cache
def _counter_ion_blocks() -> frozenset[str]:
    ions = map(Chem.MolFromSmiles, _COUNTER_IONS.values())
    return frozenset(_block(_without_charge(ion)) for ion in ions)


def _block(mol: Chem.Mol) -> str:
    key: str = rdinchi.MolToInchiKey(mol)
    return key[:BLOCK_LENGTH]
