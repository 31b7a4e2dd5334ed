"""`python -m serving`: the inference edge on SERVING_PORT."""

from __future__ import annotations

import uvicorn

from serving.answers import Refused, refusal
from serving.app import main
from shared.patience import PatientProtocol, Refusal, allow_open_files
from shared.settings import Settings

KEEP_ALIVE = 75
GRACE = 15
"""Seconds that requests under way have to end in when the process is told to stop."""


class EdgeProtocol(PatientProtocol):
    """Refuses in the words of the Open Inference Protocol."""

    def rendered(self, refusal_: Refusal) -> bytes:
        answer = refusal(Refused(refusal_.status, refusal_.code, refusal_.detail), "v2")
        lines = [f"HTTP/1.1 {refusal_.status.value} {refusal_.status.phrase}", "connection: close"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        lines.append(f"content-length: {len(answer.body)}")
        return "\r\n".join([*lines, "", ""]).encode() + answer.body


if __name__ == "__main__":
    settings = Settings()
    allow_open_files()
    uvicorn.run(
        main,
        factory=True,
        host=settings.slipway_host,
        port=settings.serving_port,
        loop="uvloop",
        http=EdgeProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
    )
