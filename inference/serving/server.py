"""Process of the server: socket, model, start and shutdown."""

import copy
import logging
import socket
from typing import Any

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from inference.generation.load import load_for_generation
from inference.serving.app import build_app
from inference.serving.config import ServeConfig
from inference.serving.scheduler import RequestScheduler

logger = logging.getLogger(__name__)
GRACE_SECONDS = 3
"""Seconds that the shutdown waits for clients to receive sent data."""


class Server(uvicorn.Server):
    """A server whose shutdown interrupts running answers."""

    def __init__(self, scheduler: RequestScheduler, config: ServeConfig) -> None:
        app = build_app(scheduler, config)
        grace, log = GRACE_SECONDS, _log_config()
        super().__init__(uvicorn.Config(app, timeout_graceful_shutdown=grace, log_config=log))
        self.scheduler = scheduler

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Cancel running and waiting requests, then shut down."""
        self.scheduler.stop()
        await super().shutdown(sockets)


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet: clients are refused until the model is loaded.

    Raises:
        ValueError: the address is in use, or does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        reason = f"{error.strerror or error}; choose another port or host"
        raise ValueError(f"host={host} port={port}: {reason}") from None
    return bound


def serve(config: ServeConfig) -> None:
    """Open the model and serve until Ctrl-C or SIGTERM.

    Raises:
        ValueError: the model cannot be opened, or the address is not available.
    """
    with bind(config.host, config.port) as bound:
        loaded = load_for_generation(config)
        scheduler = RequestScheduler(loaded, slots=config.slots, queue=config.queue)
        server = Server(scheduler, config)
        host, port = bound.getsockname()[:2]
        logger.info("model %r at http://%s:%d/v1", config.served_name, host, port)
        if config.api_key is None and not host.startswith(("127.", "::1")):
            logger.warning("host=%s: open to the network without a key; set api_key=...", host)
        server.run(sockets=[bound])


def _log_config() -> dict[str, Any]:
    """Log configuration of uvicorn, extended by the logger of this package."""
    config = copy.deepcopy(LOGGING_CONFIG)
    ours = {"handlers": ["default"], "level": "INFO", "propagate": False}
    config["loggers"]["inference.serving"] = ours
    return config
