"""What the examples of all shapes have in common, so that together they tell one story."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict

WHEN = "2026-11-20T12:00:00Z"
LATER = "2026-11-20T12:00:21Z"
RUN = "0d9d7e3c-6a0f-4b61-8d43-6a1cf1e0f7a2"
USER = "5b0c2c1e-52fb-4f2b-9f0e-2d6f1f6f8f11"
MODEL = "8f14e45f-ceea-467f-a0e6-3b7d9b1c2a55"
VERSION = "c9f0f895-fb98-4b91-9a1e-7c1f2b3d4e66"
SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def example(**fields: Any) -> ConfigDict:
    """The `model_config` of a shape with this example."""
    return ConfigDict(json_schema_extra={"examples": [fields]})
