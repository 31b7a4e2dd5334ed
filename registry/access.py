"""What a credential may: a key's scopes narrow what its owner may. Pure."""

from __future__ import annotations


def granted(permissions: frozenset[str], scopes: frozenset[str]) -> frozenset[str]:
    """What a key with these scopes may, held by somebody with these permissions."""
    if "admin" in permissions:
        return scopes
    return permissions if "admin" in scopes else permissions & scopes
