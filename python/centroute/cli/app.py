"""The commands; each hands over to the module of its name."""

from pathlib import Path
from typing import Annotated

import typer

from centroute import __version__
from centroute.calibrate.settings import METHODS

app = typer.Typer(
    name="centroute",
    help="The right language model for each query, in microseconds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RouterFile = Annotated[Path, typer.Argument(metavar="ROUTER", help="Router file written by calibrate.")]
Alpha = Annotated[
    float | None, typer.Option(help="Trade-off from 0 (cheapest) to 1 (quality only), as Avengers-Pro.")
]
Willingness = Annotated[float | None, typer.Option(help="USD that one right answer is worth.")]
MaxMeanCost = Annotated[float | None, typer.Option(help="Mean cost a query to stay within, in USD.")]
MinQuality = Annotated[
    float | None, typer.Option(help="Take the cheapest model predicted at this quality or more.")
]
MaxCost = Annotated[float | None, typer.Option(help="Exclude models predicted dearer than this, in USD.")]
Allow = Annotated[list[str] | None, typer.Option(metavar="MODEL", help="Only these models; repeat it.")]
Deny = Annotated[list[str] | None, typer.Option(metavar="MODEL", help="None of these models; repeat it.")]
Require = Annotated[
    list[str] | None, typer.Option(metavar="TAG", help="Tag a model must have, or context>=N; repeat it.")
]
EmbedderOption = Annotated[str, typer.Option("--embedder", metavar="NAME|DIR", help="Embedder of the texts.")]


def _show_version(value: bool) -> None:  # noqa: FBT001, typer's callback
    if value:
        typer.echo(f"centroute {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and leave.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the router file goes.")] = Path(
        "demo-router.safetensors"
    ),
    data: Annotated[
        Path | None, typer.Option(help="Also write the sample as JSONL, to try the other commands on.")
    ] = None,
) -> None:
    """Calibrate, evaluate and route on a bundled synthetic sample."""
    from centroute.cli.demo import run_demo

    run_demo(output, data)


@app.command()
def calibrate(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Outcomes: .jsonl or .jsonl.gz.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Router file to write.")],
    *,
    embedder: EmbedderOption = "static-256",
    method: Annotated[
        str, typer.Option(metavar="|".join(METHODS), help="How the tables are fitted.")
    ] = "auto",
    clusters: Annotated[str, typer.Option(metavar="auto|N", help="Number of clusters.")] = "auto",
    top_p: Annotated[int | None, typer.Option(min=1, help="Clusters blended for a query.")] = None,
    beta: Annotated[float | None, typer.Option(min=0.0, help="Sharpness of the blend.")] = None,
    holdout: Annotated[float, typer.Option(help="Share of distinct texts to measure on; 0 for none.")] = 0.3,
    seed: Annotated[int, typer.Option(min=0, help="Same data, options and seed: same file.")] = 0,
    refit: Annotated[
        bool, typer.Option("--refit/--no-refit", help="Fit on all rows in the end, or keep the first fit.")
    ] = True,
    default_policy: Annotated[
        str | None,
        typer.Option(metavar="POLICY", help="Stored policy, such as 'willingness-to-pay=0.01; deny=a,b'."),
    ] = None,
) -> None:
    """Fit a router to outcomes and report on a holdout."""
    from centroute.cli.calibrate import run_calibrate

    if method not in METHODS:
        raise typer.BadParameter(f"{method!r} is not one of {', '.join(METHODS)}", param_hint="--method")
    if clusters != "auto" and not (clusters.isascii() and clusters.isdigit() and int(clusters) > 0):
        raise typer.BadParameter(
            f"{clusters!r} is neither 'auto' nor a whole number above 0", param_hint="--clusters"
        )
    if not 0 <= holdout < 1:
        raise typer.BadParameter(f"{holdout} is not a share from 0 up to 1", param_hint="--holdout")
    run_calibrate(
        data,
        output,
        embedder=embedder,
        method=method,
        n_clusters=None if clusters == "auto" else int(clusters),
        top_p=top_p,
        beta=beta,
        holdout=holdout,
        seed=seed,
        refit=refit,
        default_policy=default_policy,
    )


@app.command()
def evaluate(
    router: RouterFile,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Outcomes: .jsonl or .jsonl.gz.")],
    *,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the figures as JSON; - for stdout.")
    ] = None,
    embedder: Annotated[
        str | None, typer.Option(metavar="NAME|DIR", help="Embedder, where the router's own is elsewhere.")
    ] = None,
    alpha: Alpha = None,
    willingness_to_pay: Willingness = None,
    max_mean_cost: MaxMeanCost = None,
    min_quality: MinQuality = None,
    max_cost: MaxCost = None,
    allow: Allow = None,
    deny: Deny = None,
    require: Require = None,
) -> None:
    """Measure a router on outcomes: accuracy, cost, baselines, frontier."""
    from centroute.cli.evaluate import run_evaluate
    from centroute.cli.policy_flags import PolicyFlags

    flags = PolicyFlags(
        alpha,
        willingness_to_pay,
        max_mean_cost,
        min_quality,
        max_cost,
        allow or [],
        deny or [],
        require or [],
    )
    run_evaluate(router, data, json_file=json, embedder=embedder, flags=flags)


@app.command()
def route(
    router: RouterFile,
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="Queries; without any, one a line on stdin."),
    ] = None,
    *,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a query.")] = False,
    embedder: Annotated[
        str | None, typer.Option(metavar="NAME|DIR", help="Embedder, where the router's own is elsewhere.")
    ] = None,
    alpha: Alpha = None,
    willingness_to_pay: Willingness = None,
    max_mean_cost: MaxMeanCost = None,
    min_quality: MinQuality = None,
    max_cost: MaxCost = None,
    allow: Allow = None,
    deny: Deny = None,
    require: Require = None,
) -> None:
    """Choose a model for each query."""
    from centroute.cli.policy_flags import PolicyFlags
    from centroute.cli.route import run_route

    flags = PolicyFlags(
        alpha,
        willingness_to_pay,
        max_mean_cost,
        min_quality,
        max_cost,
        allow or [],
        deny or [],
        require or [],
    )
    run_route(router, texts or [], as_json=json, embedder=embedder, flags=flags)


@app.command()
def inspect(
    router: RouterFile,
    *,
    json: Annotated[bool, typer.Option("--json", help="All of it as one JSON object.")] = False,
) -> None:
    """Show what a router file holds and how it was made."""
    from centroute.cli.inspect import run_inspect

    run_inspect(router, as_json=json)
