"""(seed, epoch, index) to draws: the one door to randomness.

No global random state is read or changed, so workers, ranks and resumed runs agree.
"""

from __future__ import annotations

import hashlib
import random


def key_digest(*key: object) -> int:
    """128 bits from the key. Hashed, not added: upstream's `seed + epoch` gives seed 42's second epoch to seed 43."""
    text = "/".join(map(str, key)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big")


def generator(seed: int, epoch: int, index: int, purpose: str) -> random.Random:
    """A generator of its own for one purpose of one composite, so that one use never shifts another's draws."""
    return random.Random(key_digest(seed, epoch, index, purpose))


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The order in which an epoch takes its `count` batches."""
    return generator(seed, epoch, 0, "order").sample(range(count), count)


def noise_seed(seed: int, epoch: int, index: int, rank: int) -> int:
    """What the trainer's generator starts from for batch `index` of an epoch, 63 bits: noise and timesteps do not
    depend on what was drawn before, so a resumed run draws what an undisturbed one does."""
    return generator(seed, epoch, index, f"noise {rank}").getrandbits(63)
