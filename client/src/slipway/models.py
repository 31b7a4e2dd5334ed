"""Models: named lines of versions. Find, make, change, rate, delete and restore them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from slipway import refs
from slipway.errors import InvalidRequest
from slipway.predictions import Prediction, Predictions
from slipway.records import Json, moment, name_in
from slipway.transport import Wire, given


@dataclass(frozen=True, kw_only=True)
class Model:
    """A named line of versions. `latest` is the newest version's SemVer, where there is one; `stages` is where one is live.

    `etag` is what `change` takes as `expected`, so that nobody's change is lost.
    """

    id: str
    name: str
    owner: str = ""
    description: str = ""
    model_type: str | None = None
    framework: str | None = None
    licence: str | None = None
    tags: tuple[str, ...] = ()
    visibility: str = "private"
    is_active: bool = True
    latest: str | None = None
    stages: tuple[str, ...] = ()
    rating: float | None = None
    ratings: int = 0
    downloads: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None
    deleted_at: datetime | None = None
    etag: str | None = None
    endpoint_url: str | None = None
    predictions: Predictions | None = field(default=None, repr=False, compare=False)
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Model:
        """Read it from an answer."""
        revision = data.get("revision")
        return cls(
            id=str(data.get("id") or ""),
            name=str(data["name"]),
            owner=name_in(data.get("owner"), "username"),
            description=str(data.get("description") or ""),
            model_type=data.get("model_type"),
            framework=data.get("framework"),
            licence=data.get("licence"),
            tags=tuple(str(tag) for tag in data.get("tags") or ()),
            visibility=str(data.get("visibility") or "private"),
            is_active=bool(data.get("is_active", True)),
            latest=name_in(data.get("latest"), "version") or None,
            stages=tuple(str(stage) for stage in data.get("stages") or ()),
            rating=data.get("rating"),
            ratings=int(data.get("ratings") or 0),
            downloads=int(data.get("downloads") or 0),
            created_at=moment(data.get("created_at")),
            updated_at=moment(data.get("updated_at")),
            deleted_at=moment(data.get("deleted_at")),
            etag=f'"{revision}"' if revision is not None else None,
            endpoint_url=data.get("endpoint_url"),
            raw=data,
        )

    def predict(self, inputs: Any, ref: str | None = None) -> Prediction:
        """Ask what is live of this model, or the version that `ref` means; `inputs` as `Client.predict` takes them."""
        if self.predictions is None:
            raise InvalidRequest(
                "no_client", "This model does not come from a client.", hint="client.model(NAME).predict(…)"
            )
        name = f"{self.owner}/{self.name}"
        return self.predictions(name if ref is None else f"{name}@{ref}", inputs)


@dataclass(frozen=True, kw_only=True)
class Rating:
    """What one user thinks of a model: `score` is 1 to 5."""

    user: str
    score: int
    review: str = ""
    version: str | None = None
    created_at: datetime | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Rating:
        """Read it from an answer."""
        return cls(
            user=str(data.get("user") or ""),
            score=int(data["score"]),
            review=str(data.get("review") or ""),
            version=data.get("version"),
            created_at=moment(data.get("created_at")),
            raw=data,
        )


@dataclass(frozen=True, kw_only=True)
class NameCheck:
    """What would become of a name: `fine`, `warn` (confirm it) or `block`; and the names that it is like."""

    name: str
    outcome: str
    similar: tuple[Json, ...] = ()
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> NameCheck:
        """Read it from an answer."""
        return cls(
            name=str(data["name"]), outcome=str(data["outcome"]), similar=tuple(data.get("similar") or ()), raw=data
        )


class Models:
    """The models you may see. A `name` is one of yours, `owner/name` anybody's, or an id."""

    def __init__(self, wire: Wire, predict: Predictions) -> None:
        self._wire = wire
        self._predict = predict

    def __call__(
        self,
        *,
        search: str | None = None,
        regex: str | None = None,
        model_type: str | None = None,
        framework: str | None = None,
        status: str | None = None,
        stage: str | None = None,
        tags: Sequence[str] = (),
        owner: str | None = None,
        is_active: bool | None = None,
        deleted: bool = False,
        sort: str | None = None,
        order: str | None = None,
        limit: int | None = 100,
    ) -> list[Model]:
        """Return models; `limit=None` for all of them. `search` takes words, `deleted` shows what you have deleted."""
        wanted = {
            "search": search,
            "regex": regex,
            "model_type": model_type,
            "framework": framework,
            "status": status,
            "stage": stage,
            "tag": list(tags) or None,
            "owner": owner,
            "is_active": is_active,
            "deleted": True if deleted else None,
            "sort": sort,
            "order": order,
        }
        return [self._read(item) for item in self._wire.pages("/api/v1/models", wanted, limit)]

    def get(self, name: str) -> Model:
        """Return one model."""
        return self._read(self._wire.json("GET", refs.model_path(name)))

    def create(self, name: str, *, confirm_name: bool = False, **fields: Any) -> Model:
        """Make a model without a version.

        `fields`: description, model_type, framework, licence, tags, visibility, card. Raises Conflict for a name that
        looks like another model's, or is near to one and was not confirmed.
        """
        body = {"name": name, "confirm_name": confirm_name, **given(fields)}
        return self._read(self._wire.json("POST", "/api/v1/models", json=body))

    def change(self, name: str, *, expected: str | None = None, **fields: Any) -> Model:
        """Change what is given, None empties it: description, model_type, framework, licence, tags, visibility, is_active, card.

        Also protected_aliases. With `expected`, a model's `etag`, raises Conflict where somebody else was first.
        """
        headers = {"If-Match": expected} if expected else {}
        return self._read(self._wire.json("PATCH", refs.model_path(name), json=fields, headers=headers))

    def card(self, name: str) -> str:
        """Return a model's card, Markdown."""
        return self._wire.send("GET", f"{refs.model_path(name)}/card", headers={"Accept": "text/markdown"}).text

    def set_card(self, name: str, file: str | Path) -> Model:
        """Make a Markdown file the model's card."""
        return self.change(name, card=Path(file).read_text(encoding="utf-8"))

    def delete(self, name: str, *, purge: bool = False) -> Json:
        """Delete a model, restorable for a while; with `purge`, as an admin, for good."""
        return self._wire.json("DELETE", refs.model_path(name), params={"purge": "true"} if purge else {})

    def restore(self, name: str) -> Model:
        """Bring a deleted model back."""
        return self._read(self._wire.json("POST", f"{refs.model_path(name)}:restore"))

    def delete_version(self, ref: str) -> Json:
        """Delete the version that `NAME@REF` means, restorable for a while."""
        return self._wire.json("DELETE", refs.version_path(*refs.parse(ref)))

    def restore_version(self, ref: str) -> Json:
        """Bring a deleted version back; REF is a SemVer or an ordinal."""
        return self._wire.json("POST", f"{refs.version_path(*refs.parse(ref))}:restore")

    def check_name(self, name: str) -> NameCheck:
        """Ask what would become of a model with this name."""
        return NameCheck.read(self._wire.json("GET", "/api/v1/models:check-name", params={"name": name}))

    def find_versions(self, queries: Sequence[Json] = (), *, limit: int = 100) -> Iterator[Json]:
        """Yield every version that fits one of the queries, `{name, version, regex}`; all of them where there is none."""
        offset = 0
        while True:
            page = {"offset": offset, "limit": min(limit, 100)}
            said = self._wire.json("POST", "/api/v1/models:query", json=list(queries), params=page)
            yield from said["items"]
            offset += len(said["items"])
            if not said["items"] or offset >= said["total"]:
                return

    def rate(self, name: str, score: int, *, review: str = "", version: str | None = None) -> Rating:
        """Rate somebody's model from 1 to 5; it takes the place of what you have said before."""
        body = given({"score": score, "review": review, "version": version})
        return Rating.read(self._wire.json("PUT", f"{refs.model_path(name)}/rating", json=body))

    def withdraw_rating(self, name: str) -> None:
        """Take your rating back."""
        self._wire.send("DELETE", f"{refs.model_path(name)}/rating")

    def ratings(self, name: str, *, limit: int | None = 100) -> list[Rating]:
        """Return what users think of a model, newest first."""
        return [Rating.read(item) for item in self._wire.pages(f"{refs.model_path(name)}/ratings", {}, limit)]

    def _read(self, data: Json) -> Model:
        return replace(Model.read(data), predictions=self._predict)
