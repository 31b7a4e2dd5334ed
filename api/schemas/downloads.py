"""Short-lived addresses of a version's files."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from api.schemas.examples import SHA, example

_URL = "https://s3.example.org/slipway-registry/sha256/9f/…?X-Amz-Expires=300&X-Amz-Signature=…"
_FILE = {
    "url": _URL,
    "name": "onnx-fp32",
    "filename": "digits-1.0.0-onnx-fp32.onnx",
    "sha256": SHA,
    "size": 87412,
    "media_type": "application/octet-stream",
}


class Download(BaseModel):
    """A short-lived address of one file. Check what comes against `sha256`."""

    url: str = Field(description="at the storage; or relative to this server, where it encrypts what it stores")
    expires_in: int = Field(description="seconds")
    name: str
    filename: str
    sha256: str
    size: int
    media_type: str

    model_config = example(**_FILE, expires_in=300)


class Handed(BaseModel):
    """One of several files. Check what comes against `sha256`."""

    url: str
    name: str
    component: Literal["weights", "config", "code", "datasets", "evidence", "source"]
    filename: str
    sha256: str
    size: int
    media_type: str


class Downloads(BaseModel):
    """Short-lived addresses of the files of some components."""

    model: str
    version: str
    expires_in: int = Field(description="seconds")
    components: list[str] = Field(description="of which there is something")
    files: list[Handed]
    missing: dict[Literal["weights", "config", "code", "datasets"], str] = Field(
        description="component → why nothing of it is there"
    )

    model_config = example(
        model="digits",
        version="1.0.0",
        expires_in=300,
        components=["weights"],
        files=[_FILE | {"component": "weights"}],
        missing={"code": "no code came with it as a file of its own"},
    )
