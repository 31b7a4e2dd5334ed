"""Arrays to feed a model with, and one trial run on them. Knows seeds, dtypes and files of arrays; knows no format.

Everything here runs in a sandbox child, hence numpy is imported inside the functions.
"""

from __future__ import annotations

import math
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.errors import Rejected
from pipeline.signature import Forward, Tensor, shown

if TYPE_CHECKING:
    from numpy.random import Generator

Arrays = Mapping[str, Any]
"""Arrays of numpy by the name of the input or output they belong to."""

Predictor = Callable[[Arrays], dict[str, Any]]
"""A loaded model. Whatever it raises is `Rejected`."""

SEED = 20_250_101
_BELOW = 10
_WORDS = (
    "the",
    "a",
    "ship",
    "slides",
    "into",
    "deep",
    "water",
    "not",
    "good",
    "bad",
    "Very",
    "FAST",
    "42",
    "it's",
    "one.",
)
_TEXTS = {
    "zeros": "",
    "ones": "a",
    "small": "Škoda ÉTÉ naïve große Straße Ωμέγα 東京 🚢",
    "large": "The quick ship, the slow ship; and 1,000 others - all of them! " * 8,
}
"""What texts are at the edges: empty, short, in other scripts, long."""

_NUMBERS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def draw(inputs: Sequence[Tensor], *, batch: int, kind: str, seed: int = SEED) -> dict[str, Any]:
    """One array per input. Kinds: `normal`, `uniform`, `zeros`, `ones`, `small` (1e-3 σ), `large` (10 σ).

    Integers are drawn below what the tensor says, else below 10 (2 where the name speaks of a mask or a type), for they
    often are indices. Those of eight bits are pixels or quantised values and take all there are. Texts are words, at the
    edges empty, short, of other scripts and long. An input that knows `values` is asked with those, and with others as
    well where it is not `closed`.
    """
    import numpy as np

    rng = np.random.default_rng((seed, zlib.crc32(kind.encode()), batch))
    return {tensor.name: np.asarray(_array(rng, tensor, tensor.sized(batch), kind)) for tensor in inputs}


def _array(rng: Generator, tensor: Tensor, shape: list[int], kind: str) -> Any:
    import numpy as np

    if tensor.values or tensor.dtype == "str":
        return _known(rng, tensor, shape, kind)
    if tensor.dtype == "bool":
        return {"zeros": np.zeros, "ones": np.ones}.get(kind, lambda size, _: rng.random(size) < 0.5)(shape, np.bool_)
    if tensor.dtype not in _NUMBERS:
        raise Rejected(
            "unsupported_input", f"Input {tensor.name} is of type {tensor.dtype}, which cannot be tested yet."
        )
    dtype = np.dtype(tensor.dtype)
    if kind in ("zeros", "ones"):
        return np.full(shape, kind == "ones" and tensor.below != 1, dtype)
    if dtype.kind in "iu":
        low, high = _range(tensor, dtype)
        return np.full(shape, high, dtype) if kind == "large" else rng.integers(low, high + 1, shape).astype(dtype)
    if kind == "uniform":
        return rng.random(shape).astype(dtype)
    return (rng.standard_normal(shape) * {"small": 1e-3, "large": 10.0}.get(kind, 1.0)).astype(dtype)


def _known(rng: Generator, tensor: Tensor, shape: list[int], kind: str) -> Any:
    """Values that the input knows, among texts one in four that it does not, at the edges none that it does."""
    import numpy as np

    size = math.prod(shape)
    dtype = np.dtype(np.str_ if tensor.dtype == "str" else tensor.dtype)
    known = [tensor.values[place] for place in rng.integers(0, len(tensor.values), size)] if tensor.values else []
    if tensor.closed or tensor.dtype != "str":
        return np.array([float(one) if dtype.kind == "f" else one for one in known], dtype).reshape(shape)
    edge = _TEXTS.get(kind)
    if edge is not None:
        return np.array([edge] * size, dtype).reshape(shape)
    drawn = [" ".join(rng.choice(_WORDS, rng.integers(1, 8))) for _ in range(size)]
    fresh = rng.random(size) < (0.25 if known else 1.0)
    return np.array([drawn[at] if fresh[at] else known[at] for at in range(size)], dtype).reshape(shape)


def _range(tensor: Tensor, dtype: Any) -> tuple[int, int]:
    import numpy as np

    limits = np.iinfo(dtype)
    if tensor.below is not None:
        return 0, min(tensor.below - 1, int(limits.max))
    if "mask" in tensor.name or "type" in tensor.name:
        return 0, 1
    return (int(limits.min), int(limits.max)) if dtype.itemsize == 1 else (0, _BELOW - 1)


def write(path: str, arrays: Arrays) -> None:
    """Save arrays as .npz without pickling, the same bytes for the same arrays; strings as fixed-width unicode."""
    import numpy as np

    with zipfile.ZipFile(path, "w") as archive:
        for name, one in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                plain = np.asarray(one, dtype=str) if one.dtype == object else np.asarray(one)
                np.lib.format.write_array(member, plain, allow_pickle=False)


def read(path: str) -> dict[str, Any]:
    """Load arrays; a file that holds anything else, or is none, is refused."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (
        ValueError,
        OSError,
        EOFError,
        KeyError,
        TypeError,
        AttributeError,
        zlib.error,
        zipfile.BadZipFile,
    ) as error:
        raise Rejected("not_arrays", f"Not a file of plain arrays: {error}") from error


def settle(
    predict: Predictor, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor], Forward, list[str]]:
    """Run the model once, and once more with twice the batch where that is said to be free.

    Gives back inputs and outputs with what was learned (a batch axis that is not free after all is fixed), the
    run itself and warnings. `nan_output` is refused.
    """
    batch = next((one.example[0] for one in inputs if one.batched), 1)
    predict(draw(inputs, batch=batch, kind="normal"))
    arrays = draw(inputs, batch=batch, kind="normal")  # drawn again, for there are models that write into their inputs
    started = time.perf_counter()
    once = predict(arrays)
    seconds = time.perf_counter() - started
    refuse_nan(once)
    warnings: list[str] = []
    twice = None
    if any(one.batched for one in inputs):
        try:
            twice = predict(draw(inputs, batch=2 * batch, kind="normal"))
        except Rejected as error:
            warnings.append(f"The batch size is fixed at {batch}: a batch of {2 * batch} fails ({error.message})"[:900])
        else:
            fixed = [
                name for name, one in once.items() if one.shape[:1] != (batch,) or twice[name].shape[:1] != (2 * batch,)
            ]
            if fixed:
                warnings.append(f"The batch size is fixed at {batch}: {', '.join(fixed)} does not grow with it."[:900])
                twice = None
    settled = [_fixed(one) if twice is None else one for one in inputs]
    found = {one.name: one for one in outputs}
    shapes = [
        Tensor(
            name=name,
            dtype=_dtype(one),
            shape=_varying(one.shape, None if twice is None else twice[name].shape),
            example=list(one.shape),
        )
        for name, one in once.items()
    ]
    return (
        settled,
        [found.get(one.name, one) if twice is not None else one for one in shapes],
        Forward(
            seconds=seconds, outputs=[Tensor(name=one.name, dtype=one.dtype, shape=[*one.example]) for one in shapes]
        ),
        warnings,
    )


def refuse_nan(outputs: Arrays) -> None:
    """Raise `Rejected` where an output holds NaN or an infinity."""
    import numpy as np

    for name, one in outputs.items():
        if one.dtype.kind == "f" and not np.isfinite(one).all():
            bad = int(one.size - np.isfinite(one).sum())
            raise Rejected(
                "nan_output",
                f"Output {name} has {bad} NaN or infinite values of {one.size} ({shown(one.shape)}) on ordinary inputs.",
                output=name,
                values=bad,
                of=int(one.size),
            )


def _fixed(tensor: Tensor) -> Tensor:
    shape = tensor.shape and [tensor.example[0], *tensor.shape[1:]]
    return tensor.model_copy(update={"shape": shape if tensor.batched else tensor.shape})


def _varying(once: Sequence[int], twice: Sequence[int] | None) -> list[int | None]:
    if twice is None or len(twice) != len(once):
        return list(once)
    return [one if one == other else None for one, other in zip(once, twice, strict=True)]


def _dtype(array: Any) -> str:
    return "str" if array.dtype.kind in "OUS" else str(array.dtype)
