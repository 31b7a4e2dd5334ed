"""Slipway's client: push a model, watch its run, pull what was promoted.

from slipway import Client

with Client() as slipway:
    run = slipway.wait(slipway.push("digits.onnx", "digits")).check()
    slipway.pull("digits@latest", "models/")
"""

from slipway._version import __version__
from slipway.client import Client
from slipway.errors import (
    Conflict,
    DigestMismatch,
    InvalidRequest,
    NotAllowed,
    NotFound,
    RateLimited,
    Refused,
    RunCancelled,
    RunEnded,
    RunFailed,
    RunRejected,
    SlipwayError,
    TimedOut,
    Unreachable,
)
from slipway.records import Account, Artifact, Download, Event, Health, Key, Model, Run, Step, Version
from slipway.transport import Retry
from slipway.upload import Progress

__all__ = [
    "Account",
    "Artifact",
    "Client",
    "Conflict",
    "DigestMismatch",
    "Download",
    "Event",
    "Health",
    "InvalidRequest",
    "Key",
    "Model",
    "NotAllowed",
    "NotFound",
    "Progress",
    "RateLimited",
    "Refused",
    "Retry",
    "Run",
    "RunCancelled",
    "RunEnded",
    "RunFailed",
    "RunRejected",
    "SlipwayError",
    "Step",
    "TimedOut",
    "Unreachable",
    "Version",
    "__version__",
]
