"""Files laid out as those of pretrain-gnns and MolCLR, and what they compute, written out densely.

One molecule at a time, from RDKit's atoms and bonds, by the formulas of the papers.
"""

import torch
from rdkit import Chem
from torch.nn import functional as F

LAYOUTS = ("gcn", "sage", "gat", "gin", "molclr gcn", "molclr gin")
ENCODERS = dict(
    zip(
        LAYOUTS,
        (
            *("gcn_pretrain_gnns", "sage_pretrain_gnns", "gat_pretrain_gnns", "gin_pretrain_gnns"),
            *("gcn_molclr", "gin_molclr"),
        ),
        strict=True,
    )
)
PROJECTION = 7
TYPES = ["SINGLE", "DOUBLE", "TRIPLE", "AROMATIC"]
DIRECTIONS = ["NONE", "ENDUPRIGHT", "ENDDOWNRIGHT"]
CHIRALITIES = ["CHI_UNSPECIFIED", "CHI_TETRAHEDRAL_CW", "CHI_TETRAHEDRAL_CCW"]
NO_ELEMENT, SELF_LOOP = 118, 4


def published_shapes(layout, *, layers=2, width=4):
    """Shapes of the tensors of a checkpoint by their published names."""
    d, molclr = width, layout.startswith("molclr")
    linear = {"linear.weight": (d, d), "linear.bias": (d,)}
    mlp = {"mlp.0.weight": (2 * d, d), "mlp.0.bias": (2 * d,)}
    mlp |= {"mlp.2.weight": (d, 2 * d), "mlp.2.bias": (d,)}
    attention = {"att": (1, 2, 2 * d), "bias": (d,)}
    attention |= {"weight_linear.weight": (2 * d, d), "weight_linear.bias": (2 * d,)}
    plain = {"weight": (d, d), "bias": (d,)}
    own = dict(zip(LAYOUTS, (linear, linear, attention, mlp, plain, mlp), strict=True))[layout]
    length = {"gat": 2 * d, "molclr gcn": 1}.get(layout, d)
    bonds = {"edge_embedding1.weight": (5 if molclr else 6, length)}
    bonds |= {"edge_embedding2.weight": (3, length)}
    norm = {name: (d,) for name in ("weight", "bias", "running_mean", "running_var")}
    shapes = {"x_embedding1.weight": (119 if molclr else 120, d), "x_embedding2.weight": (3, d)}
    for k in range(layers):
        shapes |= {f"gnns.{k}.{name}": shape for name, shape in (own | bonds).items()}
        shapes |= {f"batch_norms.{k}.{name}": shape for name, shape in norm.items()}
        shapes |= {f"batch_norms.{k}.num_batches_tracked": ()}
    if molclr:
        shapes |= {"feat_lin.weight": (PROJECTION, d), "feat_lin.bias": (PROJECTION,)}
        shapes |= {"out_lin.0.weight": (PROJECTION, PROJECTION), "out_lin.0.bias": (PROJECTION,)}
    return shapes


def published(layout, *, layers=2, width=4):
    """A checkpoint with random weights, as it would be saved."""
    rng = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in published_shapes(layout, layers=layers, width=width).items():
        tensors[name] = torch.randn(shape, generator=rng)
        if name.endswith("running_var"):
            tensors[name] = tensors[name].abs() + 0.5
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(9)
    return with_rows_of_unit_length(tensors) if layout == "sage" else tensors


def with_rows_of_unit_length(tensors):
    """Batch norms as GraphSAGE leaves them: E|x|^2 = sum(mean^2 + variance) = 1."""
    ready = dict(tensors)
    for name, mean in tensors.items():
        if name.endswith("running_mean"):
            d = len(mean)
            ready[name] = torch.full_like(mean, 0.5 * d**-0.5)
            ready[name.replace("mean", "var")] = torch.full_like(mean, 0.75 / d)
    return ready


def written_out(layout, tensors, smiles):
    """Features of one molecule, (d,)."""
    atoms, kinds, directions, joined = _dense(smiles)
    h = tensors["x_embedding1.weight"][atoms[0]] + tensors["x_embedding2.weight"][atoms[1]]
    layers = sum(name.endswith("running_mean") for name in tensors)
    for k in range(layers):
        own = {n.split(".", 2)[2]: t for n, t in tensors.items() if n.startswith(f"gnns.{k}.")}
        edges = own["edge_embedding1.weight"][kinds] + own["edge_embedding2.weight"][directions]
        h = _FORMULAS[layout](own, h, edges, joined)
        norm = {n.split(".")[2]: t for n, t in tensors.items() if n.startswith(f"batch_norms.{k}.")}
        h = (h - norm["running_mean"]) / (norm["running_var"] + 1e-5).sqrt()
        h = h * norm["weight"] + norm["bias"]
        h = F.relu(h) if k < layers - 1 else h
    z = h.mean(0)
    if "feat_lin.weight" in tensors:
        z = tensors["feat_lin.weight"] @ z + tensors["feat_lin.bias"]
    return z


def _dense(smiles):
    """Element and chirality of each atom; type, direction and presence of each pair, (a, a)."""
    mol = Chem.MolFromSmiles(smiles)
    elements = [a.GetAtomicNum() - 1 if a.GetAtomicNum() else NO_ELEMENT for a in mol.GetAtoms()]
    chirality = [CHIRALITIES.index(str(a.GetChiralTag())) for a in mol.GetAtoms()]
    kinds = torch.full((len(elements), len(elements)), SELF_LOOP)
    directions, joined = torch.zeros_like(kinds), torch.eye(len(elements))
    for bond in mol.GetBonds():
        i, j, kind = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), str(bond.GetBondType())
        for pair in ((i, j), (j, i)):
            # dative bonds are drawn as single ones
            kinds[pair] = TYPES.index(kind) if kind in TYPES else 0
            directions[pair] = DIRECTIONS.index(str(bond.GetBondDir()))
            joined[pair] = 1
    return torch.tensor([elements, chirality]), kinds, directions, joined


def _gcn(own, h, edges, joined):
    x = h @ own["linear.weight"].T + own["linear.bias"]
    root = joined.sum(1).rsqrt()
    weights = joined * root[:, None] * root
    return (weights[..., None] * (x + edges)).sum(1)


def _sage(own, h, edges, joined):
    x = h @ own["linear.weight"].T + own["linear.bias"]
    mean = (joined[..., None] * (x + edges)).sum(1) / joined.sum(1, keepdim=True)
    return mean / mean.norm(dim=1, keepdim=True)


def _gat(own, h, edges, joined):
    x = (h @ own["weight_linear.weight"].T + own["weight_linear.bias"]).view(len(h), 2, -1)
    sent = x + edges.view(len(h), len(h), 2, -1)
    pairs = torch.cat([x[:, None].expand_as(sent), sent], -1)
    scores = F.leaky_relu((pairs * own["att"]).sum(-1), 0.2)
    weights = joined[..., None] * scores.exp()
    weights = weights / (weights.sum(1, keepdim=True) + 1e-16)
    return (weights[..., None] * sent).sum(1).mean(1) + own["bias"]


def _gin(own, h, edges, joined):
    total = (joined[..., None] * (h + edges)).sum(1)
    hidden = F.relu(total @ own["mlp.0.weight"].T + own["mlp.0.bias"])
    return hidden @ own["mlp.2.weight"].T + own["mlp.2.bias"]


def _molclr_gcn(own, h, edges, joined):
    return (joined[..., None] * (h @ own["weight"] + edges)).sum(1) + own["bias"]


_FORMULAS = dict(zip(LAYOUTS, (_gcn, _sage, _gat, _gin, _molclr_gcn, _gin), strict=True))
