"""The S3 server for the stack: OpenStack Swift with its s3api, from a virtual environment of its own.

Knows Swift's configuration and that it runs as four servers on four ports; `swift_server.py` runs them. The proxy
encrypts bodies (AES-256) before they reach a disk, with keys made of a secret of the state folder.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import hmac
import http.client
import os
import pwd
import socket
from datetime import UTC, datetime
from pathlib import Path

from stack.home import Home, StackError, write_private
from stack.processes import Service

USUAL_PORTS = {"s3": 9000, "s3-account": 9001, "s3-container": 9002, "s3-object": 9003}
REGION = "us-east-1"
_BACKENDS = ("account", "container", "object")
_ACCOUNT = "slipway"
_LARGEST_OBJECT = 50 << 30

_SWIFT = f"""\
[swift-hash]
swift_hash_path_suffix = slipway
[storage-policy:0]
name = one
default = yes
[swift-constraints]
max_file_size = {_LARGEST_OBJECT}
"""
_COMMON = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {folder}/etc
devices = {folder}/dev
mount_check = false
fallocate_reserve = 0
workers = 0
log_level = WARNING
log_address = {folder}/no-syslog
user = {user}
"""
_BACKEND = """\
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
recon_cache_path = {folder}/run
"""
_OBJECT = """\
disk_chunk_size = 1048576
network_chunk_size = 1048576
mb_per_sync = 512
"""
_PROXY = """\
client_timeout = 60
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck listing_formats bulk s3api tempauth copy slo dlo versioned_writes symlink keymaster encryption proxy-server
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
object_chunk_size = 1048576
client_chunk_size = 1048576
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
location = {region}
min_segment_size = 5242880
max_upload_part_num = 10000
[filter:tempauth]
use = egg:swift#tempauth
user_{account}_{key} = {secret} .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
concurrency = 4
max_manifest_segments = 10000
max_manifest_size = 33554432
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
allow_versioned_writes = true
[filter:symlink]
use = egg:swift#symlink
[filter:keymaster]
use = egg:swift#keymaster
encryption_root_secret = {root}
[filter:encryption]
use = egg:swift#encryption
"""


def service(home: Home, ports: dict[str, int], *, python: Path) -> Service:
    """A server on `ports["s3"]` that checks signatures and keeps its objects below the state folder.

    `python` is the interpreter of the environment Swift is installed in; `ports` has the names of USUAL_PORTS.
    """
    if not python.exists():
        raise StackError(
            f"The S3 server is not installed ({python} is missing): run `make setup`, or give S3_ENDPOINT_URL."
        )
    folder = home.folder("s3")
    for name in ("etc", "dev/d1", "run"):
        home.folder(f"s3/{name}")
    _require_attributes(folder)
    key, secret = home.secret("s3-key"), home.secret("s3-secret")
    root = base64.b64encode(home.secret("s3-encryption").encode()).decode()
    values = {"folder": folder, "user": pwd.getpwuid(os.geteuid()).pw_name}
    etc = folder / "etc"
    write_private(etc / "swift.conf", _SWIFT)
    for kind in _BACKENDS:
        text = (_COMMON + _BACKEND).format(port=ports[f"s3-{kind}"], kind=kind, **values)
        write_private(etc / f"{kind}.conf", text + (_OBJECT if kind == "object" else ""))
    proxy = (_COMMON + _PROXY).format(
        port=ports["s3"], region=REGION, account=_ACCOUNT, key=key, secret=secret, root=root, **values
    )
    write_private(etc / "proxy.conf", proxy)
    servers = [f"{kind}={ports[f's3-{kind}']}" for kind in _BACKENDS]
    access = f"{_ACCOUNT}:{key}"
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    return Service(
        name="s3",
        command=(str(python), str(Path(__file__).with_name("swift_server.py")), str(etc), *servers),
        folder=folder,
        ready=lambda: _lists(ports, access=access, secret=secret),
        gives={
            "S3_ENDPOINT_URL": endpoint,
            "S3_PUBLIC_ENDPOINT_URL": endpoint,
            "S3_ACCESS_KEY": access,
            "S3_SECRET_KEY": secret,
            "S3_REGION": REGION,
            "S3_ENCRYPTION": "AES256",
        },
    )


def _require_attributes(folder: Path) -> None:
    """Swift keeps its metadata in extended attributes; older kernels have none on tmpfs."""
    try:
        os.setxattr(folder, "user.slipway", b"1")
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EOPNOTSUPP):
            raise
        message = f"The file system of {folder} has no extended attributes, which the S3 server needs: choose another SLIPWAY_HOME."
        raise StackError(message) from error


def _lists(ports: dict[str, int], *, access: str, secret: str) -> bool:
    """Whether all four servers listen and a signed request to list the buckets is answered."""
    for port in ports.values():
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    connection = http.client.HTTPConnection("127.0.0.1", ports["s3"], timeout=5)
    try:
        headers = _signed(f"127.0.0.1:{ports['s3']}", access=access, secret=secret)
        connection.request("GET", "/", headers=headers)
        return connection.getresponse().status == http.client.OK
    except http.client.HTTPException:
        return False
    finally:
        connection.close()


def _signed(host: str, *, access: str, secret: str) -> dict[str, str]:
    """The headers of `GET /` under AWS Signature Version 4."""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{moment[:8]}/{REGION}/s3/aws4_request"
    empty = hashlib.sha256(b"").hexdigest()
    names = "host;x-amz-content-sha256;x-amz-date"
    request = f"GET\n/\n\nhost:{host}\nx-amz-content-sha256:{empty}\nx-amz-date:{moment}\n\n{names}\n{empty}"
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    return {
        "Host": host,
        "x-amz-content-sha256": empty,
        "x-amz-date": moment,
        "Authorization": f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, Signature={key.hex()}",
    }
