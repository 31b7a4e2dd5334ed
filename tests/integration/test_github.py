"""What GitHub is asked, and what is made of answers that are slow, wrong, endless, or lead elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shared.errors import DependencyUnavailable
from shared.github import Found, GitHub, RepositoryUnknown
from tests.integration.github_endpoint import ENDPOINT, endpoint

Asked = list[tuple[str, str | None]]


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[str, Asked]]:
    with endpoint() as found:
        yield found


@pytest.fixture
def asked(running: tuple[str, Asked]) -> Asked:
    running[1].clear()
    return running[1]


@pytest.fixture
def hub(running: tuple[str, Asked]) -> GitHub:
    return GitHub(running[0], timeout=0.4, private=True)


def ask(hub: GitHub, name: str) -> Found:
    return hub.licence(hub.repository(f"https://github.com/ada/{name}"))


def test_a_repository_s_licence_is_asked_for_by_name_alone(hub: GitHub, asked: Asked) -> None:
    assert ask(hub, "sorter") == Found(spdx_id="GPL-3.0", text=None)
    assert ask(hub, "sorter.git?tab=readme#top").spdx_id == "GPL-3.0"
    assert ask(hub, "renamed").spdx_id == "GPL-3.0"
    assert asked[0] == (ENDPOINT.format("sorter"), None)
    assert ask(hub, "own-text") == Found(spdx_id=None, text="SPDX-License-Identifier: MIT\n")
    assert ask(hub, "unrecognised") == Found(spdx_id=None, text=None)


@pytest.mark.parametrize(
    "address",
    [
        "https://gitlab.com/ada/sorter",
        "https://github.com.evil.example/ada/sorter",
        "https://github.com@evil.example/ada/sorter",
        "https://evil.example/github.com/ada/sorter",
        "https://github.com/ada",
        "https://github.com/ada/..",
        "https://github.com/../ada/sorter",
        "https://github.com/ada%2f..%2f/sorter",
        "https://github.com:8080/ada/sorter",
        "https://github.com/ada/sor\r\nHost: evil/x",
        "file:///ada/sorter",
        "github.com/-/x",
        "",
    ],
)
def test_what_is_no_repository_of_the_host_is_refused_before_anybody_is_asked(hub: GitHub, address: str) -> None:
    with pytest.raises(ValueError, match="is not the address"):
        hub.repository(address)


def test_a_repository_that_it_does_not_show_is_unknown(hub: GitHub) -> None:
    with pytest.raises(RepositoryUnknown) as caught:
        ask(hub, "nothing")
    assert caught.value.code == "repository_unknown"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("slow", "in time"),
        ("huge", "exceeds"),
        ("lying", "not what its documentation says"),
        ("garbled", "not what its documentation says"),
        ("limited", "no more questions"),
        ("broken", "status 500"),
        ("nowhere", "no address"),
        ("round", "from one address to the next"),
    ],
)
def test_an_answer_that_makes_no_sense_is_the_dependency_s_fault(hub: GitHub, name: str, why: str) -> None:
    with pytest.raises(DependencyUnavailable, match=why) as caught:
        ask(hub, name)
    assert caught.value.code == "github_unavailable"


def test_a_redirect_to_another_host_is_not_followed(hub: GitHub, asked: Asked) -> None:
    with pytest.raises(DependencyUnavailable, match="another host"):
        ask(hub, "lured")
    assert [path for path, _ in asked] == [ENDPOINT.format("lured")]


def test_an_endpoint_in_the_house_has_to_be_allowed(running: tuple[str, Asked], asked: Asked) -> None:
    outside = GitHub(running[0], timeout=0.4)
    with pytest.raises(DependencyUnavailable, match="not public"):
        ask(outside, "sorter")
    assert asked == []


def test_nobody_there_is_the_dependency_s_fault_too() -> None:
    with pytest.raises(DependencyUnavailable):
        ask(GitHub("http://127.0.0.1:1", timeout=0.4, private=True), "sorter")


def test_an_endpoint_is_an_address_and_a_token_goes_over_tls_only() -> None:
    for address in ("api.github.com", "ftp://host", "https://u:p@host", "https://host/?a=b"):
        with pytest.raises(ValueError, match="GITHUB_API_URL"):
            GitHub(address)
    with pytest.raises(ValueError, match="https"):
        GitHub("http://host", token="secret")
    enterprise = GitHub("https://git.example.org/api/v3")
    assert str(enterprise.repository("https://git.example.org/ada/sorter")) == "ada/sorter"
