"""Molecules: SMILES to packed graphs, data sets and splits, graph-convolution encoders.

Tasks come from `tables` (anybody's file: `table_files` reads its cells, `target_columns` its
labels), `ogb`, `nci` and `pretraining`; all end in `examples.molecule_task`, with rows from
`splits`. `smiles` turns molecules into numbers and `graphs` into batches; `gcn` and `pyg` are
encoders of these, for which `checkpoints` reads the weights of others. `fingerprints`, `overlap`
and `draw` compare molecules and show them.
"""
