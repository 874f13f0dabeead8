"""A uniform sample of embedded shards: few enough rows to be held at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centroute.calibrate.fitting import Part
from centroute.calibrate.shards import Block, EmbeddedShard, Rows, is_held_out
from centroute.datasets import Outcomes
from centroute.errors import DataError


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """Rows that were drawn of one shard, with the names of their datasets and roles."""

    blocks: tuple[Block, ...]
    datasets: tuple[str, ...]
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TakeSample:
    """The job that draws each row of a shard with the probability ``share``.

    The draw depends on seed and number of the shard alone: any worker draws the same.
    """

    share: float
    seed: int

    def __call__(self, shard: EmbeddedShard) -> Taken:
        """Draw from one shard."""
        rng = np.random.Generator(np.random.PCG64([self.seed, shard.number]))
        blocks, datasets, roles = [], [], []
        description = shard.description
        for block in shard.blocks("all", 0.0):
            drawn = block.subset(rng.random(len(block.keys)) < self.share)
            blocks.append(drawn)
            datasets += [description["datasets"][place] for place in drawn.datasets]
            roles += [description["roles"][place] for place in drawn.roles]
        return Taken(tuple(blocks), tuple(datasets), tuple(roles))


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Rows drawn of all shards, in their order. Texts are not kept: the key stands for each."""

    embeddings: NDArray[np.float32]
    features: NDArray[np.float32]
    outcomes: Outcomes
    keys: NDArray[np.uint64]

    @classmethod
    def joined(cls, taken: Sequence[Taken], models: tuple[str, ...]) -> "Sample":
        """Put together what was drawn of the shards."""
        blocks = [block for part in taken for block in part.blocks]
        keys = np.concatenate([block.keys for block in blocks])
        if not len(keys):
            raise DataError("the sample holds no row; give more queries or a larger sample")
        roles = tuple(role for part in taken for role in part.roles)
        outcomes = Outcomes(
            queries=tuple(f"{key:016x}" for key in keys.tolist()),
            models=models,
            scores=np.concatenate([block.scores for block in blocks]),
            costs=np.concatenate([block.costs for block in blocks]),
            datasets=tuple(dataset for part in taken for dataset in part.datasets),
            ids=tuple(map(str, range(len(keys)))),
            roles=roles if any(roles) else None,
            allow_unobserved=True,
        )
        return cls(
            np.concatenate([block.embeddings for block in blocks]),
            np.concatenate([block.features for block in blocks]),
            outcomes,
            keys,
        )

    def part(self, rows: Rows, holdout: float) -> Part:
        """The rows of one side.

        Raises
        ------
        DataError
            If the sample holds none.
        """
        every = Part(self.embeddings, self.features, self.outcomes)
        if rows == "all":
            return every
        held_out = is_held_out(self.keys, holdout)
        mask = held_out if rows == "holdout" else ~held_out
        if not mask.any():
            raise DataError(f"the sample holds no row of the {rows}; give more queries or another share")
        return every.subset(mask)
