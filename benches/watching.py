"""What watching costs: ``python benches/watching.py [--without OTHER_KERNEL.so]``.

Blocks of decisions, watched and not, take turns in one process, so that both see the same machine; the table
has medians of the time a decision and of the ratio to the unwatched block beside it. The kernel's counters
are always on: what they cost is seen against an extension that was built without them, whose file
``--without`` names. ``minilm-l6`` is measured where it was exported.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry, generate_latest

from centroute import EmbedderError, Router, _kernel
from centroute.calibrate import calibrate
from centroute.datasets import synthetic_outcomes
from centroute.decision_log import DecisionLog
from centroute.embedders import find_folder, load_embedder
from centroute.metrics import RouterCollector
from centroute.tracing import TracedRouter

N_TOKENS = (12, 64, 256)
WORDS = ("prove", "that", "the", "square", "root", "of", "two", "is", "irrational", "and", "explain", "each")
SECONDS = 2.0

Call = Callable[[str], object]


class Nowhere(SpanExporter):
    """Takes spans and forgets them."""

    def export(self, spans: object) -> SpanExportResult:  # noqa: ARG002
        """Forget them."""
        return SpanExportResult.SUCCESS


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without", type=Path, help="extension built without counters")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "router.safetensors"
        calibrate(synthetic_outcomes(), method="means", n_clusters=64, surface_weight=0.0).save(file)
        router = Router.load(file)
        if arguments.without is not None:
            _counters(arguments.without, file)
        _title("static-256, one decision")
        recorded, unrecorded = _tracer(ALWAYS_ON), _tracer(ParentBased(ALWAYS_OFF))
        every = 1000
        with (
            DecisionLog(folder / "all.jsonl", queue_size=10_000_000) as whole,
            DecisionLog(folder / "some.jsonl", sample=0.01) as sampled,
        ):
            watched: dict[str, Call] = {
                "again": router.route,
                "decision log, all": lambda text: whole.record(router.route(text)),
                "decision log, 1 %": lambda text: sampled.record(router.route(text)),
                "spans, all recorded": TracedRouter(router, tracer=recorded).route,
                f"spans, 1 in {every} recorded": TracedRouter(router, tracer=recorded, every=every).route,
                "spans, sampler says no": TracedRouter(router, tracer=unrecorded).route,
            }
            for n_tokens in N_TOKENS:
                text = " ".join((WORDS * n_tokens)[: n_tokens - 2])
                _compare(f"{n_tokens} tokens", lambda text=text: router.route(text), _bound(watched, text))
            with unrecorded.start_as_current_span("request"):
                inside = TracedRouter(router, tracer=unrecorded).route
                text = " ".join((WORDS * 64)[:62])
                _compare(
                    "64 tokens, in a trace not recorded",
                    lambda: router.route(text),
                    {"spans": lambda: inside(text)},
                )
            _minilm(folder, whole, recorded)
        _behind(router, folder)


def _bound(calls: dict[str, Call], text: str) -> dict[str, Callable[[], object]]:
    return {name: (lambda call=call: call(text)) for name, call in calls.items()}


def _compare(group: str, plain: Callable[[], object], watched: dict[str, Callable[[], object]]) -> None:
    """Print the time of one call of each, and by how much it exceeds the plain one beside it."""
    print(f"{group}")
    calls = {"not watched": plain, **watched}
    started = time.perf_counter()
    plain()
    n_calls = max(1, round(0.001 / (time.perf_counter() - started)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    stop = time.perf_counter() + SECONDS * len(calls) / 2
    rounds = 0
    while time.perf_counter() < stop or rounds < 20:
        # Forth and back, so that a drift of the clock rate favours nobody.
        for name in list(calls) if rounds % 2 else reversed(calls):
            call = calls[name]
            started = time.perf_counter_ns()
            for _ in range(n_calls):
                call()
            times[name].append((time.perf_counter_ns() - started) / n_calls)
        rounds += 1
    for name, measured in times.items():
        ratio = statistics.median(
            one / other for one, other in zip(measured, times["not watched"], strict=True)
        )
        print(f"  {name:34} {statistics.median(measured) / 1e3:10.3f} µs {100 * (ratio - 1):+8.2f} %")


def _counters(other: Path, file: Path) -> None:
    """The extension that is installed against one without counters."""
    _title("counters of the kernel, always on")
    kernels = {"without": _routing(_load(other), file), "with": _routing(_kernel, file)}
    for n_tokens in N_TOKENS:
        text = " ".join((WORDS * n_tokens)[: n_tokens - 2])
        _compare(
            f"{n_tokens} tokens",
            lambda text=text: kernels["without"](text),
            {
                "again": lambda text=text: kernels["without"](text),
                "counted": lambda text=text: kernels["with"](text),
            },
        )


def _routing(extension: ModuleType, file: Path) -> Call:
    folder = find_folder("static-256")
    kernel = extension.Kernel(file.read_bytes())
    embedder = extension.StaticEmbedder.from_onnx(
        (folder / "model.onnx").read_bytes(),
        (folder / "tokenizer.json").read_bytes(),
        max_tokens=256,
        prefix="",
    )
    return lambda text: kernel.route_text(embedder, text)


def _load(extension: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("without._kernel", extension)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _tracer(sampler: Sampler) -> Tracer:
    provider = TracerProvider(sampler=sampler)
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    return provider.get_tracer("bench")


def _minilm(folder: Path, log: DecisionLog, tracer: Tracer) -> None:
    try:
        embedder = load_embedder("minilm-l6")
    except EmbedderError as error:
        print(f"minilm-l6: not measured ({error})")
        return
    file = folder / "minilm.safetensors"
    calibrate(
        synthetic_outcomes(n_queries=300),
        embedder=embedder,
        method="means",
        n_clusters=16,
        surface_weight=0.0,
    ).save(file)
    router = Router.load(file, embedder=embedder)
    traced = TracedRouter(router, tracer=tracer)
    text = " ".join((WORDS * 64)[:62])
    _title("minilm-l6, one decision")
    _compare(
        "64 tokens",
        lambda: router.route(text),
        {
            "decision log, all": lambda: log.record(router.route(text)),
            "spans, all recorded": lambda: traced.route(text),
        },
    )


def _behind(router: Router, folder: Path) -> None:
    """What is done behind the caller's back: writing lines, and a scrape."""
    _title("in the background")
    decision = router.route("What is the capital of France?")
    n_lines = 20_000
    log = DecisionLog(folder / "behind.jsonl", queue_size=n_lines)
    started = time.process_time()
    for _ in range(n_lines):
        log.record(decision)
    log.close()
    each = (time.process_time() - started) / n_lines
    print(f"  a line of the log, recorded and written  {1e6 * each:8.1f} µs")
    registry = CollectorRegistry()
    registry.register(RouterCollector(router))
    scrapes = []
    for _ in range(200):
        started = time.perf_counter()
        generate_latest(registry)
        scrapes.append(time.perf_counter() - started)
    print(f"  a scrape of the metrics                  {1e6 * statistics.median(scrapes):8.1f} µs")


def _title(text: str) -> None:
    print(f"\n{text}: median, and how much more than not watched")


if __name__ == "__main__":
    main()
