"""Versions in the forms of other servers."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.examples import SHA, example

DEVICE = r"^(cpu|sm[0-9]{2,3})$"

_ADDRESS = "s3://slipway-exports/c9f0f895-fb98-4b91-9a1e-7c1f2b3d4e66/9f86d081884c7d65"


class NewExport(BaseModel):
    """`triton`: a model repository in storage. `kserve`: that, and a manifest that names it or what is at `storage_uri`."""

    format: Literal["triton", "kserve"]
    variant: str | None = Field(default=None, max_length=200, description="default: the best one on the device")
    device: str | None = Field(
        default=None, pattern=DEVICE, description="`cpu` (the default), or a GPU's architecture: `sm90`"
    )
    storage_uri: str | None = Field(
        default=None,
        max_length=1000,
        pattern=r"^[a-z][a-z0-9+.-]*://[!-~]+$",
        description="with kserve: where you have put the repository yourself; nothing is stored then",
    )

    model_config = ConfigDict(**example(format="triton", variant="onnx-fp32", device="cpu"), extra="forbid")


class Exported(BaseModel):
    path: str = Field(description="below the address")
    sha256: str
    size: int = Field(description="bytes")


class Export(BaseModel):
    """Where the repository lies, what it holds, and how a server takes it up."""

    format: Literal["triton", "kserve"]
    version: str
    variant: str
    device: str
    address: str = Field(description="of the repository: for who may read the bucket; it opens nothing by itself")
    files: list[Exported] = Field(description="empty where you have stored it yourself")
    commands: list[str] = Field(description="to type where it is to be served")
    manifest: str | None = Field(description="with kserve: YAML")
    expires_at: datetime | None = Field(description="when it goes from our storage; asked for again, it begins anew")

    model_config = example(
        format="triton",
        version="1.0.0",
        variant="onnx-fp32",
        device="cpu",
        address=_ADDRESS,
        files=[{"path": "digits/1/model.onnx", "sha256": SHA, "size": 87412}],
        commands=[f"tritonserver --model-repository={_ADDRESS}"],
        manifest=None,
        expires_at="2026-11-27T12:00:00Z",
    )
