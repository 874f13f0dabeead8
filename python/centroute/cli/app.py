"""The commands and their options; each hands over to the module of its name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from centroute import __version__
from centroute.calibrate.settings import METHODS

Command = TypeVar("Command", bound=Callable[..., None])

FILE = click.Path(path_type=Path)


class ClusterCount(click.ParamType[int | None]):
    """``auto`` or a whole number above zero."""

    name = "auto|N"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Return ``None`` for ``auto``."""
        text = str(value)
        if text == "auto":
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 1000 and int(text) > 0):
            self.fail(f"{text!r} is neither 'auto' nor a whole number above 0", param, ctx)
        return int(text)


POLICY_OPTIONS = (
    click.option(
        "--alpha", type=float, help="Trade-off from 0 (cheapest) to 1 (quality only), as Avengers-Pro."
    ),
    click.option("--willingness-to-pay", type=float, help="USD that one right answer is worth."),
    click.option("--max-mean-cost", type=float, help="Mean cost a query to stay within, in USD."),
    click.option(
        "--min-quality", type=float, help="Take the cheapest model predicted at this quality or more."
    ),
    click.option(
        "--strong", metavar="MODEL", help="The better of two models, with --weak and --strong-share."
    ),
    click.option("--weak", metavar="MODEL", help="The cheaper of the two."),
    click.option("--strong-share", type=float, help="Share of the queries for the strong one, 0 to 1."),
    click.option("--max-cost", type=float, help="Exclude models predicted dearer than this, in USD."),
    click.option(
        "--allow", multiple=True, metavar="MODEL", help="Only these models; repeat it, or use commas."
    ),
    click.option(
        "--deny", multiple=True, metavar="MODEL", help="None of these models; repeat it, or use commas."
    ),
    click.option("--require", multiple=True, metavar="TAG", help="Tag a model must have, or context>=N."),
)


def policy_options(command: Command) -> Command:
    """Add the policy flags, which reach the command as keyword arguments of their names."""
    for option in reversed(POLICY_OPTIONS):
        command = option(command)
    return command


router_argument = click.argument("router", metavar="ROUTER", type=FILE)
data_argument = click.argument("data", metavar="DATA", type=FILE)
ENGINE_OPTIONS = (
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        help="Where work over shards runs: this process or a Ray cluster; needs centroute[ray].",
    ),
    click.option(
        "--address", metavar="HOST:PORT", help="Ray cluster; one is started on this machine when not given."
    ),
    click.option("--workers", "n_workers", type=click.IntRange(min=1), help="Ray workers that embed."),
)


def engine_options(command: Command) -> Command:
    """Add the options of work over shards, which reach the command as ``engine, address, n_workers``."""
    for option in reversed(ENGINE_OPTIONS):
        command = option(command)
    return command


other_embedder_option = click.option(
    "--embedder", metavar="NAME|DIR", help="Embedder, where the router's own is elsewhere."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="centroute", message="%(prog)s %(version)s")
def app() -> None:
    """The right language model for each query, in microseconds."""


@app.command()
@click.option(
    "-o", "--output", type=FILE, default=Path("demo-router.safetensors"), help="Where the router goes."
)
@click.option("--data", type=FILE, help="Also write the sample as JSONL, to try the other commands on.")
def demo(output: Path, data: Path | None) -> None:
    """Calibrate, evaluate and route on a bundled synthetic sample."""
    from centroute.cli.demo import run_demo

    run_demo(output, data)


@app.command()
@click.argument("data", metavar="DATA...", type=FILE, nargs=-1, required=True)
@click.option("-o", "--output", type=FILE, help="Router file to write; needed unless --check.")
@click.option("--check", is_flag=True, help="Print what was read of DATA, and write nothing.")
@click.option(
    "--pool", "pool_file", type=FILE, help="TOML file of prices, tags, context lengths and answer lengths."
)
@click.option(
    "--embedder", metavar="NAME|DIR", default="static-256", show_default=True, help="Embedder of texts."
)
@click.option(
    "--method", type=click.Choice(METHODS), default="auto", show_default=True, help="How tables are fitted."
)
@click.option(
    "--clusters",
    "n_clusters",
    metavar="auto|N",
    type=ClusterCount(),
    default="auto",
    show_default=True,
    help="Number of clusters.",
)
@click.option(
    "--top-p", type=click.IntRange(min=1), help="Clusters blended for a query; chosen when not given."
)
@click.option("--beta", type=click.FloatRange(min=0), help="Sharpness of the blend; chosen when not given.")
@click.option(
    "--surface-weight",
    type=click.FloatRange(0, 10),
    help="Weight of the text's form beside its embedding, 0 for none; chosen when not given.",
)
@click.option(
    "--holdout",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.3,
    show_default=True,
    help="Share of distinct texts to measure on; 0 for none.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Same data and options: same file.",
)
@click.option(
    "--refit/--no-refit",
    default=True,
    show_default=True,
    help="Fit on all rows in the end, or keep the first fit.",
)
@click.option(
    "--default-policy", metavar="POLICY", help="Stored policy: 'willingness-to-pay=0.01; deny=a,b'."
)
@click.option(
    "--checkpoint", type=FILE, help="Folder from which a stopped run over shards goes on; removed in the end."
)
@engine_options
def calibrate(data: tuple[Path, ...], output: Path | None, check: bool, **options: object) -> None:
    """Fit a router to outcomes.

    DATA is a .jsonl file, one query a line, or what Avengers-Pro, RouterBench (.csv, .parquet) and RouteLLM
    publish. What was measured on the holdout is printed.

    Several files, or a folder or pattern of .jsonl, .jsonl.gz and .parquet, are shards: they are read block
    by block and need not fit into memory.
    """
    if check:
        from centroute.cli.check_data import run_check
        from centroute.datasets.shards import is_sharded

        if is_sharded(data):
            raise click.UsageError("--check reads one file.")
        run_check(data[0], pool_file=options["pool_file"], embedder=options["embedder"])  # type: ignore[arg-type]
        return
    if output is None:
        raise click.MissingParameter(param_hint="'-o' / '--output'", param_type="option")
    from centroute.cli.calibrate import run_calibrate

    run_calibrate(data, output, **options)  # type: ignore[arg-type]


@app.command()
@router_argument
@data_argument
@click.option("--json", "json_file", type=FILE, help="Write the figures as JSON; - for standard output.")
@click.option("--report", type=FILE, help="Write a report to look at, one HTML file that needs no network.")
@click.option("--plot", type=FILE, help="Write the frontier as PNG; needs centroute[plot].")
@click.option(
    "--calibration",
    metavar="DATA",
    type=FILE,
    help="What the router was calibrated on: adds kNN and Avengers-Pro fitted to it.",
)
@click.option("--pool", "pool_file", type=FILE, help="TOML file of prices, for costs that DATA lacks.")
@click.option(
    "--ensemble",
    metavar="N",
    type=click.IntRange(2, 64),
    help="Ask up to N models a query and let them vote; DATA must hold 'answers' and 'answer'.",
)
@other_embedder_option
@policy_options
def evaluate(router: Path, data: Path, **options: Any) -> None:
    """Measure a router on outcomes.

    Prints accuracy, cost, baselines, metrics and frontier on DATA, a file as calibrate reads it.
    """
    from centroute.cli.evaluate import run_evaluate
    from centroute.cli.policy_flags import PolicyFlags

    names = ("json_file", "report", "plot", "calibration", "pool_file", "ensemble", "embedder")
    own = {name: options.pop(name) for name in names}
    run_evaluate(router, data, **own, flags=PolicyFlags(**options))


@app.command()
@router_argument
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@click.option("--n-models", type=click.IntRange(min=1), help="Up to so many models a query, for a vote.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a query.")
@click.option(
    "--shards",
    metavar="DATA",
    type=FILE,
    multiple=True,
    help="Folder, pattern or file of .jsonl, .jsonl.gz or .parquet with a field 'query'; repeat it.",
)
@click.option("-o", "--output", metavar="DIR", type=FILE, help="Folder for the shards with their decisions.")
@engine_options
@other_embedder_option
@policy_options
def route(router: Path, texts: tuple[str, ...], **options: Any) -> None:
    """Choose a model for each query.

    Queries are the TEXTs, or without any the lines of standard input. With --shards and -o they are those of
    files, which need not fit into memory; a run that was stopped goes on when it is given again.
    """
    from centroute.cli.policy_flags import PolicyFlags
    from centroute.cli.route import run_route

    own = {name: options.pop(name) for name in ("n_models", "as_json", "embedder")}
    of_shards = {name: options.pop(name) for name in ("shards", "output", "engine", "address", "n_workers")}
    if of_shards["shards"]:
        if texts or own["as_json"] or own["n_models"] or of_shards["output"] is None:
            raise click.UsageError("--shards needs -o, and excludes TEXT, --json and --n-models.")
        from centroute.cli.route_shards import run_route_shards

        run_route_shards(router, embedder=own["embedder"], flags=PolicyFlags(**options), **of_shards)
        return
    if any(value is not None for name, value in of_shards.items() if name != "shards"):
        raise click.UsageError("-o, --engine, --address and --workers are for --shards.")
    run_route(router, texts, **own, flags=PolicyFlags(**options))


@app.command()
@router_argument
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@click.option(
    "--roles", multiple=True, required=True, metavar="ROLE", help="Roles to fill; repeat it, or use commas."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a query.")
@other_embedder_option
@policy_options
def plan(router: Path, texts: tuple[str, ...], **options: Any) -> None:
    """Choose a model for each role of an agent, for each query.

    Queries are the TEXTs, or without any the lines of standard input. The limits of cost hold for all roles
    together.
    """
    from centroute.cli.plan import run_plan
    from centroute.cli.policy_flags import PolicyFlags

    own = {name: options.pop(name) for name in ("roles", "as_json", "embedder")}
    run_plan(router, texts, **own, flags=PolicyFlags(**options))


@app.command()
@router_argument
@click.argument("data", metavar="[DATA]", type=FILE, required=False)
@click.option("--json", "json_file", type=FILE, help="Write the figures as JSON; - for standard output.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True, max=3600),
    default=2.0,
    show_default=True,
    help="How long single decisions are timed, and batches again.",
)
@click.option(
    "--threads", type=click.IntRange(1, 1024), default=1, show_default=True, help="Threads of the batches."
)
@other_embedder_option
@policy_options
def bench(
    router: Path, data: Path | None, json_file: Path | None, embedder: str | None, **options: Any
) -> None:
    """Time decisions, stage by stage.

    The texts are the queries of DATA, a file as calibrate reads it, or without it a synthetic sample.
    """
    from centroute.cli.bench import run_bench
    from centroute.cli.policy_flags import PolicyFlags

    seconds, threads = options.pop("seconds"), options.pop("threads")
    flags = PolicyFlags(**options)
    run_bench(
        router, data, json_file=json_file, embedder=embedder, seconds=seconds, threads=threads, flags=flags
    )


@app.command()
@router_argument
@click.option("--json", "as_json", is_flag=True, help="All of it as one JSON object.")
def inspect(router: Path, as_json: bool) -> None:
    """Show what a router file holds and how it was made."""
    from centroute.cli.inspect import run_inspect

    run_inspect(router, as_json=as_json)


@app.command()
@router_argument
@click.option("-o", "--output", type=FILE, required=True, help="Folder to write; with --tar the file.")
@click.option(
    "--precision",
    type=click.Choice(["f32", "f16", "i8"]),
    help="How centroids are stored; as in ROUTER when not given.",
)
@click.option(
    "--check", metavar="DATA", type=FILE, help="Route DATA with f32 and as exported, and show what changes."
)
@click.option("--tar", "as_tar", is_flag=True, help="Write one file instead of a folder.")
@other_embedder_option
def export(router: Path, **options: Any) -> None:
    """Bundle a router with its embedder, for centroute-edge and the C library.

    A bundle is a ROUTER itself: every command takes its folder. The same input gives the same bytes.
    """
    from centroute.cli.export import run_export

    run_export(router, **options)


@app.command()
@router_argument
@click.option("--config", "config_file", type=FILE, required=True, help="The gateway's TOML file.")
@other_embedder_option
def serve(router: Path, config_file: Path, embedder: str | None) -> None:
    """Serve OpenAI's API: 'auto' lets the router choose the model, whose upstream is then asked.

    Needs pip install 'centroute[serve]'. Stops at SIGTERM when what is in work is done.
    """
    from centroute.cli.serve import run_serve

    run_serve(router, config_file=config_file, embedder=embedder)


@app.command()
@click.argument("log", metavar="LOG", type=FILE)
@router_argument
@click.option("--json", "as_json", is_flag=True, help="All of it as one JSON object.")
def drift(log: Path, router: Path, as_json: bool) -> None:
    """Compare the queries in use with those of the calibration.

    LOG is a decision log, .jsonl or .jsonl.gz. Says whether to calibrate again; exits with 0 either way.
    """
    from centroute.cli.drift import run_drift

    run_drift(log, router, as_json=as_json)


@app.command()
@router_argument
@click.argument("data", metavar="[DATA]", type=FILE, required=False)
@click.option("--strong", metavar="MODEL", help="The better model; the best single one when not given.")
@click.option("--weak", metavar="MODEL", help="The other model; the cheapest one when not given.")
@click.option("--json", "as_json", is_flag=True, help="All of it as one JSON object.")
@other_embedder_option
def thresholds(router: Path, data: Path | None, **options: Any) -> None:
    """Show what shares of calls to the strong one of two models reach, at what cost.

    With DATA, a file as calibrate reads it, the same is measured there.
    """
    from centroute.cli.thresholds import run_thresholds

    run_thresholds(router, data, **options)


@app.command()
@data_argument
@click.option(
    "--embedder",
    "embedders",
    metavar="NAME|DIR",
    multiple=True,
    default=("static-256",),
    show_default=True,
    help="Embedder of texts; repeat it, or use commas, to compare others with the first.",
)
@click.option("--pool", "pool_file", type=FILE, help="TOML file of prices, for costs that DATA lacks.")
@click.option(
    "--willingness-to-pay",
    type=float,
    help="USD that one right answer is worth; quality alone when not given.",
)
@click.option(
    "--clusters",
    "n_clusters",
    metavar="auto|N",
    type=ClusterCount(),
    default="auto",
    show_default=True,
    help="Number of clusters of the router's tables.",
)
@click.option(
    "--folds",
    "n_folds",
    type=click.IntRange(min=3),
    default=4,
    show_default=True,
    help="Parts; each is routed by what the others taught.",
)
@click.option(
    "--splits",
    "n_splits",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="How often DATA is parted anew.",
)
@click.option(
    "--max-rows",
    type=click.IntRange(min=1),
    default=20_000,
    show_default=True,
    help="Of more queries, a random part is looked at.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all draws.")
@click.option("--json", "json_file", type=FILE, help="Write the figures as JSON; - for standard output.")
@click.option("--markdown", type=FILE, help="Write the tables as Markdown.")
def diagnose(data: Path, **options: Any) -> None:
    """Show why a router stays below the oracle, and what would help.

    Splits the oracle's lead on DATA, a file as calibrate reads it, into noise, what the embedding does not
    show, what the tables lose and what more outcomes would give. Ends with advice. Writes no router.
    """
    from centroute.cli.diagnose import run_diagnose

    run_diagnose(data, **options)


@app.group()
def capabilities() -> None:
    """Find agents or tools by what they can do."""


capabilities_argument = click.argument("file", metavar="FILE", type=FILE)
agents_argument = click.argument("agents", metavar="AGENTS", type=FILE)
rewritten_option = click.option(
    "-o", "--output", type=FILE, help="Where it goes; FILE itself when not given."
)


@capabilities.command("build")
@agents_argument
@click.option("-o", "--output", type=FILE, required=True, help="File to write.")
@click.option("--embedder", metavar="NAME|DIR", default="static-256", show_default=True, help="Embedder.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the index.")
def capabilities_build(agents: Path, output: Path, embedder: str, seed: int) -> None:
    """Embed and index AGENTS.

    AGENTS is a .jsonl file, one agent a line: id, version, description, capabilities (or vectors), tags and
    cost_usd. Of several versions of an agent the newest counts.
    """
    from centroute.cli.capabilities import run_build

    run_build(agents, output, embedder=embedder, seed=seed)


@capabilities.command("add")
@capabilities_argument
@agents_argument
@rewritten_option
@click.option("--rebuild", is_flag=True, help="Build the index anew, over all agents.")
@other_embedder_option
def capabilities_add(file: Path, agents: Path, **options: Any) -> None:
    """Add AGENTS to FILE, newer versions in the place of older ones."""
    from centroute.cli.capabilities import run_add

    run_add(file, agents, **options)


@capabilities.command("remove")
@capabilities_argument
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@rewritten_option
@other_embedder_option
def capabilities_remove(file: Path, ids: tuple[str, ...], **options: Any) -> None:
    """Remove agents from FILE by their ids."""
    from centroute.cli.capabilities import run_remove

    run_remove(file, ids, **options)


@capabilities.command("match")
@capabilities_argument
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@click.option("-n", type=click.IntRange(min=1), default=5, show_default=True, help="Agents to show at most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a query.")
@click.option("--willingness-to-pay", type=float, help="USD that one unit of similarity is worth.")
@click.option("--min-quality", type=float, help="Take the cheapest whose similarity reaches this.")
@click.option("--max-cost", type=float, help="Exclude agents whose calls cost more, in USD.")
@click.option("--allow", multiple=True, metavar="ID", help="Only these agents; repeat it, or use commas.")
@click.option("--deny", multiple=True, metavar="ID", help="None of these; repeat it, or use commas.")
@click.option("--require", multiple=True, metavar="TAG", help="Tag that an agent must have.")
@other_embedder_option
def capabilities_match(file: Path, texts: tuple[str, ...], **options: Any) -> None:
    """Show the agents that fit each query.

    Queries are the TEXTs, or without any the lines of standard input.
    """
    from centroute.cli.capabilities import run_match

    own = {name: options.pop(name) for name in ("n", "as_json", "embedder")}
    run_match(file, texts, **own, policy=options)


@capabilities.command("inspect")
@capabilities_argument
@click.option("--json", "as_json", is_flag=True, help="All of it as one JSON object.")
@other_embedder_option
def capabilities_inspect(file: Path, as_json: bool, embedder: str | None) -> None:
    """Show how many agents FILE holds."""
    from centroute.cli.capabilities import run_inspect

    run_inspect(file, as_json=as_json, embedder=embedder)


@app.group()
def embed() -> None:
    """List, check and export embedders."""


@embed.command("list")
@click.option("--json", "as_json", is_flag=True, help="All of it as one JSON object.")
def embed_list(as_json: bool) -> None:
    """Show the embedders that are here, and those that can be exported."""
    from centroute.cli.embed import run_embed_list

    run_embed_list(as_json=as_json)


@embed.command("check")
@click.argument("name_or_dir", metavar="NAME|DIR")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where a graph runs.",
)
@click.option("--json", "as_json", is_flag=True, help="All of it as one JSON object.")
def embed_check(name_or_dir: str, device: str, as_json: bool) -> None:
    """Try an embedder out on sample texts.

    DIR is a folder as centroute, sentence-transformers, optimum, fastembed or model2vec write it. Prints
    what it is, how fast, and what is off; the exit code is 1 where something is.
    """
    from centroute.cli.embed import run_embed_check

    run_embed_check(name_or_dir, device=device, as_json=as_json)


@embed.command("export")
@click.argument("name", metavar="NAME")
@click.option(
    "--precision",
    type=click.Choice(["f32", "int8"]),
    default="f32",
    show_default=True,
    help="Of the weights.",
)
@click.option("-o", "--output", type=FILE, help="Folder to write; the cache when not given.")
@click.option("--source", type=FILE, help="Where the weights are, instead of downloading them.")
def embed_export(name: str, precision: str, output: Path | None, source: Path | None) -> None:
    """Make an embedder that is not bundled, such as minilm-l6."""
    from centroute.cli.embed_export import run_export

    run_export(name, precision=precision, output=output, source=source)


@app.group()
@router_argument
@click.pass_context
def edit(ctx: click.Context, router: Path) -> None:
    """Change the pool of a router without calibrating again.

    The file is replaced; with -o another one is written. What was measured before an edit is marked so.
    """
    ctx.obj = router


edit_output_option = click.option(
    "-o", "--output", type=FILE, help="Router file to write; ROUTER itself when not given."
)
usd = click.FloatRange(min=0)


@edit.command("add-model")
@click.argument("name", metavar="NAME")
@click.option("--data", type=FILE, required=True, help="Outcomes of the new model, 30 or more.")
@click.option("--pool", "pool_file", type=FILE, help="TOML file of its price, tags and context length.")
@edit_output_option
@other_embedder_option
@click.pass_obj
def edit_add_model(router: Path, /, name: str, **options: Any) -> None:
    """Add a model from a few of its outcomes.

    Leans on the models that are there; scores of these on the same queries sharpen the fit.
    """
    from centroute.cli.edit import run_add_model

    run_add_model(router, name, **options)


@edit.command("set-price")
@click.argument("name", metavar="NAME")
@click.option("--input-usd-per-million", type=usd, help="New price of a million input tokens.")
@click.option("--output-usd-per-million", type=usd, help="New price of a million output tokens.")
@click.option("--cost-usd", type=usd, help="New mean cost a query, to which the costs are scaled.")
@click.option("--keep-costs", is_flag=True, help="Store the prices, and leave the costs as they are.")
@edit_output_option
@click.pass_obj
def edit_set_price(router: Path, /, name: str, output: Path | None, **prices: Any) -> None:
    """Change what a model costs.

    The router knows costs of queries, not of tokens. They follow the new prices where the old ones are known
    and all change by one factor; otherwise --cost-usd or --keep-costs has to say what becomes of them.
    """
    amounts = [value for price, value in prices.items() if price != "keep_costs"]
    if all(amount is None for amount in amounts):
        raise click.UsageError("Give at least one of the prices or --cost-usd.")
    if prices["keep_costs"] and prices["cost_usd"] is not None:
        raise click.UsageError("--keep-costs and --cost-usd exclude each other.")
    from centroute.cli.edit import run_set_price

    run_set_price(router, name, output=output, **prices)


@edit.command("drop-model")
@click.argument("name", metavar="NAME")
@edit_output_option
@click.pass_obj
def edit_drop_model(router: Path, /, name: str, output: Path | None) -> None:
    """Take a model out of the pool."""
    from centroute.cli.edit import run_drop_model

    run_drop_model(router, name, output=output)


@edit.command("absorb")
@click.argument("log", metavar="LOG", type=FILE)
@click.option("--feedback", metavar="FILE", type=FILE, help="Feedback, where it is not in LOG itself.")
@edit_output_option
@click.pass_obj
def edit_absorb(router: Path, /, log: Path, feedback: Path | None, output: Path | None) -> None:
    """Fold feedback on logged decisions into the tables.

    LOG is a decision log. Feedback are lines {"id": decision, "score": 0..1, "cost_usd": USD}. Decisions of
    other router files are left out: what is absorbed makes another file, so nothing is counted twice.
    """
    from centroute.cli.edit import run_absorb

    run_absorb(router, log, feedback=feedback, output=output)
