"""The parent's side of one session: sends calls, enforces wall time, sees the child die. Trusts nothing it reads."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import threading
import time
from pathlib import Path

from pipeline.errors import Rejected, Unavailable
from pipeline.sandbox import answer
from pipeline.sandbox.cgroup import Group, Home
from pipeline.sandbox.death import Death, judge
from pipeline.sandbox.session import LENGTH
from pipeline.stage import Json, Limits

_OUTPUT_KEPT = 64 << 10
_CHUNK = 256 << 10
_READY_WITHIN = 30.0
_GONE_WITHIN = 10.0
_DYING_WITHIN = 2.0


class SandboxChild:
    """A locked-down process; see `pipeline.stage.Child`. One call at a time: calls of other threads wait."""

    def __init__(self, *, channel: socket.socket, output: int, status: socket.socket, limits: Limits) -> None:
        self.layers: tuple[str, ...] = ()
        self._group: Group | None = None
        self._channel, self._output, self._status, self._limits = channel, output, status, limits
        self._lock = threading.Lock()
        self._tail = bytearray()
        self._peak = 0
        self._fate = -1
        self._over: Exception | None = None
        channel.setblocking(False)
        os.set_blocking(output, False)
        status.settimeout(_READY_WITHIN)

    def begin(self, home: Home | None) -> None:
        """Wait until the child is locked down, and put it into a cgroup of its own below `home`. Raises `Unavailable`."""
        try:
            _, descriptors, _, _ = socket.recv_fds(self._status, 64, 1)
            self._fate = descriptors[0]
        except (OSError, IndexError) as fault:
            raise Unavailable("sandbox_unavailable", f"The sandbox could not start a process ({fault}).") from fault
        try:
            greeting = answer.parse(self._exchange(b"", _READY_WITHIN))
        except Rejected as refusal:
            raise Unavailable("sandbox_unavailable", f"The sandbox did not get ready: {refusal.message}") from refusal
        match greeting:
            case {"ready": [*layers]}:
                self.layers = tuple(str(layer) for layer in layers)
            case {"refused": str(why)}:
                raise Unavailable("sandbox_unavailable", f"No process could be locked down here: {why}")
            case _:
                raise Unavailable("sandbox_unavailable", "The sandbox greeted in an unknown way.")
        if home is not None:
            try:
                self._group = Group(home, self._limits.memory)
                self._group.take(self._pid())
            except OSError as fault:
                raise Unavailable("sandbox_unavailable", f"The process got no cgroup: {fault}") from fault
            self.layers = tuple(sorted((*self.layers, "cgroup")))

    def call(self, function: str, /, *, wall: float | None = None, **arguments: Json) -> Json:
        """See `pipeline.stage.Child`. `wall` seconds replace `limits.wall` for this call.

        Raises `Rejected` for the model's fault, `Unavailable` when somebody else killed the child, `ChildFailed` when
        our function raised anything but `Rejected`. After a death every further call raises the same again.
        """
        request = json.dumps({"function": function, "arguments": arguments}).encode()
        with self._lock:
            if self._over is not None:
                raise self._over
            if self._receive(1):
                raise self._kill(
                    Rejected("answer_invalid", "The process that read the model spoke without being asked.")
                )
            body = self._exchange(LENGTH.pack(len(request)) + request, self._limits.wall if wall is None else wall)
            try:
                return answer.value_of(body)
            except Rejected as refusal:
                if refusal.code == "answer_invalid":
                    self._kill(refusal)
                raise

    def hand_over(self, function: str, /, **arguments: Json) -> socket.socket:
        """Have `function` speak over the channel in its own way for the rest of the child's life; our end of it.

        It is called with the channel's descriptor first. What comes is not limited or judged here any more, and there are
        no calls after. The socket stays the child's: `close` closes it. `cause` tells why it fell silent.
        """
        request = json.dumps({"function": function, "arguments": arguments, "handed_over": True}).encode()
        with self._lock:
            if self._over is not None:
                raise self._over
            self._channel.setblocking(True)
            self._channel.sendall(LENGTH.pack(len(request)) + request)
            self._channel.setblocking(False)
            self._over = RuntimeError("the channel has been handed over")
            return self._channel

    def cause(self) -> Exception:
        """Why a child that hung up after `hand_over` is dead: `Rejected`, or `Unavailable` where somebody else killed it."""
        with self._lock:
            self._over = None
            return self._see_death()

    @property
    def output(self) -> str:
        """The last 64 KiB of what was written to stdout and stderr, without control characters."""
        self.drain()
        return answer.printable(self._tail.decode(errors="replace"), _OUTPUT_KEPT, keep="\n\t")

    def drain(self) -> None:
        """Take in what it has printed: nobody else does after `hand_over`, and a full pipe would stop it."""
        with self._lock:
            self._drain()

    @property
    def peak_memory(self) -> int:
        """Highest resident set so far in bytes, by the kernel's account; includes libraries shared with the zygote."""
        if self._fate >= 0:
            with contextlib.suppress(OSError, ValueError, StopIteration):
                self._peak = max(self._peak, _field(Path(f"/proc/{self._pid()}/status"), "VmHWM:") * 1024)
        return self._peak

    @property
    def memory(self) -> int:
        """Resident bytes that are no file's, now; pages that it still shares with the zygote among them. 0 once it is gone."""
        if self._fate >= 0:
            with contextlib.suppress(OSError, ValueError, StopIteration):
                return _field(Path(f"/proc/{self._pid()}/status"), "RssAnon:") * 1024
        return 0

    def kill(self) -> None:
        """End the child now, from whatever thread; a call under way raises `Unavailable`. Harmless when it is gone."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._fate, signal.SIGKILL)

    def close(self) -> None:
        """Kill the child at once and see it gone. Its scratch folder stays, what it printed can still be read."""
        with self._lock:
            self._kill(RuntimeError("the sandbox session is over"))
            self._channel.close()
            self._status.close()
            if self._output >= 0:
                os.close(self._output)
                self._output = -1
            if self._group is not None:
                self._group.remove()

    def _pid(self) -> int:
        """Its number as we see it, -1 once it is gone."""
        return _field(Path(f"/proc/self/fdinfo/{self._fate}"), "Pid:")

    def _exchange(self, request: bytes, seconds: float) -> bytes:
        """Send one frame and receive one, keeping output flowing; any offence ends the child and raises."""
        deadline = time.monotonic() + seconds
        unsent, received, wanted = memoryview(request), bytearray(), LENGTH.size
        while len(received) < wanted:
            events = self._wait(deadline, sending=bool(unsent))
            if not events:
                raise self._kill(
                    Rejected("time_limit", f"The model took longer than the {seconds:g} s a call may take.")
                )
            if self._output in events:
                self._drain(most=1)
            if events.get(self._channel.fileno(), 0) & select.POLLOUT:
                with contextlib.suppress(BlockingIOError, BrokenPipeError):
                    unsent = unsent[self._channel.send(unsent[:_CHUNK]) :]
            chunk = self._receive(min(wanted - len(received), _CHUNK))
            if chunk == b"" or (chunk is None and self._status.fileno() in events):
                raise self._see_death()
            received += chunk or b""
            if len(received) == LENGTH.size == wanted:
                wanted += self._judged_length(*LENGTH.unpack(received))
        return bytes(received[LENGTH.size :])

    def _wait(self, deadline: float, *, sending: bool) -> dict[int, int]:
        """What is ready, by descriptor; empty when the deadline is over."""
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return {}
        poller = select.poll()
        poller.register(self._channel, select.POLLIN | (select.POLLOUT if sending else 0))
        poller.register(self._status, select.POLLIN)
        if self._output >= 0:
            poller.register(self._output, select.POLLIN)
        return dict(poller.poll(remaining * 1000))

    def _receive(self, most: int) -> bytes | None:
        """None when nothing has come yet, empty when the child hung up."""
        try:
            return self._channel.recv(most)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return b""

    def _judged_length(self, length: int) -> int:
        if not 0 < length <= self._limits.answer:
            raise self._kill(
                Rejected("answer_invalid", f"The answer has {length} bytes; {self._limits.answer} may be.")
            )
        return length

    def _drain(self, most: int = 64) -> None:
        """Keep the tail of the output; at most `most` chunks, since a flood has no end."""
        for _ in range(most):
            if self._output < 0:
                return
            try:
                chunk = os.read(self._output, _CHUNK)
            except BlockingIOError:
                return
            if not chunk:
                os.close(self._output)
                self._output = -1
            self._tail += chunk
            del self._tail[:-_OUTPUT_KEPT]

    def _see_death(self) -> Exception:
        """The child hung up: it is dead, dying or pretending. Wait for the zygote's report and judge it.

        Of a child that is dead without a report nobody knows how it died: a zygote that is late is not the model's fault.
        """
        if not _ready(self._status.fileno(), _DYING_WITHIN) and not _ready(self._fate, 0.0):
            return self._kill(Rejected("crashed", "The process that read the model hung up."))
        death = self._report()
        self._drain()
        output = self._tail.decode(errors="replace")
        out_of_memory = self._group is not None and self._group.out_of_memory()
        fault = judge(death, limits=self._limits, output=output, out_of_memory=out_of_memory)
        return self._kill(fault, reported=True)

    def _report(self) -> Death | None:
        """What wait4 told the zygote; None when the zygote is gone too."""
        self._status.settimeout(_GONE_WITHIN)
        try:
            report = json.loads(self._status.recv(4096))
        except (OSError, ValueError):
            return None
        death = Death(**report)
        self._peak = max(self._peak, death.peak)
        return death

    def _kill(self, why: Exception, *, reported: bool = False) -> Exception:
        """Make sure that the child is gone and remember why; returns the reason that came first."""
        if self._fate >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fate, signal.SIGKILL)
            if not reported:
                self._report()
            os.close(self._fate)
            self._fate = -1
            self._drain()
        if self._over is None:
            self._over = why
        return self._over


def _ready(descriptor: int, seconds: float) -> bool:
    """Whether there is something to read within `seconds`; of a pidfd, whether the process has ended."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def _field(path: Path, name: str) -> int:
    """The first number on the line of a /proc file that begins with `name`. Raises StopIteration without one."""
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(name))
