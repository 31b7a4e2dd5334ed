"""How objects are to be encrypted: what a request that writes one carries, and what storage must say of each.

By the storage (SSE-S3, SSE-KMS), by us before it gets them (`shared.envelope`), or not at all. Where we have master keys,
what they sealed is opened whatever is wished now, so that one can go from one way to another.
"""

from __future__ import annotations

from typing import Any, Literal

from shared.envelope import LABEL, DataKey, MasterKeys, plain_size, wrong_storage_key
from shared.errors import DependencyUnavailable

Algorithm = Literal["none", "AES256", "aws:kms", "envelope"]


class Encryption:
    """One wish for all objects. Raises `ValueError` for an envelope without a key."""

    def __init__(
        self, algorithm: Algorithm = "none", kms_key: str | None = None, keys: MasterKeys | None = None
    ) -> None:
        self.wanted = algorithm != "none"
        self.sealing = algorithm == "envelope"
        self.keys = keys
        if self.sealing and keys is None:
            raise ValueError("S3_ENCRYPTION=envelope needs STORAGE_KEY, such as `openssl rand -base64 32` gives")
        self._algorithm = algorithm
        self.parameters: Any = {}
        """What every request that writes has to carry."""
        if self.wanted and not self.sealing:
            self.parameters["ServerSideEncryption"] = algorithm
            if kms_key is not None:
                self.parameters["SSEKMSKeyId"] = kms_key

    def begin(self) -> tuple[DataKey | None, Any]:
        """For a new object: its key, where we seal it, and what the request has to carry."""
        if not self.sealing or self.keys is None:
            return None, self.parameters
        key = DataKey()
        return key, {"Metadata": {LABEL: self.keys.wrap(key)}}

    def key_of(self, answer: Any) -> DataKey | None:
        """The key of an object that storage answers with; None where it lies there as it is, and may.

        Raises `DependencyUnavailable`: `not_encrypted`, `wrong_storage_key` or `object_altered`.
        """
        label = label_of(answer)
        if label is None and self.sealing:
            raise DependencyUnavailable(
                "not_encrypted",
                "An object in storage is not encrypted, and S3_ENCRYPTION=envelope lets none pass: "
                "`slipway-admin storage check --encrypt` encrypts what is there from before.",
            )
        if label is None:
            return None
        if self.keys is None:
            raise wrong_storage_key("in an envelope, and there is no STORAGE_KEY")
        return self.keys.unwrap(label)

    def carried(self, answer: Any) -> dict[str, str]:
        """The metadata for a copy, in which the object's key is wrapped by the current master key."""
        metadata = {name: value for name, value in answer["Metadata"].items() if name.lower() != LABEL}
        label = label_of(answer)
        if label is not None and self.keys is not None:
            metadata[LABEL] = label if self.keys.is_current(label) else self.keys.wrap(self.keys.unwrap(label))
        return metadata

    def fits(self, answer: Any) -> bool:
        """Whether the storage says of an object that it is encrypted as wished. One without a byte has nothing to encrypt."""
        label = label_of(answer)
        if self.sealing and self.keys is not None:
            return label is not None and self.keys.is_current(label)
        if label is not None:
            return False
        key = self.parameters.get("SSEKMSKeyId")
        named = str(answer.get("SSEKMSKeyId", ""))
        right_key = key is None or named == key or named.endswith(f"/{key}")
        as_wished = answer.get("ServerSideEncryption") == self._algorithm and right_key
        return not self.wanted or answer.get("ContentLength") == 0 or as_wished

    def listed_size(self, size: int) -> int:
        """The content's size of an object of which a list says only how long it is. Right for those that are as wished."""
        return plain_size(size) if self.sealing else size


def label_of(answer: Any) -> str | None:
    """The label of a sealed object. Some servers write names of metadata in another case."""
    metadata = answer.get("Metadata", {})
    return next((value for name, value in metadata.items() if name.lower() == LABEL), None)


def size_of(answer: Any) -> int:
    """The content's size of the object that an answer is about."""
    size: int = answer["ContentLength"]
    return size if label_of(answer) is None else plain_size(size)
