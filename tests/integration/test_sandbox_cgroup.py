"""Cgroups around the sandbox's children: on the real thing where this process may make some, and on v2's tree without.

What needs v2 and its memory controller runs where the tests have a delegated group: `systemd-run --pipe -p Delegate=yes`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import Rejected, Unavailable
from pipeline.sandbox import Zygote, cgroup, discard, supported
from pipeline.stage import Limits
from tests.integration.test_sandbox import PREFIXES, ROOT, eventually, kill_below, payload

MEMORY = 256 << 20
LIMITS = Limits(wall=60, cpu=60, memory=1 << 30, file_size=64 << 20, open_files=64)
UNIFIED = Path("/sys/fs/cgroup/unified") if Path("/sys/fs/cgroup/unified").exists() else Path("/sys/fs/cgroup")

why_not = supported().cgroup_missing
real = pytest.mark.skipif(why_not is not None, reason=f"no cgroup can be made here: {why_not}")
in_memory = pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a file system in memory")


@pytest.fixture
def scratch() -> Iterator[Path]:
    """On a file system in memory, where what is written is memory that no rlimit counts."""
    folder = Path(tempfile.mkdtemp(prefix="slipway-test-", dir="/dev/shm"))
    folder.chmod(0o711)
    (folder / "scratch").mkdir()
    yield folder / "scratch"
    discard(folder)


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    zygote = Zygote(preload=(), prefixes=PREFIXES)
    yield zygote
    zygote.close()


def groups() -> set[Path]:
    """The sessions' groups that exist now."""
    return {path for folder in set(cgroup.find().folders.values()) for path in folder.glob(f"{cgroup.SESSION}*")}


def of(worker: int) -> set[Path]:
    """The groups with children of this process; other tests may run beside us."""

    def below(pid: int) -> bool:
        while pid > 1 and pid != worker:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return pid == worker

    return {path for path in groups() if any(below(int(pid)) for pid in _members(path))}


def _members(group: Path) -> list[str]:
    try:
        return (group / "cgroup.procs").read_text().split()
    except OSError:  # somebody else's, gone meanwhile
        return []


@real
@in_memory
def test_a_bomb_of_small_files_in_memory_is_the_models_fault(zygote: Zygote, scratch: Path) -> None:
    """Each file and the address space stay within the rlimits."""
    limits = Limits(wall=60, cpu=60, memory=MEMORY, file_size=16 << 20, open_files=64)
    with zygote.open(read=[], scratch=scratch, limits=limits) as child:
        with pytest.raises(Rejected) as caught:
            child.call(payload("fill_folder"), path=str(scratch), files=64, size=16 << 20)
        assert caught.value.code == "memory_limit"
    written = sum(path.stat().st_size for path in scratch.iterdir())
    assert MEMORY // 2 < written <= MEMORY


@in_memory
def test_rlimits_alone_let_that_bomb_through(scratch: Path) -> None:
    alone = Zygote(preload=(), prefixes=PREFIXES, without=("cgroup",))
    limits = Limits(wall=60, cpu=60, memory=MEMORY, file_size=16 << 20, open_files=64)
    try:
        with alone.open(read=[], scratch=scratch, limits=limits) as child:
            assert "cgroup" not in child.layers
            assert child.call(payload("fill_folder"), path=str(scratch), files=20, size=16 << 20) == 20
    finally:
        alone.close()


@real
def test_threads_are_bounded_for_each_child(zygote: Zygote, scratch: Path) -> None:
    with zygote.open(read=[], scratch=scratch, limits=Limits(memory=64 << 30)) as child:
        assert "cgroup" in child.layers
        assert 4 < child.call(payload("start_threads"), count=10_000) < cgroup.TASKS


@real
def test_a_group_lasts_as_long_as_its_session(zygote: Zygote, scratch: Path) -> None:
    with zygote.open(read=[], scratch=scratch, limits=LIMITS):
        ours = of(os.getpid())
        assert len(ours) == len(set(cgroup.find().folders.values()))
    assert groups() & ours == set()


@real
def test_a_kill_from_outside_is_still_not_the_models_fault(zygote: Zygote, scratch: Path) -> None:
    with zygote.open(read=[], scratch=scratch, limits=LIMITS) as child:
        threading.Timer(0.2, kill_below, [os.getpid()]).start()
        with pytest.raises(Unavailable) as caught:
            child.call(payload("sleep"), seconds=20)
    assert caught.value.code == "sandbox_killed"


@real
def test_no_process_is_made_beyond_the_limit() -> None:
    """Without seccomp, which lets no child get this far."""
    group = cgroup.Group(cgroup.prepare(), memory=1 << 30)
    bomb = (
        "import os\ninput()\nmade = 0\ntry:\n  while made < 2000 and os.fork(): made += 1\n"
        "except OSError: print(made, flush=True)\nos.read(0, 1)\nos._exit(0)"
    )
    with subprocess.Popen([sys.executable, "-c", bomb], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        group.take(process.pid)
        process.stdin.write(b"\n")
        process.stdin.flush()
        made = int(process.stdout.readline())
        process.stdin.close()
    assert made < cgroup.TASKS
    group.remove()


@real
def test_what_a_killed_worker_left_goes_at_the_next_start_and_nobody_elses(zygote: Zygote, scratch: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from pipeline.sandbox import Zygote; from pipeline.stage import Limits\n"
        f"zygote = Zygote(preload=(), prefixes={PREFIXES!r})\n"
        "with zygote.open(read=[], scratch=Path(sys.argv[1]), limits=Limits()):\n    print('open', flush=True); input()"
    )
    (scratch / "theirs").mkdir()
    with zygote.open(read=[], scratch=scratch, limits=LIMITS):
        ours = of(os.getpid())
        with subprocess.Popen(
            [sys.executable, "-c", program, str(scratch / "theirs")],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"open\n"
            theirs = of(worker.pid)
            cgroup.prepare()
            assert theirs <= groups(), "a living worker's"
            worker.send_signal(signal.SIGKILL)
        assert theirs
        assert theirs <= groups(), "nobody was left to remove them"
        eventually(lambda: not any((path / "cgroup.procs").read_text() for path in theirs))
        cgroup.prepare()
        assert theirs & groups() == set()
        assert ours <= groups()


# v2


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A group at the top of the real v2 hierarchy that may share out one controller, whichever there is."""
    if os.geteuid() != 0 or not (UNIFIED / "cgroup.controllers").exists() or not os.access(UNIFIED, os.W_OK):
        pytest.skip("only root may make a group at the top of cgroup v2, where that is mounted")
    names = (UNIFIED / "cgroup.controllers").read_text().split()
    if not names:
        pytest.skip("cgroup v2 has no controller here, so nothing that could be shared out")
    control = UNIFIED / "cgroup.subtree_control"
    added = names[0] not in control.read_text().split()
    if added:
        control.write_text(f"+{names[0]}")
    folder = Path(tempfile.mkdtemp(prefix="slipway-test-", dir=UNIFIED))
    yield folder
    for made in (*folder.iterdir(), folder):
        if made.is_dir():
            made.rmdir()
    if added:
        control.write_text(f"-{names[0]}")


WORKER = """
import os, subprocess, sys
from pathlib import Path
from pipeline.sandbox import cgroup
folder, controller = Path(sys.argv[1]), sys.argv[2]
(folder / "cgroup.procs").write_text(str(os.getpid()))
stranger = subprocess.Popen(["sleep", "60"])
for _ in range(2):
    try:
        home = cgroup.prepare((controller,))
        print(home.version, home.folders[controller] == folder, (folder / "cgroup.procs").read_text().split())
    except cgroup.Unusable as why:
        print("refused" if f"{stranger.pid}" in str(why) else why, flush=True)
        stranger.kill(); stranger.wait()
group = cgroup.Group(cgroup.prepare((controller,)), memory=1 << 30)
child = subprocess.Popen(["sleep", "60"])
group.take(child.pid)
print(Path(f"/proc/{child.pid}/cgroup").read_text().rsplit("/", 1)[1][:16])
print(Path("/proc/self/cgroup").read_text().strip().rsplit("/", 1)[1])
group.remove()
print(child.wait(), [path.name for path in folder.iterdir() if path.is_dir()])
"""


def test_a_worker_in_a_delegated_v2_group_moves_out_of_the_way_unless_strangers_are_in_it(delegated: Path) -> None:
    controller = (UNIFIED / "cgroup.controllers").read_text().split()[0]
    command = [sys.executable, "-c", WORKER, str(delegated), controller]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "refused",
        "2 True []",
        cgroup.SESSION,
        cgroup.WORKER,
        "-9 ['slipway-worker']",
    ]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A process in a container of its own cgroup namespace, as its /proc and its v2 mount look."""
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "mountinfo").write_text(f"30 20 0:26 / {tmp_path}/fs rw,nosuid - cgroup2 cgroup rw,nsdelegate\n")
    (tmp_path / "fs").mkdir()
    (tmp_path / "fs" / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    for name in ("cgroup.procs", "cgroup.subtree_control"):
        (tmp_path / "fs" / name).touch()
    return tmp_path


def test_a_container_with_a_writable_v2_mount_gets_groups(tree: Path) -> None:
    home = cgroup.find(tree)
    assert home == cgroup.Home(version=2, folders={"memory": tree / "fs", "pids": tree / "fs"})
    assert cgroup.settings(home, 1000) == {
        "memory.max": "1000",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": str(cgroup.TASKS),
    }


def test_a_worker_that_has_moved_finds_the_group_above(tree: Path) -> None:
    (tree / "cgroup").write_text(f"0::/{cgroup.WORKER}\n")
    assert cgroup.find(tree).folders["memory"] == tree / "fs"


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("cgroup", "0::/../elsewhere\n", "in no cgroup"),
        ("mountinfo", "30 20 0:26 / / rw - ext4 /dev/vda rw\n", "in no cgroup"),
        ("fs/cgroup.controllers", "cpuset cpu\n", "in no cgroup"),
        ("cgroup", "0::/x.service\n", "Delegate=yes"),
    ],
)
def test_where_no_group_can_be_made_the_reason_is_given(tree: Path, file: str, text: str, why: str) -> None:
    (tree / "fs" / "x.service").mkdir()
    (tree / "fs" / "x.service" / "cgroup.controllers").write_text("memory pids\n")
    (tree / file).write_text(text)
    with pytest.raises(cgroup.Unusable, match=why):
        cgroup.find(tree)
