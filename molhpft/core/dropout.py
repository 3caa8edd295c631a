"""What dropout draws."""

import torch


def seed_dropout(seed: int, device: torch.device) -> None:
    """Seed the global generators that dropout on a device draws from.

    Seeded at every step from a generator of ours, they leave no state of their own to be kept.
    """
    # not torch.manual_seed, which asks about every kind of device and takes 80 times as long
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
