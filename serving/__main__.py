"""`python -m serving`: the inference edge on SERVING_PORT."""

from __future__ import annotations

import uvicorn

from serving.app import main
from shared.settings import Settings

KEEP_ALIVE = 75
GRACE = 15
"""Seconds that requests under way have to end in when the process is told to stop."""

if __name__ == "__main__":
    settings = Settings()
    uvicorn.run(
        main,
        factory=True,
        host=settings.slipway_host,
        port=settings.serving_port,
        loop="uvloop",
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
    )
