"""The one place that knows this client's version."""

__version__ = "0.1.0"
