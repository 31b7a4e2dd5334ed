"""Edge, HTTP: the outside's only way in. Knows requests and answers; writes rows and never sends a Celery message."""

__version__ = "0.1.0"
