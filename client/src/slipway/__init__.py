"""Slipway's client: push a model, watch its run, pull what was promoted.

from slipway import Client

with Client() as slipway:
    run = slipway.wait(slipway.push("digits.onnx", "digits")).check()
    slipway.pull("digits@latest", "models/")
"""

from slipway._version import __version__
from slipway.aliases import Alias, Move
from slipway.bundles import Bundle, Import
from slipway.client import Client
from slipway.components import Components
from slipway.endpoints import Endpoint
from slipway.errors import (
    BrokenBundle,
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
from slipway.exports import Export
from slipway.grants import Grant
from slipway.metrics import Metric
from slipway.models import Model, NameCheck, Rating
from slipway.predictions import Prediction
from slipway.records import Account, Artifact, Download, Event, Health, Key, Run, Step
from slipway.rollouts import Rollout
from slipway.trails import Check, Entry, LogRecord
from slipway.transport import Retry
from slipway.upload import Progress
from slipway.usage import Amount, Quota, Usage
from slipway.users import Role, User
from slipway.versions import Comparison, Version

__all__ = [
    "Account",
    "Alias",
    "Amount",
    "Artifact",
    "BrokenBundle",
    "Bundle",
    "Check",
    "Client",
    "Comparison",
    "Components",
    "Conflict",
    "DigestMismatch",
    "Download",
    "Endpoint",
    "Entry",
    "Event",
    "Export",
    "Grant",
    "Health",
    "Import",
    "InvalidRequest",
    "Key",
    "LogRecord",
    "Metric",
    "Model",
    "Move",
    "NameCheck",
    "NotAllowed",
    "NotFound",
    "Prediction",
    "Progress",
    "Quota",
    "RateLimited",
    "Rating",
    "Refused",
    "Retry",
    "Role",
    "Rollout",
    "Run",
    "RunCancelled",
    "RunEnded",
    "RunFailed",
    "RunRejected",
    "SlipwayError",
    "Step",
    "TimedOut",
    "Unreachable",
    "Usage",
    "User",
    "Version",
    "__version__",
]
