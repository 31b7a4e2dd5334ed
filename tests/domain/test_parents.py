"""How parents are written: what is a version here, and what is an address that may be shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import upload
from registry import parents


@pytest.mark.parametrize(
    ("text", "model", "version"),
    [
        ("digits@1.0.0", "digits", "1.0.0"),
        ("ada/digits@latest", "ada/digits", "latest"),
        (" digits ", "digits", "latest"),
        ("8f14e45f-ceea-467f-a0e6-3b7d9b1c2a55@3", "8f14e45f-ceea-467f-a0e6-3b7d9b1c2a55", "3"),
    ],
)
def test_a_parent_names_a_model_and_a_version(text: str, model: str, version: str) -> None:
    assert parents.parent(text) == (model, version)


@pytest.mark.parametrize("text", ["", "@1.0.0", "digits@", "a/b/c@1", "a\nb@1", "x" * 301])
def test_what_names_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="version"):
        parents.parent(text)


@pytest.mark.parametrize(
    "text", ["https://huggingface.co/datasets/mnist", "s3://bucket/train", "sklearn digits", "org/set"]
)
def test_a_reference_is_an_address_or_a_name(text: str) -> None:
    assert parents.reference(f" {text} ") == text


@pytest.mark.parametrize(
    "text",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "https://u:p@host/",
        "https://",
        "http://h:0/",
        "a\tb",
        "",
        "x" * 2049,
        "http://[::1",
        "JAVASCRIPT:alert(1)",
    ],
)
def test_a_reference_that_nobody_should_follow_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is|has|holds"):
        parents.reference(text)


@given(st.text(max_size=80))
def test_whatever_is_taken_as_an_address_is_one_of_the_web(text: str) -> None:
    for read, scheme in ((parents.address, ("https:", "http:")), (parents.reference, None)):
        try:
            taken = read(text)
        except ValueError:
            continue
        assert taken.isprintable()
        assert scheme is None or taken.lower().startswith(scheme)


def test_an_upload_s_form_tells_of_its_parents() -> None:
    form = {
        "parent": "ada/base@1",
        "dataset_url": "https://data.example/set",
        "code_url": "javascript:x",
        "model_url": "hub",
    }
    values, faults = upload.judge({name: value.encode() for name, value in form.items()})
    assert values == {"parent": "ada/base@1", "dataset_url": "https://data.example/set"}
    assert set(faults) == {"code_url", "model_url"}
