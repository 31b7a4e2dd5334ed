"""The errors of the adapters, so that callers see outcomes and never boto, errno or a socket."""


class AdapterError(Exception):
    """`code` is stable, the message is for the person who must act."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class DependencyUnavailable(AdapterError):
    """A dependency could not be asked, or could not do what it was asked. Worth another try."""


class ObjectMissing(AdapterError):
    """The storage answered, and has no such object."""
