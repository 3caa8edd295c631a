"""Molecules: SMILES to packed graphs, data sets and splits, graph encoders.

Tasks come from `tables` (anybody's file: `table_files` reads its cells, `target_columns` its
labels), `ogb` and `nci`, which end in `examples.molecule_task` with rows from `splits`, and from
`pretraining`, whose molecules are those of `pretraining_sources` and whose targets those of
`computed_targets`. `smiles` turns molecules into numbers and `graphs` into batches; `gcn`, `gine`,
`pretrain_gnns`, `dmpnn` and `pyg` are encoders of these, for which `checkpoints` and
`chemprop_files` read the weights of others. `fingerprints`, `overlap` and `draw` compare molecules
and show them.
"""
