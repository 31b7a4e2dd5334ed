"""What a verification says, in the form that the parent takes from a sandbox child and keeps as evidence."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.signature import Answer, Size, Text

Error = Annotated[float, Field(ge=0)]


class Counts(Answer):
    """Decisions of one kind: `compared` is `agreed` + `ties` + `flips`."""

    compared: Size
    agreed: Size
    ties: Size
    flips: Size


class Ranks(Counts):
    """The same for the set of the `top` best classes; `reordered` counts rows with another order that is no tie."""

    top: Size
    reordered: Size


class Channels(Answer):
    """The worst of the `count` channels along `axis`: its error relative to the RMS of its kind, its own if silent."""

    axis: Size
    worst: Size
    count: Size
    error: Error


class Group(Answer):
    """A span of channels of one kind, measured on its own: a detector's boxes and its scores, for example."""

    name: Text
    rms_rel: Error
    cosine: Annotated[float, Field(ge=-1.001, le=1.001)]


class OutputVerdict(Answer):
    """What became of one output. Errors are relative to the RMS of the reference, the worst kind of input counts.

    `decides` says what the decisions are: `class`, `label`, `sign` or `boxes`, None where the output decides nothing.
    """

    name: Text
    rms_rel: Error
    max_rel: Error
    max_abs: Error
    cosine: Annotated[float, Field(ge=-1.001, le=1.001)]
    decides: Text | None
    decisions: Counts
    ranks: Ranks | None
    channels: Channels | None
    groups: Annotated[list[Group], Field(max_length=8)]
    nan: bool


class Accuracy(Answer):
    """The share of the user's labels that both forms predict."""

    samples: Size
    reference: Annotated[float, Field(ge=0, le=1)]
    candidate: Annotated[float, Field(ge=0, le=1)]


class Override(Answer):
    """A number of the budget that the model's config changed."""

    default: float
    used: float


class Divergence(Answer):
    """The first tensor of a graph that is not what it should be, and the node that makes it.

    `error` is relative to the RMS of what the reference has there, None where nothing there compares. `weights` are the
    names of those that the node reads: exporters keep the layer's name in them.
    """

    tensor: Text
    node: Text
    op: Text
    error: Error | None
    weights: Annotated[list[Text], Field(max_length=8)]

    def phrase(self) -> str:
        """For a refusal's message."""
        off = "" if self.error is None else f", off by {self.error:.2g} of its RMS"
        said = [f"node {self.node}"] if self.node else []
        said += [f"weights {', '.join(self.weights)}"] if self.weights else []
        node = f" ({'; '.join(said)})" if said else ""
        return f"they part at tensor {self.tensor}, made by {self.op}{node}{off}"


class Verification(Answer):
    """Whether one form answers like another, by which numbers, and within which budget.

    `worst` names the question where they differ most.
    """

    verified: bool
    reason: Annotated[str, Field(max_length=10_000)] | None
    precision: Text
    samples: Size
    batches: Annotated[list[Size], Field(max_length=100)]
    task: Text | None
    outputs: Annotated[list[OutputVerdict], Field(max_length=1000)]
    accuracy: Accuracy | None
    budget: dict[Text, float]
    overridden: dict[Text, Override]
    worst: Text | None
    diverges: Divergence | None = None
