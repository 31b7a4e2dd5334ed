"""What a deployment chose to install decides which queues its workers serve, and what is said where it is missing."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from pipeline import extras, formats
from pipeline.errors import Unavailable
from pipeline.formats import Glimpse, discover
from pipeline.stage import discover as stages
from pipeline.stage import with_packed
from workers.app import POOLS, queues

ROOT = Path(__file__).parents[2]
NOTHING = Glimpse(head=b"", tail=b"", size=0)


def test_every_extra_is_one_that_pip_installs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.EXTRAS) <= set(project["optional-dependencies"])
    needed = {one.extra for one in discover() if isinstance(one.extra, str)}
    assert needed <= set(extras.EXTRAS)
    assert "tensorflow" in needed


def test_steps_that_open_the_model_wait_for_a_worker_that_can() -> None:
    plan = {stage.name: stage.step("tensorflow").queue for stage in stages()}
    assert plan["scan"] == "scan"  # our own readers need no library
    assert plan["optimize"] == "convert"  # by then it is ONNX
    assert (plan["validate"], plan["convert"], plan["benchmark"]) == (
        "cpu-tensorflow",
        "convert-tensorflow",
        "bench-tensorflow",
    )
    assert [stage.step().queue for stage in stages()] == [stage.queue for stage in stages()]


@pytest.mark.parametrize(
    ("config", "extra"),
    [
        ({"architecture": {"library": "torchvision", "name": "resnet18"}}, None),
        ({"architecture": {"library": "timm", "name": "resnet18"}}, "architectures"),
        ({"architectures": ["BertModel"], "model_type": "bert"}, "architectures"),
        ({"architecture": {"library": "ultralytics", "name": "yolo11n"}}, "yolo"),
        ({"architecture": "resnet18"}, None),  # refused for its form, wherever that is read
        ({"architecture": {"library": "of mine"}}, None),
        ({}, None),
    ],
)
def test_only_weights_of_a_known_library_wait_for_a_worker_that_has_it(
    config: dict[str, object], extra: str | None
) -> None:
    for name in ("checkpoint", "safetensors"):
        assert formats.find(name).needs(NOTHING, {"config": config}) == extra


def test_a_worker_serves_the_queues_of_the_extras_that_it_has_and_no_others() -> None:
    plain = queues(POOLS["cpu"], stages(), ())
    assert plain == POOLS["cpu"].queues
    able = queues(POOLS["cpu"], stages(), ("tensorflow", "yolo"))
    assert set(able) - set(plain) == {"cpu-tensorflow", "cpu-yolo", "convert-tensorflow", "convert-yolo"}
    assert queues(POOLS["bench"], stages(), ("tensorflow",)) == ("bench", "bench-tensorflow")


def test_between_them_the_pools_serve_every_queue_of_a_plan() -> None:
    served = {name for pool in POOLS.values() for name in queues(pool, stages(), tuple(extras.EXTRAS))}
    for extra in (None, *extras.EXTRAS):
        assert {stage.step(extra).queue for stage in stages()} <= served


def test_a_step_that_comes_to_the_wrong_worker_breaks_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(extras, "EXTRAS", {"tensorflow": ("json", "a_module_that_nobody_has")})
    assert extras.installed() == ()
    (tmp_path / "model.tflite").write_bytes(b"\0\0\0\0TFL3")
    with pytest.raises(Unavailable, match=r"a_module_that_nobody_has.*slipway-server\[tensorflow\]") as caught:
        formats.find("tflite").require(tmp_path / "model.tflite", {})
    assert caught.value.code == "converter_missing"
    formats.find("onnx").require(tmp_path / "model.tflite", {})


def test_what_the_uploader_says_counts_more_than_what_the_package_says() -> None:
    packed = {"config": {"task": "detection", "max_batch": 4}, "classes": ["a"], "input_shape": [1, 8]}
    declared = {"config": {"task": "classification"}, "classes": ["b"], "tags": ["x"]}
    assert with_packed(declared, packed) == {
        "config": {"task": "classification", "max_batch": 4},
        "classes": ["b"],
        "input_shape": [1, 8],
        "tags": ["x"],
    }
    assert with_packed(declared, {}) == declared


@pytest.mark.parametrize(
    ("names", "extra"),
    [
        (("digits/saved_model.pb", "digits/variables/variables.index", "README.md"), "tensorflow"),
        (("model.tflite", "config.json"), "tensorflow"),
        (("graph.pb", "LICENSE"), "tensorflow"),
        (("model/digits.onnx", "model/digits.onnx.data"), None),
        (("digits.onnx", "digits.tflite"), None),
    ],
)
def test_the_names_in_a_package_tell_which_worker_it_takes(names: tuple[str, ...], extra: str | None) -> None:
    class Listed(Glimpse):
        members = names

    package = formats.find("package")
    glimpse = Listed(head=b"PK\x03\x04", tail=b"", size=1)
    assert package.recognises(glimpse)
    assert package.needs(glimpse, {}) == extra
    assert package.needs(NOTHING, {}) is None
