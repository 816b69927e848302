"""Random numbers that follow from a seed and a name alone."""

import hashlib

import torch


def seeded_generator(seed: int, *names: str) -> torch.Generator:
    """CPU generator for one tensor: its draws depend on the seed and the names, not on the order
    in which tensors are drawn or on the number of ranks."""
    digest = hashlib.sha256("/".join([str(seed), *names]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
