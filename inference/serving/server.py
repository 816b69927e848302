"""The process: a socket, a model, and a server that ends when it is told to."""

import copy
import logging
import socket
from typing import Any

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from inference.generation.load import open_speaker
from inference.serving.app import build_app
from inference.serving.config import ServeConfig
from inference.serving.scheduler import Engine

logger = logging.getLogger(__name__)
GRACE_SECONDS = 3
"""How long the end waits for clients to take what they were sent."""


class Server(uvicorn.Server):
    """A server whose end cuts answers short instead of waiting for them."""

    def __init__(self, engine: Engine, config: ServeConfig) -> None:
        app = build_app(engine, config)
        grace, log = GRACE_SECONDS, _log_config()
        super().__init__(uvicorn.Config(app, timeout_graceful_shutdown=grace, log_config=log))
        self.engine = engine

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Cancel what runs and waits, then end."""
        self.engine.stop()
        await super().shutdown(sockets)


def bind(host: str, port: int) -> socket.socket:
    """A socket that does not listen yet: until the model is there, clients are turned away.

    Raises:
        ValueError: the address is taken, or not this machine's.
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
    """Open the model and answer until Ctrl-C or SIGTERM.

    Raises:
        ValueError: there is no such model, or the address cannot be had.
    """
    with bind(config.host, config.port) as bound:
        speaker = open_speaker(config)
        engine = Engine(speaker, slots=config.slots, queue=config.queue)
        server = Server(engine, config)
        host, port = bound.getsockname()[:2]
        logger.info("model %r at http://%s:%d/v1", config.served_name, host, port)
        if config.api_key is None and not host.startswith(("127.", "::1")):
            logger.warning("host=%s: anybody in the network may ask; api_key=... keeps out", host)
        server.run(sockets=[bound])


def _log_config() -> dict[str, Any]:
    """uvicorn's, with our lines among its own."""
    config = copy.deepcopy(LOGGING_CONFIG)
    ours = {"handlers": ["default"], "level": "INFO", "propagate": False}
    config["loggers"]["inference.serving"] = ours
    return config
