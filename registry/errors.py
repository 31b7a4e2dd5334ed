"""What the registry refuses. Codes are stable; the edge maps the classes to HTTP."""


class RegistryError(Exception):
    """An error with a stable `code` and a message for the person who must act."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Missing(RegistryError):
    """Nothing there, or nothing that the asker may know of: the two look the same."""


class Taken(RegistryError):
    """It exists already."""


class Denied(RegistryError):
    """The asker has the right, but not about this: nobody judges their own."""


class NotWaivable(RegistryError):
    """What stops the file is nothing that a reviewer may set aside."""


class Conflict(RegistryError):
    """It can be done, but not to what is there now. `details` says what is in the way, as JSON."""

    def __init__(self, code: str, message: str, details: object = None) -> None:
        super().__init__(code, message)
        self.details = details


class Invalid(RegistryError):
    """It makes no sense, whatever is there."""


class Outdated(RegistryError):
    """Somebody else was first: what was to be changed is not what the asker has seen."""


class Exhausted(RegistryError):
    """A quota is used up. `details` says which and by how much, as JSON."""

    def __init__(self, code: str, message: str, details: object = None) -> None:
        super().__init__(code, message)
        self.details = details
