"""``pool.toml``: what is known of the models beside their scores, and the costs that follow from prices.

    [models."gpt-5"]                      # holds for gpt-5@low and gpt-5@high too, which may state otherwise
    input_usd_per_million = 1.25
    output_usd_per_million = 10.0
    tags = ["vision", "tools"]            # what a policy may require
    context_length = 400_000              # tokens
    output_tokens = 350                   # mean length of an answer, for data without counts

    [models."gpt-5@high"]
    output_tokens = {gsm8k = 2100, mmlu = 900}    # by the data's ``dataset``

    [models.team]                         # a plan: scored, priced and chosen like any other model
    plan = {mode = "chain", roles = {planner = "gpt-5@high", coder = "gpt-5"}}

    [datasets.arc]
    output_tokens = 40                    # for models that state none

An entry ``model@effort`` is a model of its own everywhere: scores, costs and choices are by entry, so that a
router chooses the model and its compute budget at once. It takes what it does not state from the entry of its
model, and has the tag ``effort=<effort>``; an entry without ``@`` may state its ``effort``.

A cost comes from the data where it stands there; else from prices and the data's token counts; else from
prices, the input tokens of the text as the bundled tokenizer counts them, and the answer's stated length.
The last is an estimate: other tokenizers count otherwise, and what an application puts around the text is not
in it. Where none of this is known the cost is unknown, never 0.
"""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from centroute._kernel import Policy
from centroute._shown import show
from centroute._toml import TomlTable, read_toml
from centroute.artifact import Artifact, Collaboration, Json, PoolModel
from centroute.datasets import Outcomes
from centroute.datasets.outcomes import model_name_fault
from centroute.embedders import bundled_folder
from centroute.errors import DataError

SOURCES = ("data", "token_counts", "estimate", "unknown")
"""Where costs come from, best first: what the report counts by model."""

_COUNTED_BY = "static-256"
_LONGEST_TEXT_TOKENS = 2**31 - 1
_PER_MILLION = 1e-6
_BATCH = 256
_NAMED = 20

CostSources = dict[str, dict[str, int]]
"""By model, how many of its costs come from each of `SOURCES`."""

_Lengths = float | Mapping[str, float]


@dataclass(frozen=True, slots=True)
class PoolEntry:
    """What a pool file states of one entry; ``None`` is not stated.

    Attributes
    ----------
    input_usd_per_million, output_usd_per_million
        Prices in USD per million tokens; both or none.
    tags
        Capabilities that a policy may require.
    context_length
        In tokens.
    effort
        Compute budget that the entry stands for.
    output_tokens
        Mean tokens of an answer, or that by dataset.
    plan
        Which models answer together under this name.
    """

    input_usd_per_million: float | None = None
    output_usd_per_million: float | None = None
    tags: frozenset[str] | None = None
    context_length: int | None = None
    effort: str | None = None
    output_tokens: _Lengths | None = None
    plan: Collaboration | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """Entries by name, and lengths of answers by dataset.

    Attributes
    ----------
    entries
        By name of a model, or of a model and an effort.
    output_tokens
        Mean tokens of an answer by dataset, for entries that state none.
    source
        The file, for messages.
    """

    entries: Mapping[str, PoolEntry] = field(default_factory=dict)
    output_tokens: Mapping[str, float] = field(default_factory=dict)
    source: str = "pool"

    def entry(self, name: str) -> PoolEntry:
        """Return what is known of a model; what ``model@effort`` does not state is ``model``'s."""
        model, separator, effort = name.rpartition("@")
        own = self.entries.get(name, PoolEntry())
        base = self.entries.get(model, PoolEntry()) if separator else PoolEntry()
        is_there = name in self.entries or (separator and model in self.entries)
        known = {
            key: mine if (mine := getattr(own, key)) is not None else getattr(base, key)
            for key in PoolEntry.__slots__
            if key != "effort"
        }
        return PoolEntry(**known, effort=own.effort or (effort if separator and is_there else None))

    def model(self, name: str) -> PoolModel:
        """Return a model as a router file holds it."""
        entry = self.entry(name)
        effort = {f"effort={entry.effort}"} if entry.effort else set()
        return PoolModel(
            name,
            input_usd_per_million=entry.input_usd_per_million,
            output_usd_per_million=entry.output_usd_per_million,
            tags=(entry.tags or frozenset()) | effort,
            context_length=entry.context_length,
            plan=entry.plan,
        )

    def check_names(self, models: Iterable[str]) -> None:
        """Refuse a pool that names a model, as an entry or in a plan, which is not among ``models``.

        Raises
        ------
        DataError
            Names the first such entry, and the models there are.
        """
        names = list(models)
        used = {*names, *(name.rpartition("@")[0] for name in names)}
        for name, entry in self.entries.items():
            members = () if entry.plan is None else entry.plan.roles.values()
            for model in (name, *members):
                if model not in used:
                    there_are = ", ".join(names[:_NAMED])
                    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
                    which = show(model) if model == name else f"{show(model)} in the plan {show(name)}"
                    raise DataError(
                        f"{self.source}: the model {which} is not in the data; there are {there_are}{more}"
                    )


def read_pool(path: str | os.PathLike[str]) -> Pool:
    r"""Read a ``pool.toml``.

    Parameters
    ----------
    path
        The file, UTF-8; the module says what stands in it.

    Raises
    ------
    DataError
        The file cannot be read or is no TOML, a key is unknown, or a value is not of its kind; names it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "pool.toml")
    ...     _ = file.write_text('[models.small]\ntags = ["tools"]\ncontext_length = 8000')
    ...     read_pool(file).model("small@low").tags == {"tools", "effort=low"}
    True
    """
    source = Path(path)
    content = read_toml(source)
    top = _Section(str(source), "", content)
    top.check_keys(("models", "datasets"))
    models, datasets = top.section("models"), top.section("datasets")
    lengths: dict[str, float] = {}
    for dataset in datasets.content:
        section = datasets.section(dataset)
        section.check_keys(("output_tokens",))
        if (length := section.number("output_tokens")) is not None:
            lengths[dataset] = length
    entries = {name: _read_entry(models.section(name), name) for name in models.content}
    return Pool(entries, lengths, str(source))


def apply_pool(outcomes: Outcomes, pool: Pool, *, others: Iterable[str] = ()) -> tuple[Outcomes, CostSources]:
    """Fill in the costs that the data lack, as far as prices and lengths allow.

    Estimates are made where a score was observed; token counts of the data are used wherever they stand.

    Parameters
    ----------
    outcomes
        Outcomes with or without costs and token counts.
    pool
        Prices and lengths; an empty pool adds nothing.
    others
        Models that the pool may name besides those of the outcomes.

    Returns
    -------
    outcomes, cost_sources
        The outcomes with more costs, and for each model how many of its costs come ``"data"``, from prices
        and ``"token_counts"``, from an ``"estimate"``, or are ``"unknown"`` for an observed score.

    Raises
    ------
    DataError
        The pool names a model that is in neither, or a cost is not finite.
    """
    pool.check_names((*outcomes.models, *others))
    costs = outcomes.costs.copy()
    observed = ~np.isnan(outcomes.scores)
    sources: CostSources = {}
    counted: NDArray[np.float64] | None = None
    for column, name in enumerate(outcomes.models):
        entry = pool.entry(name)
        from_data = ~np.isnan(costs[:, column])
        from_counts = from_estimate = np.zeros(outcomes.n_queries, dtype=np.bool_)
        if entry.input_usd_per_million is not None:
            n_input, n_output = _token_counts(outcomes, column)
            priced = _cost(entry, n_input, n_output)
            from_counts = ~from_data & ~np.isnan(priced)
            costs[from_counts, column] = priced[from_counts]
            missing = observed[:, column] & np.isnan(costs[:, column])
            if missing.any():
                if counted is None:
                    counted = count_tokens(outcomes.queries)
                stated = _stated_lengths(entry, pool, outcomes.datasets)
                estimated = _cost(
                    entry,
                    np.where(np.isnan(n_input), counted, n_input),
                    np.where(np.isnan(n_output), stated, n_output),
                )
                from_estimate = missing & ~np.isnan(estimated)
                costs[from_estimate, column] = estimated[from_estimate]
        unknown = observed[:, column] & np.isnan(costs[:, column])
        counts = (from_data, from_counts, from_estimate, unknown)
        sources[name] = {source: int(rows.sum()) for source, rows in zip(SOURCES, counts, strict=True)}
    return replace(outcomes, costs=costs, allow_unobserved=True), sources


def count_tokens(texts: Iterable[str]) -> NDArray[np.float64]:
    """Count the tokens of texts by the tokenizer of the bundled embedder: an estimate of what others count.

    Parameters
    ----------
    texts
        ``n`` texts.

    Returns
    -------
    NDArray[np.float64]
        ``[n]``, at least 1 each; a character or word that the tokenizer does not know is one token.

    Raises
    ------
    EmbedderError
        The bundled tokenizer cannot be read.
    """
    from centroute.embedders.tokenizer import open_tokenizer

    tokenizer = open_tokenizer(
        bundled_folder(_COUNTED_BY) / "tokenizer.json", max_tokens=_LONGEST_TEXT_TOKENS
    )
    every = list(texts)
    lengths = [np.zeros(0)]
    for start in range(0, len(every), _BATCH):
        _, ends, _ = tokenizer.encode_batch(every[start : start + _BATCH])
        lengths.append(np.maximum(np.diff(ends, prepend=0), 1).astype(np.float64))
    return np.concatenate(lengths)


def _token_counts(outcomes: Outcomes, column: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if outcomes.tokens is None:
        unknown = np.full(outcomes.n_queries, np.nan)
        return unknown, unknown
    return outcomes.tokens[:, column, 0], outcomes.tokens[:, column, 1]


def _cost(
    entry: PoolEntry, n_input: NDArray[np.float64], n_output: NDArray[np.float64]
) -> NDArray[np.float64]:
    """USD a query; what is free costs nothing even where its length is unknown."""
    total = np.zeros(len(n_input))
    for price, n_tokens in (
        (entry.input_usd_per_million, n_input),
        (entry.output_usd_per_million, n_output),
    ):
        if price:
            total = total + price * _PER_MILLION * n_tokens
    return total


def _stated_lengths(entry: PoolEntry, pool: Pool, datasets: Iterable[str]) -> NDArray[np.float64]:
    """Tokens of an answer by row ``[n_queries]``: what the entry states, else the dataset, else NaN."""

    @cache
    def stated(dataset: str) -> float:
        own = entry.output_tokens
        if isinstance(own, Mapping):
            own = own.get(dataset)
        return pool.output_tokens.get(dataset, math.nan) if own is None else own

    return np.array([stated(dataset) for dataset in datasets], dtype=np.float64)


class _Section(TomlTable):
    """A table of a pool file."""

    __slots__ = ()

    def check_keys(self, known: Iterable[str]) -> None:
        for key, value in self.content.items():
            if key not in known:
                dots = "; a name with dots stands in quotes" if isinstance(value, dict) and self.name else ""
                self.fail(show(key), f"is not known; there are {', '.join(known)}{dots}")

    def section(self, key: str) -> "_Section":
        value = self.content.get(key, {})
        if not isinstance(value, dict):
            self.fail(show(key), f"must be a table, got {show(value)}")
        name = key if not self.name else f"{self.name}.{show(key)}"
        return _Section(self.source, name, value)

    def number(self, key: str) -> float | None:
        value = self.content.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(key, f"must be a number, got {show(value)}")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not 0 <= number < math.inf:
            self.fail(key, f"must be a finite number of 0 or more, got {show(value)}")
        return number

    def lengths(self, key: str) -> _Lengths | None:
        if not isinstance(self.content.get(key), dict):
            return self.number(key)
        section = self.section(key)
        return {
            dataset: length for dataset in section.content if (length := section.number(dataset)) is not None
        }

    def text(self, key: str) -> str | None:
        value = self.content.get(key)
        if value is not None and not (isinstance(value, str) and value.strip()):
            self.fail(key, f"must be a text, got {show(value)}")
        return value if isinstance(value, str) else None

    def plan(self, key: str, name: str) -> Collaboration | None:
        if key not in self.content:
            return None
        section = self.section(key)
        section.check_keys(Collaboration.__slots__)
        mode, roles = section.text("mode"), section.section("roles")
        if mode is None or not roles.content:
            section.fail("mode" if mode is None else "roles", "is missing")
        for role in roles.content:
            if roles.text(role) == name:
                roles.fail(show(role), "names the plan itself")
        return Collaboration(mode, {role: str(model) for role, model in roles.content.items()})

    def tags(self, key: str) -> frozenset[str] | None:
        value = self.content.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            self.fail(key, f"must be a list of texts, got {show(value)}")
        for tag in value:
            if not isinstance(tag, str) or model_name_fault(tag) or "," in tag or tag.startswith("context>="):
                self.fail(key, f"{show(tag)} is no tag: a text without commas, and not context>=")
        return frozenset(value)


def _read_entry(section: _Section, name: str) -> PoolEntry:
    if fault := model_name_fault(name):
        raise DataError(f"{section.source}, models: {fault}")
    section.check_keys(PoolEntry.__slots__)
    prices = [section.number(key) for key in ("input_usd_per_million", "output_usd_per_million")]
    if (prices[0] is None) != (prices[1] is None):
        missing = "input" if prices[0] is None else "output"
        section.fail(f"{missing}_usd_per_million", "is missing beside the other price; 0 is free")
    length = section.content.get("context_length")
    if length is not None and (
        isinstance(length, bool) or not isinstance(length, int) or not 0 < length < 2**63
    ):
        section.fail("context_length", f"must be a whole number of tokens above 0, got {show(length)}")
    effort, (_, separator, suffix) = section.text("effort"), name.rpartition("@")
    if effort is not None and separator and effort != suffix:
        section.fail("effort", f"{show(effort)} contradicts the name, which ends in {show('@' + suffix)}")
    return PoolEntry(
        input_usd_per_million=prices[0],
        output_usd_per_million=prices[1],
        tags=section.tags("tags"),
        context_length=length if isinstance(length, int) else None,
        effort=effort,
        output_tokens=section.lengths("output_tokens"),
        plan=section.plan("plan", name),
    )


def with_pool(artifact: Artifact, pool: Pool | None, cost_sources: CostSources) -> Artifact:
    """Put the pool's prices, tags and context lengths into an artifact, and the source of every cost.

    Parameters
    ----------
    artifact
        A router, calibrated on what `apply_pool` returned.
    pool
        The pool; ``None`` leaves the models as they are.
    cost_sources
        What `apply_pool` returned; goes into the report as ``cost_sources``.
    """
    models = artifact.models if pool is None else tuple(pool.model(model.name) for model in artifact.models)
    counts: dict[str, Json] = {name: dict[str, Json](by_source) for name, by_source in cost_sources.items()}
    return replace(artifact, models=models, report={**artifact.report, "cost_sources": counts})


def requirements_as_names(policy: Policy, pool: Pool, models: Iterable[str]) -> Policy:
    """Say by ``allow`` what a policy says by ``require``, for a router that does not know the tags yet.

    A requirement that no model meets stays, so that the router refuses it by its name.
    """
    met = {model.name for model in map(pool.model, models) if _meets(model, policy.require or frozenset())}
    if not policy.require or not met:
        return policy
    allowed = met if policy.allow is None else met & policy.allow
    return policy.replace(require=None, allow=allowed) if allowed else policy


def _meets(model: PoolModel, requirements: frozenset[str]) -> bool:
    for requirement in requirements:
        if requirement.startswith("context>="):
            tokens = requirement.removeprefix("context>=").strip()
            if not tokens.isdecimal() or (model.context_length or 0) < int(tokens):
                return False
        elif requirement not in model.tags:
            return False
    return True
