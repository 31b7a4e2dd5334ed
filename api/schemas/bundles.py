"""What a bundle says, as far as this instance reads it, and what became of an import."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from api.schemas.examples import SHA, example

_KEY = "5d41402abc4b2a76b9719d911017c592"


class BundledModel(BaseModel):
    name: str
    owner: str


class BundledVersion(BaseModel):
    version: str
    sha256: str
    declared: dict[str, Any]


class BundledFile(BaseModel):
    name: str
    role: str
    sha256: str
    meta: dict[str, Any]


class Document(BaseModel):
    """`bundle.json`. What is not read here is kept all the same, byte for byte."""

    bundle: Literal[1]
    model: BundledModel
    version: BundledVersion
    files: list[BundledFile]


class Compared(BaseModel):
    name: str
    theirs: str = Field(description="SHA-256 of what the other instance made")
    ours: str | None = Field(description="SHA-256 of what was made here; null: nothing of that name (yet)")
    outcome: Literal["same", "different", "absent"]
    toolchain_same: bool | None = Field(description="null: not known")


class Import(BaseModel):
    """From where a version came, and how what was made of it there compares with what was made of it here."""

    key_id: str = Field(description="of the key that signed the bundle; this server trusts it")
    model: str
    owner: str
    version: str
    bundle_sha256: str = Field(description="of `bundle.json`, which is the artifact `imported-bundle.json`")
    artifacts: list[Compared]

    model_config = example(
        key_id=_KEY,
        model="digits",
        owner="grace",
        version="1.0.0",
        bundle_sha256=SHA,
        artifacts=[
            {"name": "onnx-fp32", "theirs": SHA, "ours": SHA, "outcome": "same", "toolchain_same": True},
        ],
    )
