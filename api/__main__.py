"""`python -m api`: serve HTTP on SLIPWAY_HOST and SLIPWAY_PORT until told to stop."""

from __future__ import annotations

import structlog

from api.app import main
from api.server import server
from shared.patience import allow_open_files


def run() -> None:
    allow_open_files()
    app = main()
    settings = app.state.services.settings
    structlog.get_logger().info("api.started", host=settings.slipway_host, port=settings.slipway_port)
    server(app, host=settings.slipway_host, port=settings.slipway_port).run()


if __name__ == "__main__":
    run()
