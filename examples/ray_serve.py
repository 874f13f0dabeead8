"""A router served by Ray Serve, with as many replicas as the load asks for.

    python ray_serve.py router.safetensors --port 8000
    curl -s localhost:8000 -d '{"query": "What is 2 + 2?", "policy": {"willingness_to_pay": 0.01}}'

Starts Ray on this machine, answers on the loopback address and ends with Ctrl-C. On a cluster the same
application is deployed by ``serve run ray_serve:app router=/shared/router.safetensors``. Needs
``pip install 'centroute[ray]'``.
"""

import argparse
import signal
import threading
from typing import Any

from centroute.ray.engine import start_here
from centroute.ray.serve import router_app

# A replica is added while more requests than the target are in work in each, and taken away after five quiet
# minutes. What limits a replica with a static embedder is HTTP, not routing.
AUTOSCALING = {
    "min_replicas": 1,
    "max_replicas": 4,
    "target_ongoing_requests": 16,
    "upscale_delay_s": 2,
    "downscale_delay_s": 300,
}


def app(arguments: dict[str, str]) -> Any:
    """Build the application, as ``serve run`` asks for it."""
    return router_app(
        arguments["router"],
        autoscaling=AUTOSCALING,
        max_ongoing_requests=64,
        ray_actor_options={"num_cpus": 0.5},
    )


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("router")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    ray, _ = start_here()
    from ray import serve

    ended = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": arguments.port})
        serve.run(app({"router": arguments.router}))
        print(f"routing on http://127.0.0.1:{arguments.port}", flush=True)
        ended.wait()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
