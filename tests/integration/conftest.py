"""One sandbox with the heavy libraries for all modules that take models through the stages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.formats import PRELOAD
from pipeline.sandbox import Zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Importing takes seconds; children share nothing but what was imported, so modules may share it too."""
    made = Zygote(preload=(*PRELOAD, "pipeline.readers"))
    yield made
    made.close()
