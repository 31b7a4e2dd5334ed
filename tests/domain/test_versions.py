"""Version numbers as people write them."""

from __future__ import annotations

import pytest

from registry.versions import following, normalise


@pytest.mark.parametrize(
    ("written", "meant"),
    [("1.2.3", "1.2.3"), ("v2", "2.0.0"), ("2", "2.0.0"), ("v1.2", "1.2.0"), ("1.0.0-rc.1+b5", "1.0.0-rc.1+b5")],
)
def test_short_forms_are_completed(written: str, meant: str) -> None:
    assert normalise(written) == meant


@pytest.mark.parametrize("written", ["", "latest", "1.2.3.4", "01.2.3", "-1", "1.0.0 ", "١", "v", "1" * 65])
def test_what_is_no_version_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="version"):
        normalise(written)


def test_the_next_version_follows_the_highest_not_the_latest() -> None:
    assert following([]) == "1.0.0"
    assert following(["1.0.0", "2.3.4", "1.9.0"]) == "2.4.0"
    assert following(["1.0.0"], "patch") == "1.0.1"
    assert following(["1.4.2"], "major") == "2.0.0"
    assert following(["2.0.0-rc.1"], "minor") == "2.1.0"
