"""The figures and tables of Ren et al. (2023), each by its name."""
