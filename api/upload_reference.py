"""What the OpenAPI document says of an upload: its form, its answers, an example to paste into a shell."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from api.errors import documented
from api.schemas.runs import RunStatus
from pipeline import upload as form
from pipeline.formats import accepted

_SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_RUN = "0d9d7e3c-6a0f-4b61-8d43-6a1cf1e0f7a2"
_EXAMPLE: dict[str, Any] = {
    "success": True,
    "message": "digits 1.0.0 has arrived; follow its run.",
    "already_there": False,
    "data": {
        "model_id": "8f14e45f-ceea-467f-a0e6-3b7d9b1c2a55",
        "name": "digits",
        "version": "1.0.0",
        "ordinal": 1,
        "framework": "onnx",
        "format": "onnx",
        "file_size": 48230,
        "checksum": f"sha256:{_SHA}",
        "validation_warnings": [],
    },
    "run": {
        "id": _RUN,
        "status": "queued",
        "links": {"self": f"/api/v1/runs/{_RUN}", "events": f"/api/v1/runs/{_RUN}/events"},
    },
}


class Taken(BaseModel):
    """The version that an upload became."""

    model_id: UUID
    name: str
    version: str = Field(description="SemVer 2.0, normalised")
    ordinal: int = Field(description="1, 2, 3, … in the order of upload")
    framework: str | None = Field(description="as declared, or what the format stands for")
    format: str
    file_size: int = Field(description="bytes")
    checksum: str = Field(description="sha256: and 64 hexadecimal digits")
    validation_warnings: list[str]


class Followed(BaseModel):
    """The run that has the version now."""

    id: UUID
    status: RunStatus
    links: dict[str, str]


class Accepted(BaseModel):
    """Everything has arrived and is safe; what becomes of it is the run's to say."""

    success: Literal[True] = True
    message: str
    already_there: bool = Field(
        default=False, description="whether the version was there already, with the same bytes; nothing was taken in"
    )
    data: Taken
    run: Followed

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})


DESCRIPTION = f"""Send the model and what belongs to it as one form. {accepted()}

The bytes are hashed and stored while they arrive; fields may come before or after them, but fields that come first
are judged before the bytes are. A `Content-Digest` or `Repr-Digest` with a SHA-256, on the request or on a file's
part, is compared with what arrived. Nothing is left behind by an upload that is refused or broken off.

```sh
curl -H "Authorization: Bearer $SLIPWAY_API_KEY" \\
     -F name=digits -F version=1.0.0 -F framework=pytorch -F 'input_shape=[1, 1, 8, 8]' \\
     -F config_file=@config.yaml -F model_file=@digits.onnx \\
     $SLIPWAY_URL/api/v1/models/upload
```
"""

VERSION_DESCRIPTION = """As `POST /api/v1/models/upload`, for a model that is there: yours, or one whose owner has granted you models:upload.

The version is the owner's model's, whoever uploads it. A number that says less than what is declared to have changed
(a patch whose classes are in another order) is refused with `version_breaks_contract`.

```sh
curl -H "Authorization: Bearer $SLIPWAY_API_KEY" \\
     -F version=v2 -F format=onnx -F accuracy=0.95 -F 'output_shape=[1, 10]' -F file=@digits.onnx \\
     $SLIPWAY_URL/api/v1/models/ada~digits/versions
```
"""


def _text(field: form.Field) -> dict[str, Any]:
    return {"type": "string", "description": field.meaning, "examples": [field.example]}


def _file(description: str) -> dict[str, Any]:
    return {"type": "string", "format": "binary", "description": description}


def _form(required: list[str], example: dict[str, str]) -> dict[str, Any]:
    return {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": required,
                    "properties": {name: _text(field) for name, field in form.FIELDS.items()}
                    | {form.MODEL_FILE: _file(f"The model; `file` is another name for it. {accepted()}")}
                    | {
                        name: _file(f"{side.meaning.capitalize()} ({' '.join(side.extensions)}).")
                        for name, side in form.SIDE_FILES.items()
                    },
                    "additionalProperties": False,
                },
                "example": example,
            }
        },
    }


REQUEST_BODY = _form(["name", form.MODEL_FILE], {"name": "digits", "version": "1.0.0", "input_shape": "[1, 1, 8, 8]"})
VERSION_BODY = _form(
    [form.MODEL_FILE], {"version": "1.1.0", "accuracy": "0.95", "release_notes": "Trained on the second batch."}
)

_REFUSALS = (
    "unsupported_format",
    "content_mismatch",
    "malformed_multipart",
    "missing_file",
    "empty_file",
    "invalid_digest",
    "digest_mismatch",
    "unauthenticated",
    "forbidden",
    "quota_exceeded",
    "upload_stalled",
    "upload_too_slow",
    "upload_timeout",
    "version_exists",
    "name_confusable",
    "name_unconfirmed",
    "name_in_use_by_deleted",
    "version_breaks_contract",
    "too_large",
    "invalid_field",
    "invalid_parent",
    "rate_limited",
    "storage_unavailable",
    "storage_full",
    "database_unavailable",
)

ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The version is there already, with the same bytes: nothing was stored.", "model": Accepted},
    202: {
        "description": "Taken in; a run has begun.",
        "headers": {
            "Location": {"description": "the run", "schema": {"type": "string"}},
            "Retry-After": {"description": "seconds until it is worth looking", "schema": {"type": "integer"}},
            "RateLimit": {"description": "uploads left in this hour", "schema": {"type": "string"}},
        },
    },
    **documented(*_REFUSALS),
}
VERSION_ANSWERS = ANSWERS | documented(*_REFUSALS, "not_granted", "model_not_found")
