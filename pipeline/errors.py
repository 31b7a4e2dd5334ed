"""What can go wrong, sorted by whose fault it is.

    SlipwayError        has a stable `code`; its message is for the person who must act
    ├── Rejected        the model's fault: final, never retried
    ├── Unavailable     a dependency's fault: tried again
    ├── IllegalTransition   the run cannot take this signal now
    ├── Stale           the sender no longer owns the attempt it reports on
    └── NotFound        nothing there, or nothing the asker may see

Anything else that is raised is our bug: it is logged with its traceback and shown as `internal`.
Nothing here knows about HTTP; the API maps the classes to statuses in one table.
"""


class SlipwayError(Exception):
    """An error with a stable `code` (snake_case, part of the public contract) and a message a person can act on."""

    def __init__(self, code: str, message: str, **details: object) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.code, self.message, self.details)


class Rejected(SlipwayError):
    """The model is at fault. The run ends as `rejected` and nothing is tried again."""


class Unavailable(SlipwayError):
    """Something we depend on is away. The step is tried again, later."""


class IllegalTransition(SlipwayError):
    """The run is in a state in which this signal means nothing."""


class Stale(SlipwayError):
    """The sender speaks for an attempt that is over: a zombie, a doubled or a late message."""


class NotFound(SlipwayError):
    """Nothing there, or nothing that the asker may know of."""


def _rebuild(kind: type[SlipwayError], code: str, message: str, details: dict[str, object]) -> SlipwayError:
    return kind(code, message, **details)
