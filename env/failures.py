"""Episodes that failed: whose, how many, and why. They count as wrong; who never ran has no figures."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import polars as pl


class Failures(NamedTuple):
    """The failed episodes of a controller at a beta, on all stores; `error` is the first one's."""

    controller: str
    beta: float
    failed: int
    episodes: int
    error: str

    @property
    def never_ran(self) -> bool:
        """Whether no episode came to its end."""
        return self.failed == self.episodes

    def __str__(self) -> str:
        """The sentence below a table."""
        name = f"{self.controller} at beta {self.beta:g}"
        return f"{name}: {self.failed} of {self.episodes} episodes failed: {self.error}"


def failures(frame: "pl.DataFrame") -> list[Failures]:
    """Of every controller and beta of which an episode failed, in the order of the frame."""
    import polars as pl

    failed = pl.col("error") != ""
    told = frame.group_by("controller", "beta", maintain_order=True).agg(
        failed.sum().alias("failed"), pl.len(), pl.col("error").filter(failed).first()
    )
    return [Failures(*row) for row in told.filter(pl.col("failed") > 0).iter_rows()]


def never_ran(frame: "pl.DataFrame") -> dict[str, str]:
    """The controllers all of whose episodes failed, each with its first error."""
    import polars as pl

    failed = pl.col("error") != ""
    told = frame.group_by("controller", maintain_order=True).agg(
        failed.all(), pl.col("error").first().alias("why")
    )
    return {name: why for name, broken, why in told.iter_rows() if broken}
