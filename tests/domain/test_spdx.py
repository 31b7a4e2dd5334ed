"""Licence expressions in SPDX's spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.spdx import canonical


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("mit", "MIT"),
        ("apache-2.0", "Apache-2.0"),
        ("GPL-3.0", "GPL-3.0-only"),
        ("GPL-2.0+", "GPL-2.0-or-later"),
        ("mit or (apache-2.0 and bsd-3-clause)", "MIT OR (Apache-2.0 AND BSD-3-Clause)"),
        ("gpl-2.0 with classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"),
        ("mit and LicenseRef-Ours", "MIT AND LicenseRef-Ours"),
    ],
)
def test_a_licence_is_kept_as_spdx_writes_it(given: str, written: str) -> None:
    assert canonical(given) == canonical(written) == written


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("Apache", "did you mean Apache-2.0"),
        ("llama2", "write LicenseRef-llama2"),
        ("our own", "write LicenseRef-our-own"),
        ("MIT AND", "no SPDX|not an SPDX"),
        ("()", "not an SPDX"),
        ("MIT WITH MIT", "not an SPDX"),
        ("", "names no licence"),
        ("x" * 300, "more than 256"),
    ],
)
def test_what_is_no_licence_is_refused_with_what_may_have_been_meant(given: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        canonical(given)


@given(st.text("MITandorwh()- .+:0a\n", max_size=20))
def test_any_text_is_a_licence_or_said_to_be_none(text: str) -> None:
    try:
        written = canonical(text)
    except ValueError:
        return
    assert canonical(written) == written
