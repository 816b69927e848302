"""Put a model behind OpenAI's HTTP interface: chat and plain completions, whole or streamed.

    python -m scripts.serve folder=<HF folder | run | adapter> [port=8000] [slots=4]

    from openai import OpenAI
    ask = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none").chat.completions.create
    print(ask(model="<folder's name>", messages=[{"role": "user", "content": "What is loess?"}]))

Needs `pip install -e ".[serve]"`. Parameters beyond OpenAI's (top_k, min_p, repetition_penalty) go
into the client's `extra_body`; those that are not implemented are refused by name.
"""

from importlib.util import find_spec

from conf.command import command
from inference.serving.config import ServeConfig


@command("serve", ServeConfig, stopped="stopped; run the same command to serve again")
def main(config: ServeConfig) -> None:
    """Open the model and answer until Ctrl-C."""
    if lacking := [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]:
        raise ValueError(f"{' and '.join(lacking)} not installed; pip install -e '.[serve]'")
    from inference.serving.server import serve

    serve(config)


if __name__ == "__main__":
    main()
