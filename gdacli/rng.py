"""Seeds and identities: everything random or addressed by content starts from a hash of names, never of positions."""

import hashlib
import json
from collections.abc import Iterable


def digest(*parts: object) -> str:
    """Hash JSON-able parts into 64 hexadecimal characters (SHA-256 of their canonical JSON).

    >>> digest("a", 1) == digest("a", 1) != digest("a", 2)
    True
    """
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def derive_seed(*parts: object) -> int:
    """Turn names and numbers into a seed in [0, 2**63).

    The seed of an image is `derive_seed(base_seed, source_key, strength, variant)`: it does not depend on the image's
    place in a batch, a worker or a run.
    """
    return int(digest(*parts)[:16], 16) >> 1


def uniform(*parts: object) -> float:
    """Turn names and numbers into a number in [0, 1): a split by fraction compares this with the fraction."""
    return derive_seed(*parts) / 2**63


def combine(digests: Iterable[str]) -> str:
    """Hash an ordered sequence of digests into one."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
