"""Puts the HTTP edge together: `create_app` from parts that somebody made, `main` from the environment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import redis
from fastapi import FastAPI
from redis.backoff import NoBackoff
from redis.retry import Retry

from api import (
    __version__,
    aliases,
    approvals,
    audit,
    bundles,
    comparison,
    deployments,
    downloads,
    endpoints,
    errors,
    exports,
    feedback,
    gates,
    grants,
    health,
    keys,
    licence_checks,
    lineage,
    logs,
    metrics,
    models,
    names,
    objects,
    ratings,
    reference,
    removal,
    reset,
    reviews,
    roles,
    rollouts,
    runs,
    scores,
    sessions,
    signatures,
    upload,
    usage,
    users,
    variants,
    versions,
)
from api.deps import Services
from api.envelope import Envelope
from api.news import Hub
from api.traffic import Traffic
from pipeline import formats
from pipeline.stage import discover
from registry import licences
from registry.logs import keeper
from shared import observe
from shared.db import connect, readings, transactions
from shared.github import GitHub
from shared.ratelimit import RateLimiter
from shared.settings import Settings
from shared.signing import Signer, key_id
from shared.storage import Storage
from shared.tickets import Tickets
from shared.tokens import Passwords, Receipts, Tokens

BASE = "/api/v1"
STREAMED = rf"{BASE}/models/(upload|[^/]+/versions)|{BASE}/bundles"
"""Where bodies are long; these routes count and time them on their own."""


def create_app(services: Services) -> FastAPI:
    """The app over these parts. Its lifespan listens for news."""
    app = FastAPI(
        version=__version__,
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    app.state.services = services
    app.state.vitals = health.Vitals(health.checks(services))
    app.state.traffic = Traffic()
    app.add_middleware(Envelope, streamed=STREAMED, base=BASE, traffic=app.state.traffic)
    errors.install(app)
    for noun in (
        versions,  # routers are tried in turn: first what is asked most
        models,
        sessions,
        users,
        roles,
        keys,
        upload,
        names,
        removal,
        ratings,
        grants,
        downloads,
        exports,
        objects,
        usage,
        bundles,
        variants,
        metrics,
        aliases,
        comparison,
        gates,
        approvals,
        deployments,
        endpoints,
        rollouts,
        feedback,
        signatures,
        lineage,
        licence_checks,
        scores,
        runs,
        reviews,
        audit,
        logs,
    ):
        app.include_router(noun.router, prefix=BASE)
    if services.settings.environment == "development":  # elsewhere there is no such address
        app.include_router(reset.router, prefix=BASE)
    app.include_router(health.router)
    reference.install(app)
    return app


def main() -> FastAPI:
    """The app as the environment describes it. Connects to nothing yet."""
    settings = Settings()
    kept = keeper(settings.sqlalchemy_url, "api", settings.log_store_level)
    observe.configure(fmt=settings.log_format, level=settings.log_level, keeper=kept)
    return create_app(assemble(settings))


def assemble(settings: Settings) -> Services:
    """The parts that the settings describe. Raises `ValueError` for secrets that can be guessed, and keys that are none.

    Also for a `PROJECT_LICENCE` that is no licence.
    """
    for key in settings.trusted_keys:
        key_id(key)
    if settings.project_licence is not None:
        licences.parse(settings.project_licence)
    secret = settings.jwt_secret.get_secret_value()
    previous = [each.get_secret_value() for each in settings.jwt_previous_secrets]
    tokens = Tokens(secret, lifetime=settings.jwt_lifetime, previous=previous)
    storage = Storage(**settings.storage, public_endpoint_url=settings.s3_public_endpoint_url)
    database = connect(settings.sqlalchemy_url, pool_size=settings.database_pool_size)
    # A pool of its own: to switch a connection to autocommit and back is a tenth of what a read costs. Half as many, as they are
    # held for milliseconds.
    reads = connect(settings.sqlalchemy_url, pool_size=(settings.database_pool_size + 1) // 2, autocommit=True)
    # An answer must not wait for a Redis that is away: short timeouts, and no retries behind our back.
    client = redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=2,
        socket_connect_timeout=1,
        retry=Retry(NoBackoff(), retries=0),
    )

    def close() -> None:
        database.dispose()
        reads.dispose()
        client.close()

    return Services(
        settings=settings,
        begin=transactions(database),
        reading=readings(reads),
        staging=storage.bucket(settings.bucket("staging")),
        registry=storage.bucket(settings.bucket("registry")),
        quarantine=storage.bucket(settings.bucket("quarantine")),
        exports=storage.bucket(settings.bucket("exports")),
        redis=client,
        limiter=RateLimiter(client),
        tokens=tokens,
        receipts=Receipts(secret, previous=previous),
        tickets=Tickets(secret, lifetime=settings.download_lifetime, previous=previous),
        signer=Signer(settings.signing_key.get_secret_value()),
        github=_github(settings),
        passwords=Passwords(),
        formats=formats.discover(),
        stages=discover(settings.stage_packages),
        hub=Hub(settings.database_url.get_secret_value()),
        close=close,
    )


def _github(settings: Settings) -> GitHub | None:
    if settings.github_api_url is None:
        return None
    return GitHub(
        settings.github_api_url, token=settings.github_token.get_secret_value(), private=settings.github_private
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    listener = asyncio.create_task(services.hub.run(), name="news")
    try:
        yield
    finally:
        services.hub.close()
        listener.cancel()
        with suppress(asyncio.CancelledError):
            await listener
        app.state.vitals.close()
        services.close()
