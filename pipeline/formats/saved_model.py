"""TensorFlow SavedModels packed as `.zip`: one signature of it, loaded only in a sandbox child after a clean scan."""

from __future__ import annotations

import math
import re
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import Rejected
from pipeline.foreign import blame
from pipeline.formats import Format, Glimpse
from pipeline.formats.onnx import EXPORT_OPSET
from pipeline.signature import in_form
from pipeline.stage import Json
from pipeline.trial import Arrays, Predictor
from pipeline.unpacking import unpack

SIGNATURE = "serving_default"
MODEL = "saved_model.pb"
_MEMBER = re.compile(r"saved_model\.pb|fingerprint\.pb|keras_metadata\.pb|(?:variables|assets|assets\.extra)(?:/.*)?")


@in_form
def inspect(model: str, declared: Json) -> Json:
    """Load the model, read the signature that serves, compare it with what was declared and run it once."""
    from pipeline.tensorflow_models import described, tensor

    loaded, name = _open(_folder(model), declared)
    signature = loaded.signatures[name]
    inputs = [tensor(key, spec) for key, spec in sorted(signature.structured_input_signature[1].items())]
    return described(
        _predictor(loaded, name),
        inputs,
        declared,
        producer=f"TensorFlow {loaded.tensorflow_version}",
        parameters=sum(math.prod(one.shape) for one in signature.variables) or None,
        notes={"signature": name, "signatures": ", ".join(sorted(loaded.signatures))[:1000]},
    )


def load(model: str, inputs: Json, declared: Json) -> Predictor:
    """Open the model for running its signature on arrays."""
    return _predictor(*_open(_folder(model), declared))


def export(model: str, destination: str, exporter: str, inputs: Json, outputs: Json, declared: Json) -> Json:
    """Freeze the signature and write it with tf2onnx; tables of words become part of the graph."""
    from pipeline.tensorflow_models import write_onnx

    folder = _folder(model)
    _, name = _open(folder, declared)
    with blame("conversion_failed", "Freezing the signature"):
        from tf2onnx.tf_loader import from_saved_model

        graph, given, wanted, tables, names = from_saved_model(
            str(_root(folder)),
            None,
            None,
            tag=["serve"],
            signatures=[name],
            return_initialized_tables=True,
            return_tensors_to_rename=True,
        )
    write_onnx(
        destination,
        names=names,
        opset=EXPORT_OPSET,
        graph=graph,
        input_names=given,
        output_names=wanted,
        initialized_tables=tables,
    )
    return {}


def belongs(name: str) -> bool:
    """Whether a file of this name, as seen from the folder of a SavedModel, is one of its own."""
    return _MEMBER.fullmatch(name) is not None


def _open(folder: Path, declared: Json) -> tuple[Any, str]:
    """The loaded model and the name of the signature that is served."""
    from pipeline.tensorflow_models import tensorflow

    tf = tensorflow()
    with blame("not_loadable", "Loading the SavedModel"):
        loaded = tf.saved_model.load(str(_root(folder)), tags=["serve"])
    found = sorted(name for name in loaded.signatures if not name.startswith("_"))
    wanted = (declared.get("config") or {}).get("signature")
    name = wanted or (SIGNATURE if SIGNATURE in found else found[0] if len(found) == 1 else None)
    if name is None or name not in found:
        raise Rejected(
            "no_signature",
            f"The SavedModel has {f'no signature {name!r}' if name else f'no {SIGNATURE}'}: it has "
            f"{', '.join(found) or 'none'}. Name the one to serve as `signature` in the config.",
            found=found,
        )
    return loaded, name


def _predictor(loaded: Any, name: str) -> Predictor:
    """Runs the signature. Holds `loaded`, because a signature does not keep its variables alive."""
    from pipeline.tensorflow_models import tensorflow

    tf = tensorflow()

    def predict(arrays: Arrays) -> dict[str, Any]:
        with blame("forward_failed", "Running the model"):
            found = loaded.signatures[name](**{key: tf.constant(one) for key, one in arrays.items()})
            return {key: found[key].numpy() for key in sorted(found)}

    return predict


def _folder(model: str) -> Path:
    """The archive unpacked; a folder is taken as it is."""
    return Path(model) if Path(model).is_dir() else unpack(model)


def _root(folder: Path) -> Path:
    found = sorted(folder.rglob(MODEL))
    if len(found) != 1:
        raise Rejected("not_loadable", f"The archive holds {len(found)} files called {MODEL}; one is wanted.")
    return found[0].parent


def _recognises(glimpse: Glimpse) -> bool:
    """A SavedModel and nothing else, at the root or in the archive's only folder."""
    roots = {name.removesuffix(MODEL) for name in glimpse.members if PurePosixPath(name).name == MODEL}
    if len(roots) != 1:
        return False
    root = roots.pop()
    return all(belongs(name.removeprefix(root)) or root.startswith(name) for name in glimpse.members)


FORMAT = Format(
    name="saved_model",
    title="TensorFlow SavedModel",
    extensions=(".zip",),
    recognises=_recognises,
    extra="tensorflow",
    runtime="tensorflow",
)
