"""Networks made with Keras on TensorFlow, in the forms that TensorFlow writes: one trained on digits, one that is large.

They are made by a process of their own: Keras takes its backend once per process, and other families use another.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.zoo import Sample

CLASSES = [str(digit) for digit in range(10)]
HELD_OUT = 397
_ROOT = Path(__file__).parents[2]
_ENVIRONMENT = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}


@functools.cache
def _made(family: str) -> Path:
    """A folder with everything that one of the functions below writes; it lives as long as this process."""
    folder = tempfile.TemporaryDirectory(prefix="slipway-zoo-")
    _KEPT.append(folder)
    command = [sys.executable, "-m", __name__, family, folder.name]
    done = subprocess.run(
        command, cwd=_ROOT, env=os.environ | _ENVIRONMENT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    return Path(folder.name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def _copy(family: str, name: str, folder: Path) -> Path:
    return Path(shutil.copyfile(_made(family) / name, folder / name))


def _sample(name: str, format_: str, filename: str, *, calibration: str = "digits-samples.npz", **more: Any) -> Sample:
    family = more.pop("family", "digits")
    return Sample(
        name=name,
        format=format_,
        filename=filename,
        make=functools.partial(_copy, family, filename),
        calibration=functools.partial(_copy, family, calibration) if family == "digits" else None,
        extra="tensorflow",
        **more,
    )


SAMPLES = (
    _sample("tensorflow-digits-saved-model", "saved_model", "digits-saved.zip", declared={"classes": CLASSES}),
    _sample("tensorflow-digits-frozen", "tensorflow_graph", "digits-frozen.pb", declared={"classes": CLASSES}),
    _sample("tensorflow-digits-lite", "tflite", "digits-float.tflite", declared={"classes": CLASSES}),
    _sample(
        "tensorflow-digits-lite-int8",
        "tflite",
        "digits-int8.tflite",
        calibration="digits-samples-int8.npz",
        declared={"classes": CLASSES},
    ),
    _sample("tensorflow-mobilenet", "saved_model", "mobilenet.zip", family="mobilenet", slow=True),
)


def write_digits(folder: Path) -> None:
    """Train a small convolutional network on the bundled digits and save it in every form, with samples held out."""
    import keras
    import numpy as np
    import tensorflow as tf
    from sklearn.datasets import load_digits
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    digits = load_digits()
    images, labels = (digits.images / 16).astype(np.float32)[..., None], digits.target
    keras.utils.set_random_seed(20)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, name="scores"),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images[:-HELD_OUT], labels[:-HELD_OUT], epochs=12, batch_size=32, verbose=0)
    held, answers = images[-HELD_OUT:], labels[-HELD_OUT:]
    np.savez(folder / "digits-samples.npz", image=held, labels=answers)

    model.export(folder / "saved", verbose=False)
    _pack(folder / "saved", folder / "digits-saved.zip")
    signature = tf.TensorSpec([None, 8, 8, 1], tf.float32, name="image")
    call = tf.function(lambda image: tf.identity(model(image, training=False), name="digit")).get_concrete_function(
        signature
    )
    frozen = convert_variables_to_constants_v2(call).graph.as_graph_def()
    (folder / "digits-frozen.pb").write_bytes(frozen.SerializeToString())

    (folder / "digits-float.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([one[None]] for one in images[:100])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    quantised = converter.convert()
    (folder / "digits-int8.tflite").write_bytes(quantised)
    scale, zero = tf.lite.Interpreter(model_content=quantised).get_input_details()[0]["quantization"]
    steps = np.clip(np.round(held / scale) + zero, -128, 127).astype(np.int8)
    np.savez(folder / "digits-samples-int8.npz", image=steps, labels=answers)


def write_mobilenet(folder: Path) -> None:
    """A MobileNetV2 with weights that mean nothing, as a SavedModel."""
    import keras

    keras.utils.set_random_seed(20)
    keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3)).export(folder / "saved", verbose=False)
    _pack(folder / "saved", folder / "mobilenet.zip")


def _pack(folder: Path, target: Path) -> None:
    shutil.make_archive(str(target.with_suffix("")), "zip", folder)


if __name__ == "__main__":
    {"digits": write_digits, "mobilenet": write_mobilenet}[sys.argv[1]](Path(sys.argv[2]))
