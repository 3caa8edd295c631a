"""Seeds for every purpose of a run, from its one seed."""

import hashlib


def stream(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose, so that none uses up another's random numbers."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2
