"""What goes into a model and what comes out: names, dtypes and shapes, found and declared. Knows no format or library.

Sandbox children answer in these forms and the parent parses them strictly, because a child that was taken over may
answer anything.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import Rejected
from pipeline.stage import Json

Text = Annotated[str, Field(max_length=1000)]
Size = Annotated[int, Field(ge=0, le=1 << 40)]
Shape = Annotated[list[Size | None], Field(max_length=32)]

Side = Literal["input", "output"]

_VERBS: Mapping[Side, str] = {"input": "takes", "output": "gives"}
_SEQUENCE, _PIXELS, _OTHER = 16, 64, 8
_IMAGE_RANK = 4


class Answer(BaseModel):
    """JSON that crossed the sandbox's border: exact types, no unknown keys, bounded."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def of(cls, answer: Json) -> Self:
        """What a child answered, or `Rejected`: honest code of ours always answers in form."""
        try:
            return cls.model_validate(answer)
        except ValidationError as error:
            raise Rejected("answer_invalid", f"The sandbox gave an answer out of form: {_flaw(error)}.") from error


class Tensor(Answer):
    """One input or output: numpy's dtype name, `shape` with None where a size is free or the rank unknown.

    `example` is a shape that a forward pass took; empty where there was none. `values`, as text, are some that an
    input knows: categories, or texts made of its vocabulary; where it is `closed` it takes no others. Values of an
    integer input stay `below` that where they are known to be indices, into an embedding for example.
    """

    name: Text
    dtype: Text
    shape: Shape | None
    example: Annotated[list[Size], Field(max_length=32)] = []
    values: Annotated[list[Text], Field(max_length=100)] = []
    closed: bool = False
    below: Annotated[int, Field(ge=1)] | None = None

    @property
    def batched(self) -> bool:
        """Whether the first axis may have any size."""
        return self.shape is not None and self.shape[:1] == [None]

    def sized(self, batch: int) -> list[int]:
        """The example shape, with `batch` as its first axis where that is free."""
        return [batch, *self.example[1:]] if self.batched else self.example


class Forward(Answer):
    """One trial run: how long it took and the shapes that came out."""

    seconds: float
    outputs: Annotated[list[Tensor], Field(max_length=1000)]


class Inspection(Answer):
    """What `inspect` found in a model file. `exporters` are the ways to ONNX worth trying, best first.

    `flops` counts one multiplication and addition as two, for a batch of one. `classes` are names in the order of the
    scores. `notes` is what else the file says of itself: versions of its framework, task, stride. `unservable` says,
    of a file that can be stored and described but not served, why, and what to upload instead. A package has its
    settings in `config`, the text of a JSON object, and by role in `packed` the side files left in the scratch folder.
    """

    inputs: Annotated[list[Tensor], Field(max_length=1000)] = []
    outputs: Annotated[list[Tensor], Field(max_length=1000)] = []
    tensors: Annotated[list[Tensor], Field(max_length=1000)] = []
    parameters: Size | None = None
    opset: Size | None = None
    flops: Annotated[int, Field(ge=0)] | None = None
    classes: Annotated[list[Text], Field(max_length=100_000)] = []
    notes: Annotated[dict[Text, Text], Field(max_length=100)] = {}
    producer: Text | None = None
    warnings: Annotated[list[Text], Field(max_length=100)] = []
    forward: Forward | None = None
    exporters: Annotated[list[Annotated[str, Field(pattern="^[a-z0-9]{1,20}$")]], Field(max_length=8)] = []
    unservable: Text | None = None
    config: Annotated[str, Field(max_length=256 << 10)] | None = None
    packed: dict[
        Literal["requirements", "calibration", "card"], Literal["requirements", "calibration.npz", "card.md"]
    ] = {}


def in_form(inspect: Callable[[str, Json], Json]) -> Callable[[str, Json], Json]:
    """Refuse models whose description is beyond all bounds: thousands of inputs, names of thousands of characters."""

    @functools.wraps(inspect)
    def bounded(model: str, declared: Json) -> Json:
        try:
            return inspect(model, declared)
        except ValidationError as error:
            raise Rejected("unsupported_signature", f"The model cannot be described: {_flaw(error)}.") from error

    return bounded


def declared_shape(
    declared: Mapping[str, Json], name: str, names: Sequence[str], side: Side = "input"
) -> list[int | None] | None:
    """The shape declared for input `name`, None in it where free (-1, null); None if nothing was declared.

    A bare list speaks for the only input, or the first of several.
    """
    said = declared.get(f"{side}_shape")
    if isinstance(said, Mapping):
        unknown = sorted(set(said) - set(names))
        if unknown:
            raise Rejected(
                "shape_mismatch",
                f"{side}_shape names {', '.join(unknown)}, but the model's {side}s are {', '.join(names)}.",
                declared=sorted(said),
                found=list(names),
            )
        said = said.get(name)
    elif name != names[0]:
        said = None
    if not said:
        return None
    if not isinstance(said, list) or not all(one is None or (isinstance(one, int) and one >= -1) for one in said):
        raise Rejected(
            f"invalid_{side}_shape", f"{side}_shape must be a list of sizes, or map {side} names to such lists."
        )
    return [None if one in (None, -1) else int(one) for one in said]


def matched(tensor: Tensor, declared: Sequence[int | None] | None, side: Side = "input") -> list[str]:
    """Warnings about what was declared for an input or output; `Rejected` where it contradicts what was found.

    A declared shape may leave the batch axis out, and may fix what the model leaves free.
    """
    if declared is None or tensor.shape is None:
        return []
    full = list(declared)
    if len(full) == len(tensor.shape) - 1 and tensor.shape[0] in (None, 1):
        full.insert(0, tensor.shape[0])
    pairs = list(zip(full, tensor.shape, strict=False))
    if len(full) != len(tensor.shape) or any(None not in (said, found) and said != found for said, found in pairs):
        raise Rejected(
            "shape_mismatch",
            f"{side.capitalize()} {tensor.name} was declared as {shown(declared)} but the model "
            f"{_VERBS[side]} {shown(tensor.shape)}.",
            **{side: tensor.name},
            declared=list(declared),
            found=tensor.shape,
        )
    return [
        f"{side.capitalize()} {tensor.name}: axis {axis} was declared free but the model fixes it at {found}."
        for axis, (said, found) in enumerate(pairs)
        if said is None and found is not None
    ]


def outputs_matched(outputs: Sequence[Tensor], declared: Mapping[str, Json]) -> list[str]:
    """As `matched`, of all outputs. A bare list may mean any one of several."""
    said = declared.get("output_shape")
    if not said or not outputs:
        return []
    names = [one.name for one in outputs]
    if isinstance(said, Mapping):
        wanted = {name: declared_shape(declared, name, names, "output") for name in names}
        return [warning for one in outputs for warning in matched(one, wanted[one.name], "output")]
    shape = declared_shape(declared, names[0], names, "output")
    refusals: list[Rejected] = []
    for one in outputs:
        try:
            return matched(one, shape, "output")
        except Rejected as refusal:
            refusals.append(refusal)
    raise refusals[0]


def example_shape(shape: Sequence[int | None], dtype: str, declared: Sequence[int | None] | None) -> list[int]:
    """Sizes to try a model with: its own, else the declared, else 1 for the batch and something small for the rest."""
    said: list[int | None] = list(declared or ())
    said = [*[None] * (len(shape) - len(said)), *said]
    other = _PIXELS if len(shape) == _IMAGE_RANK else _SEQUENCE if dtype.startswith("int") else _OTHER
    return [
        found if found is not None else wanted if wanted is not None else 1 if axis == 0 else other
        for axis, (found, wanted) in enumerate(zip(shape, said, strict=False))
    ]


def class_warnings(outputs: Sequence[Tensor], declared: Mapping[str, Json]) -> list[str]:
    """A warning where the number of declared classes is the width of none of the score outputs."""
    classes = declared.get("classes")
    widths = {one.shape[-1] for one in outputs if one.shape and len(one.shape) > 1 and one.dtype.startswith("float")}
    widths -= {None}
    if not isinstance(classes, list) or not classes or not widths or len(classes) in widths:
        return []
    found = " or ".join(str(width) for width in sorted(width for width in widths if width is not None))
    return [f"{len(classes)} classes were declared, but the model scores {found}."]


def shown(shape: Sequence[int | None] | None) -> str:
    """A shape for people: `[?, 3, 224, 224]`."""
    return "any shape" if shape is None else "[" + ", ".join("?" if one is None else str(one) for one in shape) + "]"


def _flaw(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part)[:50] for part in first['loc'])}: {first['msg']}"
