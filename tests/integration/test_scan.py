"""The scan stage on a real clamd and a real sandbox: what it lets pass, what it refuses, and what makes it wait."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import pickle
import shutil
import socket
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import torch

from pipeline.errors import Rejected
from pipeline.reading import well_formed
from pipeline.sandbox import Zygote, discard
from pipeline.stage import AntivirusVerdict, File, Passage, Publisher, Report, Scanner, Upload
from pipeline.stages.scan import STAGE
from registry.waivers import Waiver
from shared.antivirus import Clamd
from shared.errors import DependencyUnavailable
from tests.readers.container_files import packed_7z, tarred

EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-" + b"ANTIVIRUS-TEST-FILE!$H+H*"
CLAMD = shutil.which("clamd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

needs_clamd = pytest.mark.skipif(CLAMD is None, reason="clamd is not installed (Debian: clamav-daemon)")


@contextmanager
def running_clamd(folder: Path, **settings: str) -> Iterator[str]:
    """A daemon that knows EICAR, and nothing else; yields its URL."""
    signatures = folder / "signatures"
    signatures.mkdir(parents=True)
    (signatures / "test.ndb").write_text(f"Test.EICAR:0:*:{EICAR.hex()}\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    limits = {"StreamMaxLength": "2047M", "MaxScanSize": "2047M", "MaxFileSize": "2047M"} | settings
    lines = {
        "Foreground": "yes",
        "TCPSocket": str(port),
        "TCPAddr": "127.0.0.1",
        "DatabaseDirectory": str(signatures),
        "TemporaryDirectory": str(folder),
        "AlertExceedsMax": "yes",
        **limits,
    }
    configuration = folder / "clamd.conf"
    configuration.write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(CLAMD), f"--config-file={configuration}"], stdout=log, stderr=log)
        try:
            clamd = Clamd(f"tcp://127.0.0.1:{port}")
            for _ in range(200):
                try:
                    clamd.ping()
                    break
                except DependencyUnavailable:
                    assert process.poll() is None, (folder / "log").read_text()
                    time.sleep(0.05)
            yield f"tcp://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture(scope="module")
def clamd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clamd]:
    with running_clamd(tmp_path_factory.mktemp("clamd")) as url:
        yield Clamd(url)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Zygote]:
    zygote = Zygote(preload=("pipeline.readers",), prefixes=("pipeline.",))
    yield zygote
    zygote.close()


@dataclass(kw_only=True)
class Words:
    """A scanner that speaks the stage's words, as the worker's does."""

    clamd: Clamd

    def scan(self, path: Path) -> AntivirusVerdict:
        threat, complete, engine, windows = self.clamd.scan(path)
        return AntivirusVerdict(threat=threat, complete=complete, engine=engine, windows=windows)


@dataclass(kw_only=True)
class Decisions:
    """What reviewers of this test have decided."""

    granted: list[Waiver] = field(default_factory=list)
    against: set[str] = field(default_factory=set)

    def waivers(self, sha256: Collection[str]) -> list[Waiver]:
        return [waiver for waiver in self.granted if waiver.sha256 in sha256]

    def condemned(self, sha256: Collection[str]) -> set[str]:
        return self.against.intersection(sha256)


@dataclass(kw_only=True)
class Work:
    """The stage's context over files of this test."""

    upload: Upload
    model: Path
    side_files: Mapping[str, Path]
    scratch: Path
    scanner: Scanner | None
    sandbox: Zygote
    reviews: Decisions
    earlier: Mapping[str, Passage] = field(default_factory=dict)
    attempt: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def log(self, text: str) -> None:
        self.lines.append(text)

    def fetch(self, file: File) -> Path:
        raise AssertionError("the first stage has nothing to fetch")

    @property
    def publisher(self) -> Publisher:
        raise AssertionError("scan publishes nothing")


@pytest.fixture
def scan(tmp_path: Path, sandbox: Zygote) -> Iterator[Callable[..., Report]]:
    with ExitStack() as cleaning:

        def scan(
            model: Path,
            *,
            scanner: Clamd | None,
            format_: str = "package",
            reviews: Decisions | None = None,
            opinions: tuple[str, ...] = (),
            **side_files: Path,
        ) -> Report:
            scratch = tmp_path / f"scratch-{uuid4().hex}"
            scratch.mkdir()
            cleaning.callback(discard, scratch)
            upload = Upload(
                version_id=uuid4(),
                model="digits",
                version="1.0.0",
                format=format_,
                filename=model.name,
                size=model.stat().st_size,
                sha256="0" * 64,
                declared={},
            )
            work = Work(
                upload=upload,
                model=model,
                side_files=side_files,
                scratch=scratch,
                scanner=Words(clamd=scanner) if scanner else None,
                sandbox=sandbox,
                reviews=reviews or Decisions(),
                options={"second_opinions": opinions},
            )
            return STAGE.run(work)

        yield scan


def refused(scan: Callable[..., Report], *arguments: Any, **keywords: Any) -> Rejected:
    with pytest.raises(Rejected) as caught:
        scan(*arguments, **keywords)
    json.dumps(caught.value.details)
    return caught.value


def rules(error: Rejected) -> set[str]:
    return {finding["rule"] for finding in error.details["findings"]}  # type: ignore[attr-defined]


FORMATS = {".pt": "torchscript", ".pt2": "pt2", ".onnx": "onnx", ".safetensors": "safetensors"}


@needs_clamd
def test_real_models_are_clean_with_everything_the_report_promises(
    scan: Callable[..., Report], clamd: Clamd, benign: dict[str, Path]
) -> None:
    for name in ("rich.pt", "traced.pt", "dynamic.pt2", "dynamo.onnx", "light_resnet50.onnx", "weights.safetensors"):
        report = scan(
            benign[name],
            scanner=clamd,
            format_=FORMATS[benign[name].suffix],
            config=benign["config.yaml"],
            requirements=benign["requirements.txt"],
            calibration=benign["calibration.npz"],
            card=benign["README.md"],
        )
        facts = json.loads(json.dumps(report.facts))
        assert facts["verdict"] == "clean"
        assert facts["findings"] == []
        assert facts["antivirus"]["complete"] is True
        assert facts["antivirus"]["engine"].startswith("ClamAV ")
        assert facts["readers"]["numpy"] > 0
        assert facts["readers"][FORMATS[benign[name].suffix]] > 0
        assert "pickle/" in facts["ruleset"]


def test_what_torch_saved_is_a_checkpoint_in_every_age(scan: Callable[..., Report], tmp_path: Path) -> None:
    layer, path = torch.nn.Linear(2, 2), tmp_path / "model.pt"
    for saved, options in (
        (layer, {}),
        (layer.state_dict(), {}),
        (layer.state_dict(), {"_use_new_zipfile_serialization": False}),
        (torch.nn.ReLU(), {}),
    ):
        torch.save(saved, path, **options)
        assert scan(path, scanner=None, format_="checkpoint").facts["verdict"] == "clean"
    path.write_bytes(pickle.dumps([1, 2, 3]))
    assert rules(refused(scan, path, scanner=None, format_="checkpoint")) >= {"content.mismatch"}


@needs_clamd
def test_virus_in_a_model_is_refused_as_malicious(scan: Callable[..., Report], clamd: Clamd, tmp_path: Path) -> None:
    model = tmp_path / "model.txt"
    model.write_bytes(b"weights " + EICAR)
    error = refused(scan, model, scanner=clamd)
    assert error.code == "malicious"
    assert rules(error) == {"antivirus.threat"}
    assert error.details["verdict"] == "malicious"
    assert error.details["antivirus"]["complete"] is True  # type: ignore[index]
    assert "Test.EICAR" in error.message


@needs_clamd
def test_virus_in_a_packed_member_that_the_daemon_does_not_open_is_found(
    scan: Callable[..., Report], clamd: Clamd, tmp_path: Path
) -> None:
    model = tmp_path / "model.zip"
    with (
        zipfile.ZipFile(model, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("notes.txt", "w", force_zip64=True) as member,
    ):
        member.write(b"some text to pack, some text to pack, some text to pack " + EICAR)
    error = refused(scan, model, scanner=clamd)
    assert error.code == "malicious"
    assert "antivirus.threat" in rules(error)


@needs_clamd
@pytest.mark.parametrize("name", ["lzma", "7z", "lz4"])
def test_virus_in_a_container_that_the_daemon_does_not_open_is_found(
    scan: Callable[..., Report], clamd: Clamd, tmp_path: Path, name: str
) -> None:
    model = tmp_path / "model"
    stored = b"\x04\x22\x4d\x18\x60\x40\x82" + (len(EICAR) | 1 << 31).to_bytes(4, "little") + EICAR + bytes(4)
    packed = {
        "lzma": lzma.compress(b"text " + EICAR, lzma.FORMAT_ALONE),
        "7z": packed_7z({"a.txt": b"text " + EICAR}),
        "lz4": stored,
    }
    model.write_bytes(packed[name])
    error = refused(scan, model, scanner=clamd)
    assert error.code == "malicious"
    assert "antivirus.threat" in rules(error)


def test_large_content_is_unpacked_inside_the_sandbox(scan: Callable[..., Report], tmp_path: Path) -> None:
    size = 20 << 20  # more than is unpacked in memory
    header = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    weights = len(header).to_bytes(8, "little") + header + os.urandom(1 << 20) * 20
    for name, content in {
        "model.gz": gzip.compress(weights, 1),
        "model.7z": packed_7z({"weights": weights}, "deflate"),
        "model.tar.bz2": bz2.compress(tarred({"weights": weights}), 1),
    }.items():
        (tmp_path / name).write_bytes(content)
        facts = scan(tmp_path / name, scanner=None).facts
        assert facts["verdict"] == "clean"
        assert facts["readers"]["safetensors"] == len(weights)


@needs_clamd
def test_virus_in_a_side_file_is_refused(scan: Callable[..., Report], clamd: Clamd, tmp_path: Path) -> None:
    model, card = tmp_path / "model.txt", tmp_path / "README.md"
    model.write_text("fine")
    card.write_bytes(EICAR)
    error = refused(scan, model, scanner=clamd, card=card)
    assert error.code == "malicious"
    assert [finding["path"] for finding in error.details["findings"]] == ["card.md"]  # type: ignore[attr-defined]


def test_hostile_model_is_refused_with_the_same_facts_as_a_clean_one(
    scan: Callable[..., Report], tmp_path: Path
) -> None:
    fine, hostile = tmp_path / "fine.txt", tmp_path / "model.pkl"
    fine.write_text("fine")
    hostile.write_bytes(pickle.dumps(os.system)[:-1] + b"V/bin/true\n\x85R.")
    error = refused(scan, hostile, scanner=None)
    assert error.code == "malicious"
    assert "pickle.gadget" in rules(error)
    assert set(error.details) == set(scan(fine, scanner=None).facts)


def test_content_nobody_understands_is_refused_as_unknown(scan: Callable[..., Report], tmp_path: Path) -> None:
    model = tmp_path / "model.bin"
    model.write_bytes(b"\x93\x01\x02\x03" * 100)
    error = refused(scan, model, scanner=None)
    assert error.code == "unknown_content"
    assert error.details["verdict"] == "unknown"


def test_content_of_another_format_than_declared_is_refused(scan: Callable[..., Report], tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_text("no model at all")
    error = refused(scan, model, scanner=None, format_="onnx")
    assert error.code == "unknown_content"
    assert rules(error) >= {"content.mismatch"}


def test_secret_in_a_side_file_is_refused_and_not_repeated(scan: Callable[..., Report], tmp_path: Path) -> None:
    model, config = tmp_path / "model.txt", tmp_path / "config.txt"
    model.write_text("fine")
    config.write_text("key: AKIA" + "ABCDEFGHIJKLMNOP\n")
    error = refused(scan, model, scanner=None, config=config)
    assert error.code == "unknown_content"
    assert "ABCDEFGH" not in json.dumps(error.details)


def test_side_file_called_like_the_model_does_not_take_its_place(scan: Callable[..., Report], tmp_path: Path) -> None:
    model, side = tmp_path / "config.txt", tmp_path / "other.txt"
    model.write_bytes(b"cposix\nsystem\n(Vtrue\ntR.")
    side.write_text("fine")
    assert refused(scan, model, scanner=None, config=side).code == "malicious"


def test_without_an_antivirus_the_report_says_so(scan: Callable[..., Report], tmp_path: Path) -> None:
    model = tmp_path / "model.txt"
    model.write_text("fine")
    facts = scan(model, scanner=None).facts
    assert facts["verdict"] == "clean"
    assert facts["antivirus"] is None
    assert [(one["rule"], one["severity"]) for one in facts["findings"]] == [("antivirus.absent", "info")]


def test_model_that_kills_its_reader_is_unknown(scan: Callable[..., Report], tmp_path: Path) -> None:
    """Two hundred thousand nested lists in one document: whatever the reader dies of, the model is not clean."""
    model = tmp_path / "config.json"
    model.write_text("[" * 200_000)
    assert refused(scan, model, scanner=None).code == "unknown_content"


def test_scan_waits_while_the_daemon_is_away(scan: Callable[..., Report], tmp_path: Path) -> None:
    model = tmp_path / "model.txt"
    model.write_text("fine")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        gone = Clamd(f"tcp://127.0.0.1:{nobody.getsockname()[1]}")
        with pytest.raises(DependencyUnavailable) as caught:
            scan(model, scanner=gone)
    assert caught.value.code == "antivirus_unavailable"


@pytest.mark.parametrize("last_words", [None, b"", b"stream: broken ERROR\0", b"gibberish\0", b"stream: O"])
def test_daemon_that_is_silent_or_stammers_is_never_taken_for_clean(tmp_path: Path, last_words: bytes | None) -> None:
    """A server that answers VERSION, swallows a stream, and then says nothing, hangs up, or says something else."""
    file = tmp_path / "file"
    file.write_bytes(b"x" * 10)
    stopped = threading.Event()

    def serve(listener: socket.socket) -> None:
        first, _ = listener.accept()
        with first:
            first.recv(100)
            first.sendall(b"ClamAV 1.4\0")
        second, _ = listener.accept()
        with second:
            while not second.recv(1 << 16).endswith(b"\0\0\0\0"):
                pass
            if last_words is None:
                stopped.wait(10)
            else:
                second.sendall(last_words)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        clamd = Clamd(f"tcp://127.0.0.1:{listener.getsockname()[1]}", answer_timeout=0.5)
        try:
            with pytest.raises(DependencyUnavailable):
                clamd.scan(file)
        finally:
            stopped.set()
            server.join()


@needs_clamd
def test_daemon_is_asked_for_its_version_and_tested_with_the_test_virus(clamd: Clamd) -> None:
    clamd.ping()
    assert clamd.version().startswith("ClamAV 1")
    assert clamd.self_test() is True


@needs_clamd
def test_daemon_without_useful_signatures_fails_the_self_test(tmp_path: Path) -> None:
    with running_clamd(tmp_path / "clamd") as url:
        signatures = tmp_path / "clamd/signatures/test.ndb"
        signatures.write_text(f"Test.Other:0:*:{b'something else entirely'.hex()}\n")
        assert Clamd(url).self_test() is True
        connection = socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])))
        with connection:
            connection.sendall(b"zRELOAD\0")
            connection.recv(100)
        deadline = time.monotonic() + 20
        while Clamd(url).self_test() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert Clamd(url).self_test() is False


@needs_clamd
def test_file_above_the_stream_limit_is_shown_in_overlapping_windows(tmp_path: Path) -> None:
    """Also where the virus lies across the edge of two windows."""
    size = 20 << 20
    with running_clamd(tmp_path / "clamd", StreamMaxLength="8M") as url:
        file = tmp_path / "large"
        for at in (0, size - len(EICAR), (5 << 20) - 30, (9 << 20) + 5):
            content = bytearray(size)
            content[at : at + len(EICAR)] = EICAR
            file.write_bytes(content)
            look = Clamd(url).scan(file)
            assert look.threat is not None, at
            assert look.windows > 1
        file.write_bytes(bytes(size))
        look = Clamd(url).scan(file)
        assert (look.threat, look.complete) == (None, True)


@needs_clamd
def test_report_says_which_file_was_shown_in_windows(scan: Callable[..., Report], tmp_path: Path) -> None:
    """Of several files, and also where the one that came last fitted into one stream."""
    model, card = tmp_path / "model.txt", tmp_path / "README.md"
    model.write_text("weights\n" * (10 << 17))
    card.write_text("fine")
    with running_clamd(tmp_path / "clamd", StreamMaxLength="8M") as url:
        facts = scan(model, scanner=Clamd(url), card=card).facts
    assert facts["verdict"] == "clean"
    assert facts["antivirus"]["complete"] is True
    (finding,) = facts["findings"]
    assert (finding["rule"], finding["severity"], finding["path"]) == ("antivirus.windows", "info", "model.txt")
    assert "overlapping" in finding["message"]


@needs_clamd
def test_file_the_daemon_does_not_look_at_completely_is_not_clean(scan: Callable[..., Report], tmp_path: Path) -> None:
    with running_clamd(tmp_path / "clamd", MaxScanSize="1M", MaxFileSize="1M") as url:
        model = tmp_path / "model.txt"
        model.write_text("weights\n" * (6 << 17))
        error = refused(scan, model, scanner=Clamd(url))
    assert error.code == "unknown_content"
    assert rules(error) == {"antivirus.incomplete"}
    assert error.details["antivirus"]["complete"] is False  # type: ignore[index]


def test_daemon_may_listen_on_a_unix_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(100)
                peer.sendall(b"PONG\0")

        server = threading.Thread(target=serve)
        server.start()
        Clamd(f"unix://{tmp_path}/s").ping()
        server.join()
    with pytest.raises(ValueError, match="CLAMD_URL"):
        Clamd("http://localhost")


FINDING = {"rule": "r", "severity": "info", "path": "p", "offset": None, "message": "m", "advice": "a"}
SUMMARY = {
    "names": [{"reader": "pickle", "name": "torch Size", "path": "p"}],
    "parts": [{"path": "p", "reader": "pickle"}],
}
ANSWER = {
    "verdict": "clean",
    "findings": [FINDING],
    "stops": {},
    "bytes": {"text": 1},
    "summary": SUMMARY,
    "ruleset": "text/1",
}


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "fine"},
        {"verdict": None},
        {"bytes": {"text": "1"}},
        {"ruleset": 1},
        {"findings": [{**FINDING, "severity": "harmless"}]},
        {"findings": [{**FINDING, "offset": "1"}]},
        {"findings": [{**FINDING, "more": 1}]},
        {"findings": [{**FINDING, "message": "x" * 10_000}]},
        {"findings": [{**FINDING, "message": "nul \x00"}]},
        {"findings": [{**FINDING, "path": "half \ud800"}]},
        {"findings": [FINDING] * 1000},
        {"findings": "none"},
        {"bytes": {"text": -1}},
        {"summary": {**SUMMARY, "names": [{"reader": "pickle", "name": 1, "path": "p"}]}},
        {"summary": {**SUMMARY, "names": [{"name": "torch Size", "path": "p"}]}},
        {"summary": {"names": []}},
        {"stops": {"r": "unknown"}},
        {"verdict": "unknown"},
        {"findings": [{**FINDING, "severity": "malicious"}]},
        {"verdict": "unknown", "stops": {"r": "unknown"}, "findings": [{**FINDING, "severity": "malicious"}]},
    ],
)
def test_answer_of_the_reader_is_not_believed_unless_it_has_the_promised_shape(change: dict[str, Any]) -> None:
    assert well_formed(ANSWER)
    assert not well_formed({**ANSWER, **change})
    assert not well_formed([ANSWER])
