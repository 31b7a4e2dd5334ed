"""Small Keras networks, trained on the bundled digits where there is something to learn.

Keras takes its backend from the environment when it is first imported: each is made by a program of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from tests.zoo import Sample
from tests.zoo.sklearn import digits

_BEGIN = """
import sys
import keras, numpy
from keras import layers
keras.utils.set_random_seed(0)
data = numpy.load(sys.argv[1])
def trained(model, images, epochs, rate=0.001):
    model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=LOGITS))
    model.fit(images, data["labels"], epochs=epochs, batch_size=64, verbose=0)
    return model
"""

_DENSE = """
LOGITS = False
model = keras.Sequential([
    layers.Input((64,), name="pixels"), layers.Rescaling(1 / 16), layers.Dense(48, "relu"), layers.Dropout(0.1),
    layers.Dense(10, "softmax"),
])
trained(model, data["images"], 6, rate=0.01).save(sys.argv[2])
"""

_CNN = """
LOGITS = True
model = keras.Sequential([
    layers.Input((8, 8, 1), name="image"), layers.Rescaling(1 / 16), layers.Conv2D(8, 3, padding="same"),
    layers.BatchNormalization(), layers.ReLU(), layers.MaxPooling2D(), layers.Flatten(), layers.Dense(10),
])
trained(model, data["images"].reshape(-1, 8, 8, 1), 30).save(sys.argv[2])
"""

_ATTENTION = """
LOGITS = False
rows = layers.Input((8, 8), name="rows")
seen = layers.MultiHeadAttention(2, 8)(rows, rows)
seen = layers.LayerNormalization()(layers.Add()([seen, rows]))
model = keras.Model(rows, layers.Dense(10, "softmax")(layers.Flatten()(seen)))
trained(model, data["images"].reshape(-1, 8, 8) / 16, 8).save(sys.argv[2])
"""

CUSTOM = """
class Doubling(layers.Layer):
    def call(self, x):
        return 2 * x
keras.Sequential([layers.Input((4,)), Doubling()]).save(sys.argv[2])
"""

LAMBDA = """
keras.Sequential([layers.Input((4,)), layers.Lambda(lambda x: 2 * x)]).save(sys.argv[2])
"""

WEIGHTS = """
keras.Sequential([layers.Input((4,)), layers.Dense(3)]).save_weights(sys.argv[2])
"""


def made(program: str, filename: str, folder: Path) -> Path:
    """Run a program that saves a model at the path it is given."""
    import numpy as np

    images, _, labels, _ = digits()
    np.savez(folder / "training.npz", images=images.astype(np.float32), labels=labels)
    path = folder / filename
    environment = {**os.environ, "KERAS_BACKEND": "torch", "KERAS_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", _BEGIN + program, str(folder / "training.npz"), str(path)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return path


def _held_out(name: str, shape: tuple[int, ...], folder: Path) -> Path:
    import numpy as np

    _, images, _, labels = digits()
    path = folder / "held-out.npz"
    np.savez(path, **{name: images.reshape(-1, *shape).astype(np.float32)}, labels=labels)
    return path


SAMPLES = (
    Sample(
        name="keras-dense",
        format="keras",
        filename="dense.keras",
        make=partial(made, _DENSE, "dense.keras"),
        calibration=partial(_held_out, "pixels", (64,)),
    ),
    Sample(
        name="keras-cnn",
        format="keras",
        filename="cnn.h5",
        make=partial(made, _CNN, "cnn.h5"),
        calibration=partial(_held_out, "image", (8, 8, 1)),
        slow=True,
    ),
    Sample(
        name="keras-attention",
        format="keras",
        filename="attention.keras",
        make=partial(made, _ATTENTION, "attention.keras"),
        slow=True,
    ),
)
