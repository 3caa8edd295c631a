"""Molecules: SMILES to packed graphs, data sets and splits, graph-convolution encoders."""
