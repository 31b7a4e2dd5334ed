"""Licence checks."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field, model_validator

from api.schemas.examples import MODEL, example
from registry.licence_texts import LONGEST as LONGEST_TEXT
from registry.licences import LONGEST


class ProjectLicence(BaseModel):
    """Exactly one of `github_url`, `licence` and `text`."""

    github_url: Annotated[str, Field(max_length=300)] | None = Field(
        default=None, description="the project's repository, whose licence GitHub is asked for"
    )
    licence: Annotated[str, Field(min_length=1, max_length=LONGEST)] | None = Field(
        default=None, description="the project's licence as an SPDX expression"
    )
    text: Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)] | None = Field(
        default=None, description="or the text of its licence"
    )
    version: Annotated[str, Field(max_length=64)] = Field(
        default="latest", description="which version's licence counts, where it declared one; else the model's"
    )

    model_config = example(licence="Apache-2.0")

    @model_validator(mode="after")
    def _one_licence(self) -> Self:
        if sum(given is not None for given in (self.github_url, self.licence, self.text)) != 1:
            raise ValueError("give one of github_url, licence and text")
        return self


class LicenceQuestion(ProjectLicence):
    model_id: Annotated[str, Field(min_length=1, max_length=300)] = Field(
        description="the model, by id or name (`owner/name`)"
    )

    model_config = example(github_url="https://github.com/ada/sorter", model_id=MODEL)


class LicenceAnswer(BaseModel):
    """No legal advice. `compatible` is null where Slipway cannot tell."""

    answer: Literal["compatible", "incompatible", "unknown"]
    compatible: bool | None
    project_licence: str | None = Field(description="null: the text, or GitHub's answer, is no licence that is known")
    model_licence: str | None = Field(description="null: none was declared")
    model_families: list[str] = Field(description="such as `permissive`, `behavioural`; `unknown` among them")
    model_id: UUID
    reason: str
    warnings: list[str]

    model_config = example(
        answer="compatible",
        compatible=True,
        project_licence="GPL-3.0-only",
        model_licence="MIT",
        model_families=["permissive"],
        model_id=MODEL,
        reason="MIT may be part of a work under GPL-3.0-only.",
        warnings=["Keep the model's copyright and licence notices."],
    )
