"""What a served model takes and gives, in the protocol's words, and how a picture becomes one of its inputs.

Read once from what the pipeline found out; crosses the socket to the runtime child as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.decisions import task_of
from pipeline.errors import Rejected

Json = Any
Shape = tuple[int | None, ...]
Scores = Literal["probabilities", "logits"]
Side = Annotated[int, Field(ge=1, le=8192)]
Deviation = Annotated[float, Field(gt=0)]

_DATATYPES = {
    "bool": "BOOL",
    "str": "BYTES",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
}
_PIXELS = ("FP16", "FP32", "FP64", "UINT8")
_CHANNELS = {1: "L", 3: "RGB"}
_SIDE = 224
"""Pixels of an image's side where neither the model nor its config says."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """One input or output: V2 datatype, `shape` with None where a size is free, None where the rank is.

    `example`, `values`, `closed` and `below` are those of `pipeline.signature.Tensor`.
    """

    name: str
    datatype: str
    shape: Shape | None
    example: tuple[int, ...] = ()
    values: tuple[str, ...] = ()
    closed: bool = False
    below: int | None = None

    @property
    def batched(self) -> bool:
        """Whether the first axis may have any size."""
        return self.shape is not None and self.shape[:1] == (None,)

    @cached_property
    def known(self) -> frozenset[str]:
        return frozenset(self.values)


@dataclass(frozen=True, kw_only=True)
class Image:
    """How a picture becomes a row of `input`: pixel × scale, less the mean, by the deviation, in this order.

    `mean` and `std` have one number per channel. `crop` is the share of the picture that is kept, about its centre,
    where `resize` is crop; `fill` the grey around it where that is pad.
    """

    input: str
    height: int
    width: int
    mode: Literal["RGB", "BGR", "L"]
    layout: Literal["NCHW", "NHWC"]
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Literal["stretch", "crop", "pad"]
    crop: float
    fill: int
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"]


class _Wanted(BaseModel):
    """`config["image"]`, as `docs/predict.md` has it."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    input: str | None = None
    size: Side | tuple[Side, Side] | None = None
    mode: Literal["RGB", "BGR", "L"] | None = None
    layout: Literal["NCHW", "NHWC"] | None = None
    scale: float | None = None
    mean: float | list[float] = 0.0
    std: Deviation | list[Deviation] = 1.0
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    crop: Annotated[float, Field(gt=0, le=1)] = 0.875
    fill: Annotated[int, Field(ge=0, le=255)] = 114
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Inputs and outputs in the model's order, class names in the order of the scores.

    `task` is one of `pipeline.decisions`; `scores` says what the scores are where the config does.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    classes: tuple[str, ...] = ()
    image: Image | None = None
    task: str | None = None
    scores: Scores | None = None

    @cached_property
    def by_name(self) -> Mapping[str, Port]:
        """The inputs."""
        return {one.name: one for one in self.inputs}

    @cached_property
    def output_names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.outputs)

    @classmethod
    def read(cls, inputs: Json, outputs: Json, classes: Sequence[str], config: Mapping[str, Json]) -> Self:
        """From an artifact's meta and the config declared with the model.

        Raises `Rejected` for a datatype that the protocol lacks and for a config that does not fit the model.
        """
        ports = tuple(_port(one) for one in inputs)
        scores = config.get("scores")
        if scores not in (None, "probabilities", "logits"):
            raise Rejected("invalid_config", f"config.scores is probabilities or logits, not {str(scores)[:60]}.")
        return cls(
            inputs=ports,
            outputs=tuple(_port(one) for one in outputs),
            classes=tuple(classes),
            image=_image(ports, config.get("image")),
            task=task_of(config.get("task")),
            scores=scores,
        )

    def facts(self) -> Json:
        return asdict(self)

    @classmethod
    def of(cls, facts: Json) -> Self:
        """What `facts` told, after its way through JSON."""
        image = facts["image"]
        return cls(
            inputs=tuple(_restored(one) for one in facts["inputs"]),
            outputs=tuple(_restored(one) for one in facts["outputs"]),
            classes=tuple(facts["classes"]),
            image=image and Image(**{**image, "mean": tuple(image["mean"]), "std": tuple(image["std"])}),
            task=facts["task"],
            scores=facts["scores"],
        )


def _port(tensor: Mapping[str, Json]) -> Port:
    datatype = _DATATYPES.get(tensor["dtype"])
    if datatype is None:
        raise Rejected(
            "unsupported_signature",
            f"{tensor['name'][:60]} is {tensor['dtype'][:60]}, which the inference protocol has no name for; "
            f"it knows {', '.join(_DATATYPES)}.",
        )
    return _restored({**tensor, "datatype": datatype})


def _restored(said: Mapping[str, Json]) -> Port:
    shape = said["shape"]
    return Port(
        name=said["name"],
        datatype=said["datatype"],
        shape=None if shape is None else tuple(shape),
        example=tuple(said.get("example") or ()),
        values=tuple(said.get("values") or ()),
        closed=bool(said.get("closed")),
        below=said.get("below"),
    )


def _image(inputs: Sequence[Port], said: Json) -> Image | None:
    """As the config says, what it leaves open as the shape of the input says; None where no input is clearly an image."""
    try:
        wanted = _Wanted.model_validate({} if said is None else said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part)[:50] for part in ("image", *first["loc"]))
        raise Rejected("invalid_config", f"config.{where}: {first['msg']}.") from error
    named = [one for one in inputs if one.name == wanted.input] if wanted.input else list(inputs)
    found = [
        (one, layout)
        for one in named
        if (layout := wanted.layout or _layout(one.shape)) and len(one.shape or ()) == 4 and one.datatype in _PIXELS
    ]
    if len(found) != 1:
        if said is None:
            return None
        raise Rejected(
            "invalid_config",
            "config.image must fit one input of four axes, pixels and 1 or 3 channels; say which in config.image.input "
            f"and config.image.layout. The inputs are {', '.join(one.name for one in inputs)[:500]}.",
        )
    port, layout = found[0]
    return _fitted(port, layout, wanted)


def _layout(shape: Shape | None) -> Literal["NCHW", "NHWC"] | None:
    if shape is None or len(shape) != 4:
        return None
    return "NCHW" if shape[1] in _CHANNELS else "NHWC" if shape[3] in _CHANNELS else None


def _fitted(port: Port, layout: Literal["NCHW", "NHWC"], wanted: _Wanted) -> Image:
    shape = port.shape or ()
    channels, *sides = (shape[1], shape[2], shape[3]) if layout == "NCHW" else (shape[3], shape[1], shape[2])
    mode: Any = wanted.mode or _CHANNELS.get(channels or 3)
    depth = 1 if mode == "L" else 3
    size = (wanted.size, wanted.size) if isinstance(wanted.size, int) else wanted.size or (None, None)
    height, width = (one or side or _SIDE for one, side in zip(size, sides, strict=True))
    agreed = all(one in (None, ours) for one, ours in zip((channels, *sides), (depth, height, width), strict=True))
    if not agreed or mode is None:
        raise Rejected(
            "invalid_config",
            f"config.image makes {layout} pictures of {depth} channels and {height} × {width} pixels, "
            f"which {port.name[:60]} of shape {list(shape)} does not take.",
        )
    return Image(
        input=port.name,
        height=height,
        width=width,
        mode=mode,
        layout=layout,
        scale=wanted.scale if wanted.scale is not None else 1.0 if port.datatype == "UINT8" else 1 / 255,
        mean=_each(wanted.mean, depth, "mean"),
        std=_each(wanted.std, depth, "std"),
        resize=wanted.resize,
        crop=wanted.crop,
        fill=wanted.fill,
        interpolation=wanted.interpolation,
    )


def _each(said: float | list[float], channels: int, name: str) -> tuple[float, ...]:
    numbers = said if isinstance(said, list) else [said] * channels
    if len(numbers) != channels:
        raise Rejected(
            "invalid_config", f"config.image.{name} needs {channels} numbers, one per channel, or one for all."
        )
    return tuple(numbers)
