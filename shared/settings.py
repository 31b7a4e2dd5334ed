"""Every setting of every process, read from the environment. Only composition roots (`main()`) look here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class DatabaseSettings(BaseSettings):
    """What a process needs that only touches the database, such as a migration."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore")

    database_url: SecretStr

    @property
    def sqlalchemy_url(self) -> str:
        """The database URL with psycopg 3 named as the driver."""
        return "postgresql+psycopg://" + self.database_url.get_secret_value().split("://", 1)[1]


class Plan(BaseModel):
    """What a user may have; none: as many as one likes."""

    models: int | None = Field(default=None, ge=0)
    bytes: int | None = Field(default=None, ge=0)
    requests_per_minute: int | None = Field(default=None, ge=0, description="predictions, of each model")


class Settings(DatabaseSettings):
    """Names are the environment's variables in lower case. Sizes in bytes, times in seconds."""

    environment: Literal["development", "production"] = "production"
    slipway_home: Path = Path(".slipway")
    slipway_host: str = "127.0.0.1"
    slipway_port: int = 8000
    log_format: Literal["json", "text"] = "json"
    log_level: str = "INFO"

    database_pool_size: int = Field(default=20, ge=1)
    redis_url: SecretStr
    s3_endpoint_url: str | None = None
    s3_public_endpoint_url: str | None = None
    s3_access_key: SecretStr
    s3_secret_key: SecretStr
    s3_region: str = "us-east-1"
    s3_bucket_prefix: str = "slipway"
    s3_encryption: Literal["none", "AES256", "aws:kms", "envelope"] = Field(
        default="none",
        description="how every object is encrypted, by the storage or (envelope) by us; one that is not so is refused",
    )
    s3_kms_key: str | None = Field(default=None, description="the key for aws:kms; default: the storage's own")
    storage_key: SecretStr = Field(default=SecretStr(""), description="base64 of 32 bytes, for envelope")
    storage_previous_keys: tuple[SecretStr, ...] = Field(
        default=(), description="keys from before, which open what they encrypted and encrypt nothing new"
    )
    clamd_url: str | None = None
    signatures_max_age: int = Field(default=7 * 86400, gt=0, description="age at which virus signatures are stale")

    jwt_secret: SecretStr = SecretStr("")
    jwt_previous_secrets: tuple[SecretStr, ...] = Field(
        default=(), description="secrets from before, whose tokens count until they are over"
    )
    jwt_lifetime: int = 3600
    login_rate_limit: int = Field(
        default=10,
        ge=1,
        description="failed sign-ins an hour per user name and address; ten times as many per address, a hundred times "
        "as many per user name",
    )
    open_registration: bool = Field(default=False, description="whether strangers may make themselves an account")
    signing_key: SecretStr = SecretStr("")
    trusted_keys: tuple[str, ...] = Field(
        default=(), description="public keys (base64) whose signatures count beside those of SIGNING_KEY's"
    )
    audit_checkpoint_interval: float = Field(
        default=3600.0, ge=0, description="pause between signatures under the audit trail; 0: only by hand"
    )
    log_store_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "OFF"] = Field(
        default="WARNING", description="from which level on log lines are also kept in the database"
    )
    log_retention: int = Field(default=14 * 86400, gt=0, description="how long they are kept there")
    download_lifetime: int = 300
    export_retention: int = Field(
        default=7 * 86400, gt=0, description="how long an exported model repository stays in storage"
    )

    max_upload_size: int = 500 * 1024 * 1024
    max_side_file_size: int = 16 * 1024 * 1024
    upload_rate_limit: int = Field(default=5, description="uploads per user and hour")
    upload_timeout: int = Field(default=3600, description="the longest one upload request may last")
    upload_min_rate: int = Field(default=8192, ge=0, description="bytes a second below which an upload is given up")
    upload_expiry: int = Field(default=7200, description="age at which staged bytes without a run are swept")
    idempotency_lifetime: int = Field(
        default=86400, gt=0, description="how long the answer to a request with an Idempotency-Key is kept for the next"
    )
    delete_retention: int = Field(
        default=30 * 86400, ge=0, description="how long a deleted model or version can be restored"
    )
    run_retention: int = Field(default=7 * 86400, description="how long a failed or cancelled run can be retried")
    gc_interval: float = Field(default=21600.0, ge=0, description="pause between looks for bytes of nobody; 0: never")
    gc_grace: int = Field(default=86400, ge=3600, description="age below which bytes are nobody's business yet")

    plans: dict[str, Plan] = Field(
        default={"free": Plan(requests_per_minute=600), "premium": Plan(requests_per_minute=6000)},
        description="what users of a plan may have, as JSON",
    )

    stage_packages: tuple[str, ...] = ("pipeline.stages",)
    lease: float = Field(default=15.0, gt=0, description="a silent worker loses its attempt after this time")
    sweep_interval: float = 3.0
    ring_again: float = Field(default=30.0, description="first pause before a queued attempt is rung again; doubles")
    benchmark_timeout: int = 300
    second_opinions: tuple[str, ...] = Field(
        default=(), description="functions (package.module:function) that may add findings to a scan's"
    )
    rescan_interval: float = Field(
        default=86400.0, ge=0, description="pause between looks for verdicts that are out of date; 0: never"
    )
    benchmark_rounds: int = 15
    tensorrt: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="whether an upload gets TensorRT engines: if asked for or a gpu worker is online, always, or never",
    )
    gpu_memory: int = Field(
        default=2 * 1024**3, ge=0, description="bytes of a GPU that must be free before a step begins on it"
    )
    gpu_wait: float = Field(
        default=3600.0, ge=0, description="how long an upload waits for a gpu worker before it goes on without engines"
    )

    serving_port: int = 8100
    serving_url: str | None = Field(
        default=None, description="where clients reach serving; default: SERVING_PORT of this machine"
    )
    serving_memory: int = Field(
        default=2 * 1024**3,
        gt=0,
        description="bytes that loaded models may take together; the least used one makes room",
    )
    serving_child_memory: int = Field(
        default=8 * 1024**3, gt=0, description="bytes of address space of one loaded model"
    )
    serving_timeout: float = Field(default=30.0, gt=0, description="the longest one prediction may last")
    serving_load_wait: float = Field(
        default=5.0,
        ge=0,
        description="how long a request waits for its model to be loaded before it is told to come again",
    )
    serving_queue: int = Field(default=64, ge=1, description="requests that may wait for one loaded model")
    serving_max_request: int = Field(default=64 * 1024**2, gt=0, description="bytes of one request, unpacked")
    serving_threads: int = Field(
        default=0, ge=0, description="requests that one loaded model works at side by side; 0: as the CPU quota allows"
    )
    serving_device: str = Field(
        default="cpu",
        pattern=r"^(cpu|sm[0-9]{2,3})$",
        description="where models run: `cpu`, or a GPU by its kind, as `sm90`",
    )
    serving_refresh: float = Field(
        default=1.0, gt=0, description="pause between looks at what is live, and between notes of what was counted"
    )
    rollout_interval: float = Field(default=1.0, gt=0, description="pause between looks at the rollouts' figures")

    github_api_url: str | None = Field(
        default=None, description="where licences of GitHub repositories are asked for, such as https://api.github.com"
    )
    github_token: SecretStr = SecretStr("")
    github_private: bool = Field(default=False, description="whether that endpoint may have a private address")
    project_licence: str | None = Field(
        default=None,
        description="an SPDX expression: the licence that models are to go together with, for their net score",
    )

    flower_port: int = 5555
    flower_user: str = "slipway"
    flower_password: SecretStr = SecretStr("")

    @model_validator(mode="after")
    def _refuse_unsafe_production(self) -> Settings:
        if self.upload_expiry <= self.upload_timeout:
            raise ValueError(
                "UPLOAD_EXPIRY must exceed UPLOAD_TIMEOUT, or the sweep would take a running upload's bytes"
            )
        if self.gc_grace <= self.upload_timeout:
            raise ValueError(
                "GC_GRACE must exceed UPLOAD_TIMEOUT, or the garbage collection would take a running upload's bytes"
            )
        if self.environment == "production" and self.clamd_url is None:
            raise ValueError(
                "CLAMD_URL is required in production: nothing may pass unscanned (ENVIRONMENT=development runs without)"
            )
        if self.s3_encryption == "envelope" and not self.storage_key.get_secret_value():
            raise ValueError(
                "STORAGE_KEY is required with S3_ENCRYPTION=envelope: give every process the same output of "
                "`openssl rand -base64 32`, and keep it apart from backups of the storage"
            )
        return self

    @property
    def storage(self) -> dict[str, Any]:
        """What `Storage` is made with."""
        return {
            "endpoint_url": self.s3_endpoint_url,
            "access_key": self.s3_access_key.get_secret_value(),
            "secret_key": self.s3_secret_key.get_secret_value(),
            "region": self.s3_region,
            "encryption": self.s3_encryption,
            "kms_key": self.s3_kms_key,
            "storage_key": self.storage_key.get_secret_value(),
            "previous_storage_keys": [each.get_secret_value() for each in self.storage_previous_keys],
        }

    def bucket(self, room: Literal["staging", "registry", "quarantine", "exports"]) -> str:
        return f"{self.s3_bucket_prefix}-{room}"

    @property
    def serving_address(self) -> str:
        """Where predictions are asked for, without a slash at its end."""
        return (self.serving_url or f"http://127.0.0.1:{self.serving_port}").rstrip("/")
