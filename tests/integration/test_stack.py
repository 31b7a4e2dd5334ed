"""The embedded stack: real services, started from nothing, killed, given, crowded out."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
import redis
from botocore.config import Config
from botocore.exceptions import ClientError

from stack import guardian, procfile
from stack.home import Home, StackError
from stack.launcher import ROOT, Stack

EICAR = bytes.fromhex(
    "58354f2150254041505b345c505a58353428505e2937434329377d2445494341522d"
    "5354414e444152442d414e544956495255532d544553542d46494c452124482b482a"
)


def composes() -> bool:
    docker = shutil.which("docker")
    return (
        docker is not None
        and subprocess.run([docker, "compose", "version"], check=False, capture_output=True).returncode == 0
    )


needs_clamd = pytest.mark.skipif(not Path("/usr/sbin/clamd").exists(), reason="clamd is not installed")


def services(home: Path, **options: Any) -> Stack:
    return Stack(home, services_only=True, quiet=True, **{"given": {"PATH": os.environ["PATH"]}, **options})


def only(home: Path, *names: str) -> Stack:
    """A stack that starts these services and believes that the others are elsewhere."""
    urls = {"redis": "REDIS_URL", "postgres": "DATABASE_URL", "s3": "S3_ENDPOINT_URL", "clamd": "CLAMD_URL"}
    given = {url: "given" for name, url in urls.items() if name not in names}
    return services(home, given={"PATH": os.environ["PATH"], **given})


def s3(environment: dict[str, str], *, secret: str | None = None) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=environment["S3_ENDPOINT_URL"],
        aws_access_key_id=environment["S3_ACCESS_KEY"],
        aws_secret_access_key=secret or environment["S3_SECRET_KEY"],
        region_name=environment["S3_REGION"],
        config=Config(
            signature_version="s3v4",
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"},
            retries={"max_attempts": 0},
        ),
    )


def scan(url: str, content: bytes) -> str:
    host, port = url.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"zINSTREAM\0" + struct.pack(">I", len(content)) + content + struct.pack(">I", 0))
        return connection.recv(4096).decode()


def eventually(condition: Callable[[], bool], *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return met


def alive(pids: set[int]) -> set[int]:
    """Those that still run; a zombie nobody has reaped yet does not."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path("/proc", str(pid), "stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z":
                found.add(pid)
    return found


def command_lines(pid: int) -> set[str]:
    """The command lines of everything below one process."""
    found = set()
    for below in guardian.descendants(pid):
        with contextlib.suppress(OSError):
            found.add(Path("/proc", str(below), "cmdline").read_text(errors="replace"))
    return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for the tests that only look."""
    with services(tmp_path_factory.mktemp("stack") / "home") as stack:
        yield stack


# -- what is there when it has started -----------------------------------------------------------------------------------


def test_it_starts_from_nothing_in_less_than_twenty_seconds(tmp_path: Path) -> None:
    began = time.monotonic()
    with services(tmp_path / "home"):
        assert time.monotonic() - began < 20


def test_the_database_is_postgresql_18_and_the_role_is_no_superuser(running: Stack) -> None:
    with psycopg.connect(running.environment["DATABASE_URL"]) as connection:
        assert connection.info.server_version // 10000 == 18
        assert connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (False,)


def test_no_service_lets_anybody_in_without_its_secret(running: Stack) -> None:
    url = running.environment["DATABASE_URL"]
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(re.sub(r":[^:@]*@", ":guess@", url))
    port = int(running.environment["REDIS_URL"].rpartition(":")[2].split("/")[0])
    with redis.Redis(port=port) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    with contextlib.closing(s3(running.environment, secret="guess")) as client, pytest.raises(ClientError) as refused:
        client.list_buckets()
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_no_secret_can_be_read_by_others_or_seen_in_a_command_line(running: Stack) -> None:
    secrets = list((running.home.path / "secrets").iterdir())
    assert secrets
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    assert stat.S_IMODE((running.home.path / "running.json").stat().st_mode) == 0o600
    lines = [Path("/proc", str(running.pid(name)), "cmdline").read_bytes() for name in running.names()]
    assert not [path.name for path in secrets for line in lines if path.read_bytes().strip() in line]


def test_every_service_listens_on_loopback_only(running: Stack) -> None:
    ours = {str(port) for port in running.home.read("ports.json").values()}
    listening = [
        line.split() for table in ("tcp", "tcp6") for line in Path("/proc/net", table).read_text().splitlines()[1:]
    ]
    hosts = {
        fields[1].split(":")[0]
        for fields in listening
        if fields[3] == "0A" and str(int(fields[1].split(":")[1], 16)) in ours
    }
    assert hosts == {"0100007F"}


def test_a_service_sees_no_secret_of_another(running: Stack) -> None:
    environment = Path("/proc", str(running.pid("s3")), "environ").read_bytes()
    assert running.environment["JWT_SECRET"].encode() not in environment
    assert running.environment["DATABASE_URL"].encode() not in environment


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has somebody else run a service")
def test_root_does_not_run_the_database(running: Stack) -> None:
    assert Path("/proc", str(running.pid("postgres"))).stat().st_uid != 0


def test_objects_come_back_through_presigned_addresses_only_while_they_are_signed(running: Stack) -> None:
    import http.client
    from urllib.parse import urlsplit

    with contextlib.closing(s3(running.environment)) as client:
        client.create_bucket(Bucket="presigned")
        client.put_object(Bucket="presigned", Key="a/b", Body=b"bytes")
        address = urlsplit(client.generate_presigned_url("get_object", Params={"Bucket": "presigned", "Key": "a/b"}))
    for query, expected in ((address.query, (200, b"bytes")), (address.query[:-1] + "x", (403, None))):
        connection = http.client.HTTPConnection(address.netloc, timeout=10)
        connection.request("GET", f"{address.path}?{query}")
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        assert (answer.status, content if answer.status == 200 else None) == expected


def test_what_the_s3_server_writes_to_disk_cannot_be_read_there(running: Stack) -> None:
    """Small objects and parts of large ones. Names of keys are in the clear: they are ids and digests."""
    marker = b"this is what a stolen disk must not say "
    with contextlib.closing(s3(running.environment)) as client:
        client.create_bucket(Bucket="secret")
        client.put_object(Bucket="secret", Key="small", Body=marker)
        upload = client.create_multipart_upload(Bucket="secret", Key="large")["UploadId"]
        where = {"Bucket": "secret", "Key": "large", "UploadId": upload}
        bodies = [marker * (6 << 20 >> 5), marker]
        tags = [
            client.upload_part(**where, PartNumber=number, Body=body)["ETag"] for number, body in enumerate(bodies, 1)
        ]
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
        client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
        for key, content in (("small", marker), ("large", b"".join(bodies))):
            assert client.get_object(Bucket="secret", Key=key)["Body"].read() == content
    objects = [path for path in (running.home.path / "s3" / "dev").rglob("*.data") if path.is_file()]
    assert sum(path.stat().st_size for path in objects) > 6 << 20
    assert not [path for path in objects if marker in path.read_bytes()]


@needs_clamd
@pytest.mark.parametrize("content", [EICAR, b"before " + EICAR + b" after"], ids=["alone", "inside"])
def test_the_scanner_knows_the_test_virus(running: Stack, content: bytes) -> None:
    assert "FOUND" in scan(running.environment["CLAMD_URL"], content)
    assert scan(running.environment["CLAMD_URL"], b"harmless").startswith("stream: OK")


# -- data ----------------------------------------------------------------------------------------------------------------


def store(environment: dict[str, str], value: str) -> None:
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
        connection.execute("INSERT INTO kept VALUES (%s)", [value])
    with redis.Redis.from_url(environment["REDIS_URL"]) as client:
        client.rpush("kept", value)
        client.waitaof(1, 0, 3000)
    with contextlib.closing(s3(environment)) as client:
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket="kept")
        client.put_object(Bucket="kept", Key=value, Body=value.encode())


def stored(environment: dict[str, str]) -> tuple[list[str], list[str], list[str]]:
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        rows = [row[0] for row in connection.execute("SELECT value FROM kept ORDER BY value").fetchall()]
    with redis.Redis.from_url(environment["REDIS_URL"], decode_responses=True) as client:
        entries = list(client.lrange("kept", 0, -1))
    with contextlib.closing(s3(environment)) as client:
        keys = [entry["Key"] for entry in client.list_objects_v2(Bucket="kept")["Contents"]]
    return rows, entries, keys


def test_data_and_addresses_survive_a_restart_and_the_killing_of_each_service(tmp_path: Path) -> None:
    with services(tmp_path / "home") as stack:
        store(stack.environment, "1")
        before = dict(stack.environment)
    began = time.monotonic()
    with services(tmp_path / "home") as stack:
        assert time.monotonic() - began < 7
        assert stack.environment == before
        store(stack.environment, "2")
        for name in ("postgres", "redis", "s3"):
            stack.kill(name)
            stack.start(name)
        store(stack.environment, "3")
        assert stored(stack.environment) == (["1", "2", "3"],) * 3


def test_redis_can_lose_everything_and_come_back_under_the_same_address(tmp_path: Path) -> None:
    with only(tmp_path / "home", "redis") as stack:
        address = stack.environment["REDIS_URL"]
        with redis.Redis.from_url(address) as client:
            client.set("kept", "1")
        stack.stop("redis", wipe=True)
        stack.start("redis")
        with redis.Redis.from_url(stack.environment["REDIS_URL"]) as client:
            assert client.dbsize() == 0
        assert stack.environment["REDIS_URL"] == address


def test_a_pid_file_that_names_a_stranger_is_not_believed(tmp_path: Path) -> None:
    with only(tmp_path / "home", "postgres") as stack:
        stack.kill("postgres")  # leaves its pid file behind
    file = tmp_path / "home" / "postgres" / "data" / "postmaster.pid"
    # PostgreSQL itself would believe a living process of its own user.
    stranger = subprocess.Popen(["sleep", "60"], user=file.stat().st_uid if os.geteuid() == 0 else None)
    try:
        file.write_text("\n".join([str(stranger.pid), *file.read_text().splitlines()[1:], ""]))
        with only(tmp_path / "home", "postgres") as stack:
            assert "postgres" in stack.names()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


# -- what is given, what is taken ----------------------------------------------------------------------------------------


def test_a_service_whose_address_is_given_is_used_and_not_started(tmp_path: Path, running: Stack) -> None:
    given = {
        name: running.environment[name] for name in ("DATABASE_URL", "REDIS_URL", "S3_ENDPOINT_URL", "S3_SECRET_KEY")
    }
    with services(tmp_path / "home", given={**given, "CLAMD_URL": "tcp://scanner.example:3310"}) as stack:
        assert stack.names() == []
        assert {name: stack.environment[name] for name in given} == given
        assert stack.environment["CLAMD_URL"] == "tcp://scanner.example:3310"
    with services(tmp_path / "home", given={"REDIS_URL": given["REDIS_URL"]}) as stack:
        assert "redis" not in stack.names()
        assert {"postgres", "s3"} <= set(stack.names())


def test_taken_ports_are_stepped_over(tmp_path: Path) -> None:
    def port(stack: Stack) -> int:
        return int(stack.environment["DATABASE_URL"].rpartition(":")[2].split("/")[0])

    with only(tmp_path / "home", "postgres") as stack:
        first = port(stack)
    with socket.create_server(("127.0.0.1", first)), only(tmp_path / "home", "postgres") as stack:
        second = port(stack)
        assert second != first
        assert psycopg.connect(stack.environment["DATABASE_URL"]).close() is None
    with only(tmp_path / "home", "postgres") as stack:
        assert port(stack) == second


def test_a_port_that_was_asked_for_is_not_silently_changed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(StackError, match=port), services(tmp_path / "home", given={"SLIPWAY_PORT": port}):
            pass


def test_two_stacks_run_side_by_side(tmp_path: Path, running: Stack) -> None:
    with services(tmp_path / "home") as other:
        for name in ("DATABASE_URL", "REDIS_URL", "S3_ENDPOINT_URL", "SLIPWAY_URL", "JWT_SECRET"):
            assert other.environment[name] != running.environment[name]


def test_a_second_stack_on_the_same_folder_is_told_who_runs_there(running: Stack) -> None:
    with pytest.raises(StackError, match=f"already running .*process {os.getpid()}"), services(running.home.path):
        pass
    assert running.ended() == {}


def test_two_claims_of_one_port_never_succeed(tmp_path: Path) -> None:
    one, other = Home.at(tmp_path / "one"), Home.at(tmp_path / "other")
    with socket.create_server(("127.0.0.1", 0)) as server:
        usual = server.getsockname()[1]
    assert one.port("api", usual) == usual
    assert other.port("api", usual) != usual
    one.release()
    other.release()


# -- the end of it -------------------------------------------------------------------------------------------------------


COMMAND = "(setsid sleep 601 >/dev/null 2>&1 &); sleep 602 & echo up; exec sleep 603"
"""A command with a child in a session of its own, an ordinary one, and one it waits for."""


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A launcher in a process of its own, with all services and a command that leaves orphans."""
    environment = {"PATH": os.environ["PATH"], "SLIPWAY_HOME": str(tmp_path / "home")}
    process = subprocess.Popen(
        [sys.executable, "-m", "stack", "run", "--services-only", "--", "sh", "-c", COMMAND],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    assert eventually(lambda: "sleep\x00601\x00" in command_lines(process.pid), seconds=10)
    started = guardian.descendants(process.pid)
    yield process
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    for pid in alive(started | {process.pid}):  # a failed test leaves nothing either
        os.kill(pid, signal.SIGKILL)
    process.communicate()


def test_killing_the_launcher_leaves_no_process(launcher: subprocess.Popen[str], tmp_path: Path) -> None:
    everything = guardian.descendants(launcher.pid)
    commands = command_lines(launcher.pid)
    assert {"sleep\x00601\x00", "sleep\x00602\x00", "sleep\x00603\x00"} <= commands
    assert any("checkpointer" in command for command in commands)
    launcher.kill()
    assert eventually(lambda: not alive(everything), seconds=5), alive(everything)
    with services(tmp_path / "home") as stack:  # and the next one starts at once, on the same data
        assert psycopg.connect(stack.environment["DATABASE_URL"]).close() is None


def test_killing_the_guardian_leaves_no_process(launcher: subprocess.Popen[str]) -> None:
    everything = guardian.descendants(launcher.pid)
    (warden,) = [pid for pid in everything if "guardian.py" in Path("/proc", str(pid), "cmdline").read_text()]
    os.kill(warden, signal.SIGKILL)
    assert launcher.wait(10) == 1
    assert eventually(lambda: not alive(everything), seconds=5), alive(everything)


def test_killing_launcher_and_guardian_at_once_leaves_no_service(
    launcher: subprocess.Popen[str], tmp_path: Path
) -> None:
    pids = set(Home(path=tmp_path / "home").read("running.json")["processes"].values())
    served = pids.union(*(guardian.descendants(pid) for pid in pids))
    everything = guardian.descendants(launcher.pid)
    (warden,) = [pid for pid in everything if "guardian.py" in Path("/proc", str(pid), "cmdline").read_text()]
    os.kill(launcher.pid, signal.SIGSTOP)
    os.kill(warden, signal.SIGKILL)
    launcher.kill()
    assert eventually(lambda: not alive(served), seconds=5), alive(served)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_in_order(launcher: subprocess.Popen[str], number: int, tmp_path: Path) -> None:
    everything = guardian.descendants(launcher.pid)
    launcher.send_signal(number)
    assert launcher.wait(20) == 128 + number
    assert not alive(everything)
    assert "database system is shut down" in (tmp_path / "home" / "log" / "postgres.log").read_text()
    assert not (tmp_path / "home" / "running.json").exists()


def test_a_command_decides_the_exit_code_and_takes_its_orphans_along(tmp_path: Path) -> None:
    given = dict.fromkeys(("DATABASE_URL", "REDIS_URL", "S3_ENDPOINT_URL", "CLAMD_URL"), "given")
    environment = {"PATH": os.environ["PATH"], "SLIPWAY_HOME": str(tmp_path / "home"), **given}
    script = "setsid sleep 604 >/dev/null 2>&1 & echo $!; exit 7"
    command = [sys.executable, "-m", "stack", "run", "--services-only", "--", "sh", "-c", script]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 7, result.stderr
    assert not alive({int(result.stdout)})


def test_killing_one_process_takes_everything_below_it_but_nothing_else(tmp_path: Path) -> None:
    with only(tmp_path / "home", "redis", "s3") as stack:
        family = guardian.descendants(stack.pid("s3")) | {stack.pid("s3")}
        assert len(family) == 5
        stack.kill("s3")
        assert eventually(lambda: not alive(family), seconds=2)
        assert stack.ended() == {}
        assert stack.names() == ["redis"]


def test_a_service_that_cannot_start_says_why_and_the_others_are_stopped(tmp_path: Path) -> None:
    with only(tmp_path / "home", "redis", "postgres"):
        pass
    (tmp_path / "home" / "postgres" / "data" / "PG_VERSION").write_text("9\n")
    stack = only(tmp_path / "home", "redis", "postgres")
    with pytest.raises(StackError, match=r"(?s)postgres ended with .*version"), stack:
        pass
    assert stack.names() == []
    assert not Home(path=tmp_path / "home").in_use()


def test_lost_secrets_beside_kept_data_are_explained(tmp_path: Path) -> None:
    with only(tmp_path / "home", "postgres"):
        pass
    shutil.rmtree(tmp_path / "home" / "secrets")
    with pytest.raises(StackError, match="older than the folder"), only(tmp_path / "home", "postgres"):
        pass


# -- files beside it -----------------------------------------------------------------------------------------------------


def test_the_procfile_names_every_process_of_the_application() -> None:
    assert list(procfile.read(ROOT / "Procfile")) == ["api", "serving", "relay", "worker", "bench", "flower"]


@pytest.mark.parametrize("text", ["no command", "a: x\na: y", "a b: x", "a:"])
def test_a_broken_procfile_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "Procfile").write_text(text)
    with pytest.raises(StackError, match="line "):
        procfile.read(tmp_path / "Procfile")


def test_the_compose_file_is_valid() -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        "docker-compose.yml",
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.skipif(not composes(), reason="no docker client with compose is here")
def test_a_docker_client_understands_the_compose_file() -> None:
    secrets = re.findall(r"^([A-Z0-9_]+)=$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    result = subprocess.run(
        ["docker", "compose", "--profile", "gpu", "config", "--quiet"],
        cwd=ROOT,
        env=os.environ | dict.fromkeys(secrets, "x" * 32),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_secret_of_the_compose_file_must_be_set_and_is_named_in_the_example() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    secret = r"[A-Z0-9_]*(?:PASSWORD|SECRET|KEY)[A-Z0-9_]*"
    used = set(re.findall(rf"(?<!\$)\$\{{({secret})", text))
    required = set(re.findall(rf"\$\{{({secret}):\?", text))
    example = set(re.findall(r"^([A-Z0-9_]+)=$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert used == required == example
    assert not re.findall(rf"^\s+{secret}: (?!\$\{{).*$", text, re.MULTILINE)


def test_what_the_images_copy_is_not_ignored_and_nothing_else_is_sent() -> None:
    copied = set(re.findall(r"^COPY (?!--from)(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    allowed |= {f"requirements/{path.name}" for path in (ROOT / "requirements").glob("*.txt")}
    assert copied <= allowed
    assert "*" in ignored
    for path in copied:
        assert (ROOT / path).exists(), path
