"""The S3 client library: how it is set up, and what its many errors mean in our two."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog

from shared.errors import DependencyUnavailable, ObjectMissing

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

log = structlog.get_logger()

MISSING = {"404", "NoSuchKey", "NotFound", "NoSuchUpload"}
_FULL = {"507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"}


def client(url: str | None, *, access_key: str, secret_key: str, region: str) -> S3Client:
    # boto3 takes half a second to import and not every process that imports this module needs it.
    import boto3
    from botocore.config import Config

    config = Config(
        signature_version="s3v4",
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"},
        max_pool_connections=64,
        connect_timeout=5,
        read_timeout=120,
        retries={"mode": "standard", "max_attempts": 3},
    )
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=region,
        config=config,
    )


@contextmanager
def outcomes(what: str) -> Iterator[None]:
    """Translate the client library's many errors into our two.

    Their texts reach clients, so they name neither key nor address; the log does.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = code_of(error)
        if code in MISSING:
            log.warning("storage.missing", what=what)
            raise ObjectMissing("object_missing", "An object that should be there is not in storage.") from error
        if code in _FULL:
            raise DependencyUnavailable(
                "storage_full", "Storage is full; free some space or raise its quota."
            ) from error
        log.warning("storage.refused", what=what, code=code)
        raise DependencyUnavailable("storage_unavailable", f"Storage refused a request ({code}).") from error
    except (BotoCoreError, Boto3Error, OSError) as error:
        log.warning("storage.unreachable", what=what, error=str(error))
        raise DependencyUnavailable("storage_unavailable", "Storage does not answer.") from error
    except DependencyUnavailable as error:
        log.error("storage.unusable", what=what, code=error.code)  # noqa: TRY400 - which object it is, not where in the code
        raise


def code_of(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
