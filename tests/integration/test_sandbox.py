"""The sandbox against live escapes, on the real kernel; and that honest work runs inside.

As whoever runs the tests: `test_sandbox_elsewhere.py` runs all of this again as others and under a container's rules.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import Rejected, Unavailable
from pipeline.sandbox import ChildFailed, Zygote, discard, host, safe_file, seccomp, supported
from pipeline.sandbox.answer import parse
from pipeline.sandbox.child import SandboxChild
from pipeline.stage import Limits

ROOT = Path(__file__).parent.parent.parent
PREFIXES = ("pipeline.", "tests.")
SMALL = Limits(wall=20, cpu=20, memory=1 << 30, file_size=1 << 20, open_files=64, answer=1 << 16)


def payload(name: str) -> str:
    return f"tests.integration.sandbox_payloads:{name}"


def reachable_by_nobody(path: str) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in Path(path).parents)


def uncovering() -> list[str]:
    """Shell commands that make our files reachable by nobody, in a mount namespace where private folders lie above."""
    hidden = {
        next(folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001): path
        for path in (Path(sys.base_prefix), Path(sys.prefix), ROOT)
        if not reachable_by_nobody(str(path))
    }
    return [
        f"kept=$(mktemp -d); mount --bind {path} $kept; mount -t tmpfs -o mode=755 tmpfs {folder};"
        f"mkdir -p {path}; mount --move $kept {path}; rmdir $kept"
        for folder, path in hidden.items()
    ]


def reachable_python(program: Path) -> Path:
    """Write a program that is this Python, with its files where nobody reaches them."""
    script = "\n".join(["set -e", *uncovering(), f'exec {sys.executable} "$@"'])
    program.write_text(f"#!/bin/sh\nexec unshare --mount sh -c '{script}' sh \"$@\"\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may search, with an empty `scratch`, a `model` and a readable `secret` in it."""
    folder = Path(tempfile.mkdtemp(prefix="slipway-test-"))
    folder.chmod(0o711)
    (folder / "scratch").mkdir()
    for name in ("model", "secret"):
        (folder / name).write_text(name)
        (folder / name).chmod(0o644)
    yield folder
    discard(folder)


@pytest.fixture(scope="module")
def light() -> Iterator[Zygote]:
    zygote = Zygote(preload=(), prefixes=PREFIXES)
    yield zygote
    zygote.close()


@pytest.fixture(scope="module")
def heavy() -> Iterator[Zygote]:
    zygote = Zygote(prefixes=PREFIXES)
    yield zygote
    zygote.close()


@pytest.fixture(params=[(), ("namespaces",), ("landlock",)], ids=["all layers", "no namespaces", "no landlock"])
def layered(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Zygote]:
    without = request.param
    if "landlock" in without and not supported().namespaces:
        pytest.skip("nothing stands in for Landlock here")
    if "namespaces" in without and os.geteuid() == 0 and not reachable_by_nobody(f"{sys.base_prefix}/bin"):
        if not supported().namespaces:
            pytest.skip("nobody can reach this Python, and it cannot be moved")
        monkeypatch.setattr(sys, "executable", str(reachable_python(tmp_path / "python")))
    zygote = Zygote(preload=(), prefixes=PREFIXES, without=without)
    yield zygote
    zygote.close()


@pytest.fixture
def child(light: Zygote, place: Path) -> Iterator[SandboxChild]:
    with light.open(read=[place / "model"], scratch=place / "scratch", limits=SMALL) as child:
        yield child


# Ways out


def test_no_system_call_leads_out(layered: Zygote, place: Path) -> None:
    with layered.open(read=[], scratch=place / "scratch", limits=SMALL) as child:
        outcomes = child.call(payload("attempts"))
    expected = dict.fromkeys(outcomes, "EPERM") | {
        "clone3": "ENOSYS",
        "openat2": "ENOSYS",
        "unknown call": "ENOSYS",
        "terminal input": "ENOTTY",
    }
    assert outcomes == expected
    assert len(outcomes) > 110


def test_only_granted_files_are_read_and_only_scratch_is_written(layered: Zygote, place: Path) -> None:
    with layered.open(read=[place / "model"], scratch=place / "scratch", limits=SMALL) as child:

        def read(path: str | Path) -> object:
            return child.call(payload("read_file"), path=str(path))

        def write(path: str | Path) -> object:
            return child.call(payload("write_file"), path=str(path))

        assert read(place / "model") == "done"
        assert write(place / "scratch" / "new") == "done"
        refused = {"EACCES", "ENOENT", "EROFS", "EPERM"}
        for path in (place / "secret", "/etc/passwd", f"/proc/{os.getpid()}/environ", "/proc/1/environ", __file__[:-3]):
            assert read(path) in refused, path
        for path in (place / "model", place / "new", "/tmp/slipway-escape", "/dev/shm/slipway-escape", sys.executable):
            assert write(path) in refused, path
        assert write("/dev/null") == "done"
        seen = child.call(payload("list_folder"), path=str(place))
        assert seen in (["EACCES"], ["model", "scratch"]), "the real folder holds `secret` too"
    assert (place / "scratch" / "new").read_bytes() == b"x"
    assert (place / "model").read_text() == "model"
    assert not (place / "new").exists()


def test_nothing_is_moved_removed_or_made_outside(layered: Zygote, place: Path) -> None:
    scratch, secret, model = place / "scratch", place / "secret", place / "model"
    with layered.open(read=[model], scratch=scratch, limits=SMALL) as child:

        def call(function: str, *arguments: Path | str, **named: str) -> object:
            names = {"move": ("source", "target"), "exchange": ("one", "other")}.get(function, ("path",))
            return child.call(payload(function), **dict(zip(names, map(str, arguments), strict=True)), **named)

        refused = {"EACCES", "ENOENT", "EROFS", "EPERM", "EXDEV", "EBUSY"}
        assert call("write_file", scratch / "mine") == "done"
        for source, target in (
            (secret, scratch / "stolen"),
            (model, scratch / "stolen"),
            (scratch / "mine", place / "planted"),
            (scratch / "mine", model),
            (scratch, place / "elsewhere"),
        ):
            assert call("move", source, target) in refused, (source, target)
        assert call("exchange", scratch / "mine", model) in refused
        for path in (secret, model, scratch / ".." / "secret"):
            assert call("remove", path) in refused, path
        for path in (place / "made", Path("/tmp/slipway-made"), Path("/made")):
            assert call("make_folder", path) in refused, path
        for path in (
            "../secret",
            f"../../{place.name}/secret",
            "/proc/self/cwd/../secret",
            f"/proc/self/root{secret}",
            "/proc/self/fd/2/../secret",
        ):
            assert child.call(payload("read_by_folder"), scratch=str(scratch), path=path) in refused | {"ENOTDIR"}, path
        assert call("move", scratch / "mine", scratch / "still mine") == "done"
    assert sorted(path.name for path in place.iterdir()) == ["model", "scratch", "secret"]
    assert (model.read_text(), secret.read_text()) == ("model", "secret")


def test_devices_and_the_kernels_own_files_are_out_of_reach(layered: Zygote, place: Path) -> None:
    with layered.open(read=[], scratch=place / "scratch", limits=SMALL) as child:
        refused = {"EACCES", "ENOENT", "EROFS", "EPERM", "ENXIO", "EIO"}
        for name in ("tty", "mem", "kmsg", "fuse", "kvm", "net/tun", "ptmx", "shm/x", "vda", "nvidiactl", "full"):
            assert child.call(payload("read_file"), path=f"/dev/{name}") in refused, name
        for name in ("sys/kernel/core_pattern", "sys/kernel/hostname", "sysrq-trigger", "self/mem", "self/uid_map"):
            assert child.call(payload("write_file"), path=f"/proc/{name}") in refused, name
        for name in ("kcore", "1/environ", "1/maps", "self/mem", "kpageflags", "vmallocinfo"):
            assert child.call(payload("read_file"), path=f"/proc/{name}") in refused, name
        assert child.call(payload("write_file"), path="/sys/kernel/mm/ksm/run") in refused
        assert child.call(payload("write_file"), path="/sys/fs/cgroup/cgroup.procs") in refused


def test_other_processes_are_neither_seen_nor_touched(layered: Zygote, place: Path) -> None:
    """The owner, the guardian, the zygote and another child, by the numbers that they have outside and inside."""
    (place / "other").mkdir()
    with (
        layered.open(read=[], scratch=place / "other", limits=SMALL),
        layered.open(read=[], scratch=place / "scratch", limits=SMALL) as child,
    ):
        others = [os.getpid(), os.getppid(), *processes_below(os.getpid())]
        own = child.call(payload("own_number"))
        tried = child.call(payload("touch_processes"), pids=[pid for pid in {1, 2, 3, *others} if pid != own])
        assert {name: outcome for name, outcome in tried.items() if outcome not in {"EACCES", "ENOENT", "EPERM"}} == {}
        assert child.call(payload("processes_in_sight")) in ([], ["EACCES"], [str(own)])
        affinity = os.sched_getaffinity(0)
        child.call(payload("move_the_parent"), cpu=min(affinity))
        assert [os.sched_getaffinity(pid) for pid in others] == [affinity] * len(others)


def test_no_program_is_run_not_even_its_own(layered: Zygote, place: Path) -> None:
    with layered.open(read=[], scratch=place / "scratch", limits=SMALL) as child:
        assert child.call(payload("run_own_program"), scratch=str(place / "scratch")) == "EPERM EPERM"


def test_modes_times_and_lengths_stay_as_they_are(layered: Zygote, place: Path) -> None:
    model, secret = place / "model", place / "secret"
    with layered.open(read=[model], scratch=place / "scratch", limits=SMALL) as child:
        before = [path.stat() for path in (model, secret)]
        for path in (model, secret):
            child.call(payload("disturb"), path=str(path))
            assert child.call(payload("empty_while_reading"), path=str(path)) == "EPERM"
        after = [path.stat() for path in (model, secret)]
    as_they_were = [(found.st_mode, found.st_mtime_ns, found.st_size) for found in before]
    assert [(found.st_mode, found.st_mtime_ns, found.st_size) for found in after] == as_they_were


def test_the_settings_beside_our_packages_are_out_of_reach(layered: Zygote, place: Path) -> None:
    with layered.open(read=[], scratch=place / "scratch", limits=SMALL) as child:
        assert child.call(payload("read_file"), path=str(ROOT / "pipeline" / "errors.py")) == "done"
        assert child.call(payload("read_file"), path=str(ROOT / "pyproject.toml")) in {"EACCES", "ENOENT"}


def test_links_out_of_scratch_are_neither_made_nor_followed(child: SandboxChild, place: Path) -> None:
    scratch, secret = str(place / "scratch"), str(place / "secret")
    assert child.call(payload("read_through_link"), scratch=scratch, target=secret) == "EPERM"
    assert child.call(payload("hard_link"), scratch=scratch, target=str(place / "model")) == "EPERM"
    (place / "scratch" / "ours").symlink_to(secret)
    assert child.call(payload("read_file"), path=f"{scratch}/ours") in {"EACCES", "ENOENT"}


def test_the_child_is_nobody_and_owns_nothing(child: SandboxChild, place: Path) -> None:
    found = child.call(payload("identity"))
    scratch = str(place / "scratch")
    assert found["capabilities"] == [0, 0, 0, 0]
    assert (found["no_new_privs"], found["seccomp"], found["session"], found["threads"]) == (1, 2, True, 1)
    assert found["environment"] == {"HOME": scratch, "TMPDIR": scratch}
    assert found["descriptors"] == [0, 1, 2, 3]  # nothing, output, output, the channel
    assert sorted(child.call(payload("environment_of_c"))) == [f"HOME={scratch}", f"TMPDIR={scratch}"]
    if os.geteuid() == 0:
        assert (found["uid"], found["groups"]) == (65534, [])


def test_a_child_with_a_gpu_knows_which_and_is_locked_down_like_any_other(layered: Zygote, place: Path) -> None:
    """Without a GPU here: what CUDA would find is not shown, only that nothing else opens."""
    with layered.open(read=[], scratch=place / "scratch", limits=replace(SMALL, gpu="GPU-1")) as child:
        found = child.call(payload("identity"))
        assert found["environment"]["CUDA_VISIBLE_DEVICES"] == "GPU-1"
        assert (found["capabilities"], found["no_new_privs"], found["seccomp"]) == ([0, 0, 0, 0], 1, 2)
        assert child.call(payload("read_file"), path=str(place / "secret")) in {"EACCES", "ENOENT"}
        assert child.call(payload("write_file"), path="/sys/kernel/mm/ksm/run") in {"EACCES", "ENOENT", "EROFS"}
        assert child.call(payload("map_memory"), shared=False) > SMALL.memory, "CUDA reserves addresses, not memory"


def test_secrets_and_descriptors_of_the_owner_are_not_inherited(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_TEST_SECRET", "s3cret")
    kept = os.open(place / "secret", os.O_RDONLY)
    os.set_inheritable(kept, True)
    zygote = Zygote(preload=(), prefixes=PREFIXES)
    try:
        with zygote.open(read=[], scratch=place / "scratch", limits=SMALL) as child:
            assert child.call(payload("identity"))["descriptors"] == [0, 1, 2, 3]
            assert child.call(payload("read_file"), path="/proc/self/environ") == "EACCES"
            *ours, _ = (
                zygote.pid,
                *processes_below(zygote.pid),
            )  # the last is the child, closed to us without CAP_SYS_PTRACE
            for process in ours if os.geteuid() == 0 else ():
                assert b"s3cret" not in Path(f"/proc/{process}/environ").read_bytes()
                assert not [fd for fd in Path(f"/proc/{process}/fd").iterdir() if fd.resolve() == place / "secret"]
    finally:
        zygote.close()
        os.close(kept)


def test_the_owner_cannot_be_signalled(child: SandboxChild) -> None:
    assert child.call(payload("signal_process"), pid=os.getpid()) == "EPERM"


def test_a_waiting_datagram_socket_hears_nothing(child: SandboxChild, place: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(place / "listener"))
        listener.setblocking(False)
        assert child.call(payload("send_datagram"), path=str(place / "listener")) == "EPERM"
        with pytest.raises(BlockingIOError):
            listener.recv(1)


@pytest.mark.parametrize("function", ["os:getcwd", "subprocess:run", "pipelines:x", "pipeline.errors:_rebuild"])
def test_only_public_functions_of_our_modules_are_called(child: SandboxChild, function: str) -> None:
    with pytest.raises(ChildFailed, match=r"outside|no public function"):
        child.call(function)


# Bombs


def test_a_fork_bomb_makes_no_process(child: SandboxChild) -> None:
    assert child.call(payload("fork_forever")) == "EPERM"


def test_threads_are_bounded(child: SandboxChild) -> None:
    assert 4 < child.call(payload("start_threads"), count=10_000) < 10_000


def test_a_memory_bomb_is_the_models_fault(child: SandboxChild) -> None:
    assert_rejected(child, "memory_limit", "eat_memory")
    assert child.call(payload("echo"), value=1) == 1


@pytest.mark.parametrize("shared", [False, True])
def test_mapped_memory_is_bounded_too(child: SandboxChild, shared: bool) -> None:
    assert 0 < child.call(payload("map_memory"), shared=shared) < SMALL.memory


def test_what_pipes_hold_is_bounded_by_open_files(child: SandboxChild) -> None:
    assert child.call(payload("fill_pipes")) <= SMALL.open_files // 2 * 65536


def test_an_uncaught_bad_alloc_is_the_models_fault(child: SandboxChild) -> None:
    assert_rejected(child, "memory_limit", "abort", message="terminate called after throwing 'std::bad_alloc'")


@pytest.mark.parametrize("function", ["spin", "ignore_and_spin"])
def test_processor_time_is_bounded(light: Zygote, place: Path, function: str) -> None:
    with light.open(read=[], scratch=place / "scratch", limits=Limits(cpu=1, wall=20)) as child:
        assert_rejected(child, "time_limit", function)


def test_wall_time_is_bounded_and_the_child_is_dead_then(child: SandboxChild) -> None:
    began = time.monotonic()
    with pytest.raises(Rejected) as caught:
        child.call(payload("sleep"), seconds=60, wall=0.3)
    assert caught.value.code == "time_limit"
    assert time.monotonic() - began < 3
    with pytest.raises(Rejected, match="longer"):
        child.call(payload("echo"), value=1)


def test_a_child_that_stops_itself_ends_with_the_wall_time(child: SandboxChild) -> None:
    with pytest.raises(Rejected) as caught:
        child.call(payload("stop_self"), wall=0.5)
    assert caught.value.code == "time_limit"


def test_endless_output_ends_with_the_wall_time_and_only_its_tail_is_kept(child: SandboxChild) -> None:
    with pytest.raises(Rejected) as caught:
        child.call(payload("say"), text="ab" * 4096, times=1 << 40, wall=0.5)
    assert caught.value.code == "time_limit"
    assert len(child.output) == 64 << 10


def test_output_is_kept_without_control_characters(child: SandboxChild) -> None:
    child.call(payload("say"), text="\x1b[31mred\n")
    assert child.output == " [31mred\n"


def test_a_file_beyond_the_limit_is_the_models_fault(child: SandboxChild, place: Path) -> None:
    assert_rejected(child, "file_limit", "write_big", path=str(place / "scratch" / "big"), size=2 << 20)


# Deaths


def test_a_crash_in_native_code_is_the_models_fault(child: SandboxChild) -> None:
    assert_rejected(child, "crashed", "crash", match="SIGSEGV")


def test_a_stack_that_overflows_in_native_code_is_the_models_fault(child: SandboxChild) -> None:
    assert_rejected(child, "crashed", "recurse_natively", match="SIGSEGV")


def test_an_abort_is_the_models_fault(child: SandboxChild) -> None:
    assert_rejected(child, "crashed", "abort", match="SIGABRT", message="assertion failed")


def test_leaving_without_an_answer_is_the_models_fault(child: SandboxChild) -> None:
    assert_rejected(child, "crashed", "leave", match="status 3", status=3)


@pytest.mark.skipif(not hasattr(os, "uname") or os.uname().machine != "x86_64", reason="x32 exists on x86_64 only")
def test_the_x32_table_kills(child: SandboxChild) -> None:
    assert_rejected(child, "crashed", "wrong_architecture", match="SIGSYS")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the 32-bit gate exists on x86_64 only")
def test_the_32_bit_table_kills(child: SandboxChild) -> None:
    """SIGSEGV where the kernel was built without that gate."""
    assert_rejected(child, "crashed", "old_system_call", match="SIGSYS|SIGSEGV")


def test_a_kill_from_outside_is_not_the_models_fault(child: SandboxChild) -> None:
    threading.Timer(0.2, kill_below, [os.getpid()]).start()
    with pytest.raises(Unavailable) as caught:
        child.call(payload("sleep"), seconds=20)
    assert caught.value.code == "sandbox_killed"


def test_a_child_of_whose_death_the_zygote_does_not_tell_in_time_is_not_the_models_fault(
    child: SandboxChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.sandbox.child._DYING_WITHIN", 0.2)
    monkeypatch.setattr("pipeline.sandbox.child._GONE_WITHIN", 0.5)
    pid = int(Path(f"/proc/self/fdinfo/{child._fate}").read_text().split("Pid:")[1].split()[0])
    zygote = int(Path(f"/proc/{pid}/status").read_text().split("PPid:")[1].split()[0])
    os.kill(zygote, signal.SIGSTOP)  # as on a machine that is out of breath
    try:
        threading.Timer(0.2, os.kill, [pid, signal.SIGKILL]).start()
        with pytest.raises(Unavailable) as caught:
            child.call(payload("sleep"), seconds=20)
    finally:
        os.kill(zygote, signal.SIGCONT)
    assert caught.value.code == "sandbox_killed"


def test_our_bugs_come_back_with_their_traceback(child: SandboxChild) -> None:
    with pytest.raises(ChildFailed, match="KeyError: 'oops'"):
        child.call(payload("fail"), text="oops")
    with pytest.raises(ChildFailed, match="not JSON compliant"):
        child.call(payload("answer_nan"))
    assert child.call(payload("echo"), value={"a": [1, None, "ü"]}) == {"a": [1, None, "ü"]}


def test_a_refusal_comes_back_as_one_bounded_and_printable(child: SandboxChild) -> None:
    with pytest.raises(Rejected) as caught:
        child.call(payload("refuse"), code="bad_opset", message="\x1b" + "x" * 5000)
    assert (caught.value.code, caught.value.message) == ("bad_opset", " " + "x" * 1999)


# Answers


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        '{"value":1,"rejected":{}}',
        '{"rejected":{"code":"Bad Code","message":""}}',
        '{"rejected":{"code":"x","message":"","more":1}}',
        '{"value":NaN}',
        '{"value":"\\ud800"}',
        '{"value":"\\u0000"}',
        '{"value":' + "[" * 70 + "]" * 70 + "}",
        '{"value":' + "[" * 20000 + "]" * 20000 + "}",
        '{"value":' + "9" * 5000 + "}",
        '{"value":1',
    ],
)
def test_a_forged_answer_is_refused_and_ends_the_child(child: SandboxChild, body: str) -> None:
    assert_rejected(child, "answer_invalid", "write_frame", body=body, length=len(body))
    assert_rejected(child, "answer_invalid", "echo", value=1)


def test_an_answer_before_the_answer_is_all_that_is_heard(child: SandboxChild) -> None:
    """A child that lies may as well: no answer of it is trusted, and none is taken for that of another call's."""
    body = '{"value":"forged"}'
    assert child.call(payload("answer_then"), body=body, length=len(body)) == "forged"
    time.sleep(0.2)
    with pytest.raises(Rejected) as caught:
        child.call(payload("echo"), value="next")
    assert caught.value.code == "answer_invalid"


def test_an_answer_of_endless_length_is_refused_unread(child: SandboxChild) -> None:
    assert_rejected(child, "answer_invalid", "write_frame", body="x", length=0xFFFFFFFF)


def test_an_answer_larger_than_allowed_is_refused(child: SandboxChild) -> None:
    assert_rejected(child, "answer_invalid", "echo", value="x" * (1 << 16))


def test_a_child_that_hangs_up_is_killed(child: SandboxChild) -> None:
    began = time.monotonic()
    assert_rejected(child, "crashed", "hang_up", match="hung up")
    assert time.monotonic() - began < 5


def test_deep_but_honest_json_is_read() -> None:
    assert parse(b'{"value":' + b"[" * 60 + b"]" * 60 + b"}")


# What is left in scratch


def test_safe_file_takes_plain_files_only(place: Path) -> None:
    scratch = place / "scratch"
    (scratch / "folder").mkdir()
    (scratch / "folder" / "good").write_bytes(b"1234")
    (scratch / "linked").symlink_to(place / "secret")
    (scratch / "linked folder").symlink_to(place)
    os.link(place / "secret", scratch / "hard")
    os.mkfifo(scratch / "fifo")
    assert safe_file(scratch, "folder/good", 4) == scratch / "folder" / "good"
    for name in ("linked", "linked folder/secret", "hard", "fifo", "folder", "../secret", "/etc/passwd", "", "none"):
        with pytest.raises(Rejected):
            safe_file(scratch, name, 100)
    with pytest.raises(Rejected):
        safe_file(scratch, "folder/good", 3)


def test_a_locked_folder_is_discarded_all_the_same(light: Zygote, place: Path) -> None:
    with light.open(read=[], scratch=place / "scratch", limits=SMALL) as child:
        child.call(payload("lock_folder"), path=str(place / "scratch"))
    discard(place / "scratch")
    assert not (place / "scratch").exists()


def test_nothing_of_a_zygote_stays_behind(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_QUIET", host._QUIET | {"TMPDIR": str(place)})  # where there is nobody else's
    zygote = Zygote(preload=(), prefixes=PREFIXES)
    with zygote.open(read=[], scratch=place / "scratch", limits=SMALL):
        assert len(list(place.glob("slipway-zygote-*"))) == 1
        ours = processes_below(zygote.pid)
    zygote.close()
    assert not list(place.glob("slipway-zygote-*"))
    assert not any(alive(process) for process in ours)


# Reaching files


def test_a_private_model_in_a_private_folder_is_read(light: Zygote, place: Path) -> None:
    if not supported().namespaces:
        pytest.skip("needs a view of the file system")
    private = place / "private"
    (private / "scratch").mkdir(parents=True)
    (private / "model").write_text("mine")
    (private / "model").chmod(0o600)
    private.chmod(0o700)
    with light.open(read=[private / "model"], scratch=private / "scratch", limits=SMALL) as child:
        assert child.call(payload("read_file"), path=str(private / "model")) == "done"
        assert child.call(payload("write_file"), path=str(private / "scratch" / "x")) == "done"
        assert child.call(payload("write_file"), path=str(private / "model")) in {"EACCES", "EROFS"}
    assert (private / "scratch" / "x").read_bytes() == b"x"
    assert private.stat().st_mode & 0o777 == 0o700


def test_a_path_that_is_not_there_is_refused_with_its_name(light: Zygote, place: Path) -> None:
    with pytest.raises(FileNotFoundError if os.geteuid() == 0 else Unavailable, match="nowhere"):
        light.open(read=[place / "nowhere"], scratch=place / "scratch", limits=SMALL).__enter__()


def test_nothing_runs_bare(place: Path) -> None:
    zygote = Zygote(preload=(), prefixes=PREFIXES, without=("landlock", "namespaces"))
    with pytest.raises(Unavailable) as caught, zygote.open(read=[], scratch=place / "scratch"):
        pass
    assert caught.value.code == "sandbox_unavailable"
    assert zygote.pid is None


# Life and death of the zygote


def test_children_are_independent(light: Zygote, place: Path) -> None:
    (place / "other").mkdir()
    with (
        light.open(read=[], scratch=place / "scratch", limits=SMALL) as one,
        light.open(read=[], scratch=place / "other", limits=SMALL) as two,
    ):
        assert [one.call(payload("count"), step=1), two.call(payload("count"), step=10)] == [1, 10]
        assert [one.call(payload("count"), step=1), two.call(payload("count"), step=10)] == [2, 20]
        assert one.call(payload("write_file"), path=str(place / "other" / "x")) in {"EACCES", "ENOENT", "EROFS"}
        assert_rejected(one, "crashed", "crash")
        assert two.call(payload("count"), step=10) == 30


def test_threads_may_share_a_zygote(light: Zygote, place: Path) -> None:
    answers: list[object] = []

    def work(number: int) -> None:
        scratch = place / f"scratch-{number}"
        scratch.mkdir()
        with light.open(read=[], scratch=scratch, limits=SMALL) as child:
            answers.append(child.call(payload("echo"), value=number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, answers)) == [str(number) for number in range(8)]


def test_peak_memory_is_seen_while_the_child_lives_and_afterwards(child: SandboxChild) -> None:
    before = child.peak_memory
    child.call(payload("touch_memory"), size=200 << 20)
    assert child.peak_memory > before + (190 << 20)
    child.close()
    assert child.peak_memory > before + (190 << 20)


def test_a_closed_child_is_gone(light: Zygote, place: Path) -> None:
    with light.open(read=[], scratch=place / "scratch", limits=SMALL) as child:
        assert len(processes_below(os.getpid())) >= 3
        count = len(processes_below(os.getpid()))
    assert len(processes_below(os.getpid())) == count - 1
    with pytest.raises(RuntimeError, match="over"):
        child.call(payload("echo"), value=1)


def test_a_killed_zygote_is_started_again(place: Path) -> None:
    zygote = Zygote(preload=(), prefixes=PREFIXES)
    try:
        with zygote.open(read=[], scratch=place / "scratch", limits=SMALL) as child:
            first = zygote.pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            with pytest.raises(Unavailable):
                child.call(payload("sleep"), seconds=20)
        with zygote.open(read=[], scratch=place / "scratch", limits=SMALL) as child:
            assert child.call(payload("echo"), value=2) == 2
        assert zygote.pid != first
    finally:
        zygote.close()


def test_a_forked_copy_of_the_owner_starts_its_own_zygote(light: Zygote, place: Path) -> None:
    with light.open(read=[], scratch=place / "scratch", limits=SMALL) as child:
        ours = light.pid
        script = os.fork()
        if script == 0:
            status = 1
            try:
                with light.open(read=[], scratch=place / "scratch", limits=SMALL) as own:
                    status = 0 if own.call(payload("echo"), value=3) == 3 and light.pid != ours else 2
            finally:
                os._exit(status)
        assert os.waitpid(script, 0)[1] == 0
        assert child.call(payload("echo"), value=4) == 4
    assert light.pid == ours


def test_a_killed_owner_leaves_no_process(place: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from pipeline.sandbox import Zygote\n"
        f"with Zygote(preload=(), prefixes={PREFIXES!r}).open(read=[], scratch=Path(sys.argv[1])) as child:\n"
        f"    print('up', flush=True); child.call({payload('ignore_and_spin')!r})\n"
    )
    command = [sys.executable, "-c", program, str(place / "scratch")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env={}) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        below = processes_below(owner.pid)
        assert len(below) == 3  # guardian, zygote, child
        owner.kill()
    eventually(lambda: not any(alive(process) for process in below))


# Honest work


def test_the_zygote_has_one_thread_when_it_forks(heavy: Zygote, place: Path) -> None:
    with heavy.open(read=[], scratch=place / "scratch") as child:
        assert heavy.missing == {}
        assert child.call(payload("use_numpy")) == 32.0
        zygote = processes_below(heavy.pid)[0]
        assert len(list(Path(f"/proc/{zygote}/task").iterdir())) == 1


def test_models_are_exported_and_run_inside(heavy: Zygote, place: Path) -> None:
    import torch

    with pytest.warns(DeprecationWarning, match="torch.jit"):
        traced = torch.jit.trace(torch.nn.Linear(4, 2), torch.ones(1, 4))  # type: ignore[no-untyped-call]
    traced.save(place / "model")
    scratch = place / "scratch"
    with heavy.open(read=[place / "model"], scratch=scratch) as child:
        assert len(child.call(payload("run_torchscript"), path=str(place / "model"))) == 2
        assert child.call(payload("export_onnx"), path=str(scratch / "made.onnx")) > 100
    made = safe_file(scratch, "made.onnx", 1 << 20)
    with heavy.open(read=[made], scratch=place / "scratch") as child:
        assert len(child.call(payload("run_onnx"), path=str(made), threads=2)[0]) == 2
        assert child.call(payload("train_forest")) > 0.9


# The filter, without a kernel


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_judges_by_number_and_argument_on_both_machines(machine: str) -> None:
    described = seccomp.MACHINES[machine]
    program = seccomp.program(described, own_pid=77)
    number = described.numbers

    def judge(call: int, *arguments: int) -> int:
        return run_filter(program, described.audit, call, arguments)

    allow, eperm, enosys = 0x7FFF0000, 0x00050001, 0x00050000 | 38
    assert judge(number["openat"]) == allow
    assert judge(number["openat"], 0, 0, 0x200) == eperm  # emptied by a reader
    assert judge(number["openat"], 0, 0, 0x241) == allow
    assert judge(number["openat2"]) == enosys
    assert judge(number["fchmod"]) == 0x00050000
    assert judge(number["clone"], 0x3D0F00) == allow  # what glibc's pthread_create passes
    assert judge(number["clone"], 17) == eperm  # fork
    assert judge(number["clone"], 0x3D0F00 | 0x10000000) == eperm
    assert judge(number["clone3"]) == enosys
    assert judge(number["kill"], 77) == allow
    assert judge(number["kill"], 1) == eperm
    assert judge(number["prctl"], 1) == eperm
    assert judge(number["fcntl"], 0, 8) == eperm
    assert judge(number["fcntl"], 0, 3) == allow
    assert judge({"x86_64": 41, "aarch64": 198}[machine]) == eperm  # socket
    assert judge({"x86_64": 59, "aarch64": 221}[machine]) == eperm  # execve
    assert judge(9999) == enosys
    assert judge(0x40000000) == 0x80000000
    assert run_filter(program, 0xDEAD, number["read"], ()) == 0x80000000
    assert len(program) < 4096


def run_filter(program: list[seccomp.Instruction], audit: int, number: int, arguments: tuple[int, ...]) -> int:
    """A classic BPF machine, as far as the filter uses one."""
    data = {0: number, 4: audit} | {16 + 8 * index: value for index, value in enumerate(arguments)}
    accumulator = at = 0
    tests: dict[int, Callable[[int, int], bool]] = {
        0x15: lambda a, k: a == k,
        0x35: lambda a, k: a >= k,
        0x45: lambda a, k: a & k != 0,
    }
    while True:
        code, true, false, k = program[at]
        at += 1
        if code == 0x06:
            return k
        if code == 0x20:
            accumulator = data.get(k, 0)
        else:
            at += true if tests[code](accumulator, k) else false


def assert_rejected(child: SandboxChild, code: str, function: str, match: str | None = None, **arguments: Any) -> None:
    with pytest.raises(Rejected, match=match) as caught:
        child.call(payload(function), **arguments)
    assert caught.value.code == code


def processes_below(pid: int | None) -> list[int]:
    """Descendants, parents first."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found += [int(child), *processes_below(int(child))]
    return found


def kill_below(pid: int) -> None:
    os.kill(processes_below(pid)[-1], signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
