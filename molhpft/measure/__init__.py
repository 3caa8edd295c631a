"""Energy and what happened to the features, as functions of snapshots or networks.

Nothing here trains: a network that is looked at keeps its weights, gradients and modes, and random
numbers come from a generator or as vectors that the caller has drawn.
"""
