"""What can go wrong, one class per way a script must react; the command's exit code is the class's.

    SlipwayError            1   something failed; nothing more exact is known
    ├── RunFailed           1   the run ended as `failed`: the server's side broke, the model is not at fault
    ├── RunCancelled        1   somebody cancelled the run
    ├── DigestMismatch      1   bytes arrived that are not the bytes that were promised
    ├── InvalidRequest      2   the server could not accept what was asked (400, 405, 413, 415, 422)
    ├── Refused             3   a scan or a gate said no (423, and 409 with the code gate_failed)
    │   ├── BrokenBundle    3   a bundle is not what was signed, or not by a key that you trust
    │   └── RunRejected     3   the run ended as `rejected`: the model's fault
    ├── NotAllowed          4   no credential, or not enough of one (401, 403)
    ├── NotFound            5   nothing there, or nothing you may see (404, 410)
    ├── Conflict            6   it exists already, or it changed meanwhile (409, 412, 428)
    ├── RateLimited         7   too often (429)
    ├── Unreachable         8   server or network, after retries
    └── TimedOut          124   you waited long enough; the run goes on

Every error has a stable `code`, a `detail` for the person who must act, a `hint` with what to do, and says whose
`fault` it is. Those that come from the server also carry `details` and the `trace_id` its operators can look up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from slipway.records import Run


class SlipwayError(Exception):
    """Something failed. `status` is the HTTP status where the server said so, `retry_after` the pause it asks for, seconds."""

    exit_code: ClassVar[int] = 1
    fault: ClassVar[str] = "Unclear: please report it."

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        hint: str | None = None,
        status: int | None = None,
        details: Any = None,
        trace_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.hint = hint
        self.status = status
        self.details = details
        self.trace_id = trace_id
        self.retry_after = retry_after

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints for it."""
        fields = {
            "code": self.code,
            "detail": self.detail,
            "hint": self.hint,
            "fault": self.fault,
            "status": self.status,
            "details": self.details,
            "trace_id": self.trace_id,
            "exit_code": self.exit_code,
        }
        return {name: value for name, value in fields.items() if value is not None}


class DigestMismatch(SlipwayError):
    """The SHA-256 of what arrived is not the promised one."""

    fault = "Nobody's for sure: bytes were changed on the way, on the disk, or while they were being sent."


class InvalidRequest(SlipwayError):
    """The request makes no sense to the server; sending it again changes nothing."""

    exit_code = 2
    fault = "The request's: it has to change."


class Refused(SlipwayError):
    """A scan or a gate said no."""

    exit_code = 3
    fault = "The model's: server and network did their work."


class BrokenBundle(Refused):
    """A bundle is none, is not what was signed, or is signed by nobody whom you trust."""

    fault = "The bundle: it was damaged or changed, or comes from somebody else."


class NotAllowed(SlipwayError):
    """No credential, an expired one, or one without the right."""

    exit_code = 4
    fault = "The credential's."


class NotFound(SlipwayError):
    """Nothing there, or nothing that you may see."""

    exit_code = 5
    fault = "The name's, or it belongs to somebody else."


class Conflict(SlipwayError):
    """It exists already, or is in a state that does not allow this."""

    exit_code = 6
    fault = "Nobody's: something is there already."


class RateLimited(SlipwayError):
    """Too often."""

    exit_code = 7
    fault = "Nobody's: too much in too short a time."


class Unreachable(SlipwayError):
    """The server or the network, after every sensible retry."""

    exit_code = 8
    fault = "The server's or the network's."


class TimedOut(SlipwayError):
    """The wait was over before the run was. The run goes on."""

    exit_code = 124
    fault = "Nobody's: the run goes on without you."


class RunEnded(SlipwayError):
    """A run that did not succeed; `run` holds its steps and reports."""

    def __init__(self, run: Run, *, hint: str) -> None:
        super().__init__(run.code or run.status, run.detail or f"The run ended as {run.status}.", hint=hint)
        self.run = run

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints for it; the run itself is on stdout."""
        return super().as_json() | {"run": self.run.id}


class RunFailed(RunEnded):
    """The run broke on the server's side."""

    fault = "The server's or its infrastructure's, not the model's."


class RunCancelled(RunEnded):
    """Somebody cancelled the run."""

    fault = "Nobody's: the run was cancelled."


class RunRejected(RunEnded, Refused):
    """The model was refused: by a scan, a check or a gate."""

    exit_code = 3


_BY_STATUS: Mapping[int, type[SlipwayError]] = {
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    412: Conflict,
    423: Refused,
    428: Conflict,
}


def kind_of(status: int, code: str) -> type[SlipwayError]:
    """Return the class that an HTTP status other than 429 means, with the server's code."""
    if code == "gate_failed":
        return Refused
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    client_error, server_error = 400, 500
    return InvalidRequest if client_error <= status < server_error else Unreachable
