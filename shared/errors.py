"""The one error of the adapters: something outside this process is away or does not answer."""


class DependencyUnavailable(Exception):
    """A dependency could not be asked. `code` is stable, the message is for the person who must act."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
