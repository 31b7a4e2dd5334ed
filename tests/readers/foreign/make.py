"""Write models.zip, the files of frameworks that are not installed where the tests run: `python make.py`.

Needs tensorflow-cpu 2.21, tf_keras 2.21, keras 3.15 and h5py 3.14. Under `benign/` is what these frameworks write for
ordinary models, under `hostile/` what they write when asked for something that must not get in; no payload does harm.
"""

import io
import os
import pickle
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import h5py
import keras
import numpy as np
import tensorflow as tf
import tf_keras
from keras import layers
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

RANDOM = np.random.default_rng(0)


def double(x: object) -> object:
    return x * 2


# Compiled code names the file it came from: not the one on this machine.
double.__code__ = double.__code__.replace(co_filename="model.py", co_name="<lambda>")
double.__name__ = double.__qualname__ = "<lambda>"


def packed(folder: Path, target: Path, root: str = "") -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, f"{root}{path.relative_to(folder)}")


def keras_models() -> dict[str, object]:
    first, second = keras.Input((10,), name="first"), keras.Input((10,), name="second")
    x = layers.Concatenate()([layers.Add()([layers.Dense(10)(first), second]), layers.Multiply()([first, second])])
    x = keras.ops.mean(keras.ops.reshape(keras.ops.relu(x) + 1.0, (-1, 4, 5))[:, 1:, ...], axis=1)
    joined = keras.Model([first, second], {"p": layers.Dense(1, name="p")(x), "q": layers.Dense(2, name="q")(x)})
    joined.compile(
        "adam",
        loss={"p": "mse", "q": "categorical_crossentropy"},
        metrics={"p": ["mae"], "q": [keras.metrics.AUC(num_thresholds=5)]},
    )
    image = keras.Input((12, 12, 3))
    y = layers.Conv2D(4, 3, kernel_regularizer=keras.regularizers.L1L2(0.1, 0.2))(image)
    y = layers.GlobalAveragePooling2D()(layers.MaxPooling2D()(layers.ReLU()(layers.BatchNormalization()(y))))
    small = keras.Model(image, layers.Dense(2, activation=keras.activations.gelu, kernel_constraint="max_norm")(y))
    small.compile(keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(1e-3, 100)), keras.losses.Huber())
    outer = keras.Input((12, 12, 3))
    tokens = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(20, 4, mask_zero=True),
            layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
            layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], return_sequences=True),
            layers.TimeDistributed(layers.Dense(3)),
        ]
    )
    quantised = keras.Sequential([keras.Input((8,)), layers.Dense(8), layers.Dense(4)])
    quantised.quantize("int8")
    half = [layers.Dense(4, dtype="mixed_float16"), layers.Dense(4, dtype="bfloat16"), layers.Activation("gelu")]
    words = [layers.StringLookup(vocabulary=["a", "b/c", "/cat"]), layers.Embedding(6, 2), layers.Flatten()]
    text = layers.TextVectorization(vocabulary=["a", "bc", "cat"], output_sequence_length=4)
    attended = keras.Input((6, 8))
    return {
        "joined": joined,
        "convolution": small,
        "nested": keras.Model(outer, layers.Dense(1)(small(outer))),
        "tokens": tokens,
        "attention": keras.Model(
            attended, layers.LayerNormalization()(layers.MultiHeadAttention(2, 4)(attended, attended))
        ),
        "quantised": quantised,
        "half": keras.Sequential([keras.Input((4,)), *half]),
        "words": keras.Sequential([keras.Input((1,), dtype="string"), *words]),
        "text": keras.Sequential([keras.Input((1,), dtype="string"), text, layers.Embedding(6, 2)]),
        "many": keras.Sequential(
            [keras.Input((2,)), *(layers.Dense(2, name=f"a_rather_long_name_{n}") for n in range(30))]
        ),
    }


def old_keras(benign: Path, hostile: Path, folder: Path) -> None:
    model = tf_keras.Sequential(
        [tf_keras.layers.Dense(4, "relu"), tf_keras.layers.BatchNormalization(), tf_keras.layers.Dense(2)]
    )
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(RANDOM.random((8, 8)), RANDOM.random((8, 2)), verbose=0)
    x = tf_keras.Input((4,))
    operators = tf_keras.Model(x, tf.reshape(tf.nn.relu(tf_keras.layers.Dense(4)(x)) + x, (-1, 2, 2))[:, 0])
    for name, one in {"keras2": model, "keras2_operators": operators}.items():
        one.save(benign / f"{name}.h5")
        one.save(benign / f"{name}.keras")
    model.save(folder / "keras2", save_format="tf")
    packed(folder / "keras2", benign / "keras2_saved.zip")
    layer = tf_keras.Sequential([tf_keras.Input((8,)), tf_keras.layers.Lambda(double)])
    layer.save(hostile / "keras2_lambda.h5")
    layer.save(hostile / "keras2_lambda.keras")
    layer.save(folder / "keras2_lambda", save_format="tf")
    packed(folder / "keras2_lambda", hostile / "keras2_lambda_saved.zip")


class Module(tf.Module):
    def __init__(self, vocabulary: Path) -> None:
        super().__init__()
        self.w = tf.Variable(tf.ones((3, 2)), name="w")
        pairs = tf.lookup.KeyValueTensorInitializer(["a", "b"], [1, 2])
        self.table = tf.lookup.StaticHashTable(pairs, -1)
        lines = (tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER)
        self.lines = tf.lookup.StaticHashTable(tf.lookup.TextFileInitializer(str(vocabulary), *lines), -1)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32)])
    def __call__(self, x: object) -> object:
        i = tf.constant(0)
        while i < 3:
            x = x + 1.0
            i += 1
        if tf.reduce_sum(x) > 0:
            x = x * 2
        return tf.matmul(x, self.w)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def look(self, x: object) -> object:
        return tf.cast(self.table.lookup(x), tf.int64) + self.lines.lookup(x)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def image(self, x: object) -> object:
        return tf.map_fn(
            lambda one: tf.image.resize(tf.io.decode_jpeg(one, channels=3), [8, 8]), x, fn_output_signature=tf.float32
        )


def saved_models(models: dict[str, object], benign: Path, hostile: Path, folder: Path) -> None:
    for name in ("convolution", "attention"):
        models[name].export(folder / name, verbose=False)
        packed(folder / name, benign / f"{name}_export.zip", f"{name}/")
    vocabulary = folder / "vocabulary.txt"
    vocabulary.write_text("a\nb\n")
    module = Module(vocabulary)
    tf.saved_model.save(
        module, folder / "module", {"serving_default": module.__call__, "look": module.look, "image": module.image}
    )
    packed(folder / "module", benign / "module_saved.zip")
    old = tf.compat.v1
    with old.Graph().as_default(), old.Session() as session:
        x = old.placeholder(tf.float32, [None, 3], "x")
        y = tf.matmul(x, old.get_variable("w", [3, 2], use_resource=False), name="y")
        session.run(old.global_variables_initializer())
        old.saved_model.simple_save(session, str(folder / "v1"), {"x": x}, {"y": y})
        frozen = old.graph_util.convert_variables_to_constants(session, session.graph.as_graph_def(), ["y"])
        (benign / "frozen_v1.pb").write_bytes(frozen.SerializeToString())
    packed(folder / "v1", benign / "v1_saved.zip")
    model = models["convolution"]
    function = tf.function(lambda x: tf.identity(model(x))).get_concrete_function(
        tf.TensorSpec([None, 12, 12, 3], tf.float32)
    )
    graph = convert_variables_to_constants_v2(function).graph.as_graph_def()
    (benign / "frozen.pb").write_bytes(graph.SerializeToString())

    text = tf.TensorSpec([], tf.string)
    calls = {
        "read_file": tf.function(lambda name: tf.identity(tf.io.read_file(name)), [text]),
        "write_file": tf.function(lambda name: (tf.io.write_file(name, "x"), name)[1], [text]),
        "matching": tf.function(lambda name: tf.identity(tf.io.matching_files(name)), [text]),
        "python": tf.function(lambda name: tf.py_function(lambda one: one, [name], tf.string), [text]),
        "numpy": tf.function(lambda name: tf.numpy_function(lambda one: one, [name], tf.string), [text]),
        "save": tf.function(
            lambda name: (
                tf.raw_ops.SaveV2(prefix=name, tensor_names=["a"], shape_and_slices=[""], tensors=[1.0]),
                name,
            )[1],
            [text],
        ),
        "restore": tf.function(
            lambda name: tf.raw_ops.RestoreV2(
                prefix=name, tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
            ),
            [text],
        ),
        "printing": tf.function(
            lambda name: (tf.raw_ops.PrintV2(input=name, output_stream="file:///tmp/slipway-canary"), name)[1], [text]
        ),
        "dataset": tf.function(lambda name: tf.data.TextLineDataset(name).reduce(0, lambda n, _: n + 1), [text]),
    }
    for name, call in calls.items():
        module = tf.Module()
        module.call = call
        tf.saved_model.save(module, folder / f"op_{name}")
        packed(folder / f"op_{name}", hostile / f"op_{name}.zip")
        (hostile / f"op_{name}.pb").write_bytes(call.get_concrete_function().graph.as_graph_def().SerializeToString())


def lite(models: dict[str, object], benign: Path, hostile: Path) -> None:
    for name in ("convolution", "attention"):
        for kind in ("float", "dynamic", "half", "int8"):
            model = models[name]
            converter = tf.lite.TFLiteConverter.from_keras_model(model)
            converter.optimizations = [] if kind == "float" else [tf.lite.Optimize.DEFAULT]
            if kind == "half":
                converter.target_spec.supported_types = [tf.float16]
            if kind == "int8":
                shape = [1, *model.input_shape[1:]]
                converter.representative_dataset = lambda shape=shape: (
                    [RANDOM.random(shape, np.float32)] for _ in range(3)
                )
            (benign / f"{name}_{kind}.tflite").write_bytes(converter.convert())
    fused = keras.Sequential([keras.Input((6, 4), batch_size=1), layers.LSTM(4), layers.Dense(2)])
    (benign / "lstm.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(fused).convert())
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Sequential([keras.Input((4,)), layers.Lambda(tf.sinh)]))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    (hostile / "flex.tflite").write_bytes(converter.convert())
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Sequential([keras.Input((4,)), layers.Lambda(tf.sinh)]))
    converter.allow_custom_ops = True
    (hostile / "custom.tflite").write_bytes(converter.convert())


class Payload:
    def __reduce__(self) -> object:
        return os.system, ("touch /tmp/slipway-canary",)


def hdf5(benign: Path, hostile: Path) -> None:
    with h5py.File(benign / "plain.h5", "w") as f:
        for name, value in {
            "text": "naïve",
            "bytes": b"b",
            "list": ["a", "bb"],
            "bool": True,
            "numbers": np.arange(5),
            "none": h5py.Empty("f"),
        }.items():
            f.attrs[name] = value
        for name, value in {
            "float": RANDOM.random((10, 3)),
            "scalar": 3.5,
            "bool": np.array([True, False]),
            "complex": np.ones(3, complex),
            "half": np.ones(4, np.float16),
            "empty": np.zeros((0, 3)),
            "big": np.ones(3, ">f4"),
            "texts": ["x", "yy"],
            "fixed": np.array([b"ab", b"c"]),
            "records": np.zeros(3, [("a", "f4"), ("b", "i4", (2,))]),
        }.items():
            f[name] = value
        f.create_group("g/h/i")["deep"] = 1
    with h5py.File(benign / "chunked.h5", "w") as f:
        f.create_dataset(
            "packed", data=RANDOM.random((60, 77)), chunks=(32, 32), compression="gzip", shuffle=True, fletcher32=True
        )
        f.create_dataset("zeros", data=np.zeros((100, 100)), chunks=(50, 50), compression="gzip")
        grown = f.create_dataset("grown", (10, 4), maxshape=(None, 4), chunks=(8, 4))
        grown.resize((300, 4))
        grown[:] = 1
        f.create_dataset("summed", data=np.arange(100), chunks=(10,), fletcher32=True)
    with h5py.File(benign / "edited.h5", "w") as f:
        for n in range(90):
            f[f"d{n}"] = RANDOM.random(20)
        for n in range(0, 90, 3):
            del f[f"d{n}"]
        for n in range(30):
            f.attrs[f"a{n}"] = "x" * n
            f.attrs[f"a{n}"] = "y" * n * 2
    with h5py.File(benign / "ordered.h5", "w", track_order=True) as f:
        f["a"] = np.ones(3)
        f.create_group("g", track_order=True)["b"] = np.ones(2)
    with h5py.File(benign / "latest.h5", "w", libver="latest") as f:
        f["a"] = np.ones(3)
        f.attrs["x"] = "abc"
    bad: dict[str, object] = {
        "soft_link": lambda f: f.__setitem__("a", h5py.SoftLink("/b")),
        "external_link": lambda f: f.__setitem__("a", h5py.ExternalLink("/etc/passwd", "/b")),
        "external_storage": lambda f: f.create_dataset("a", (100,), "u1", external=[("/etc/passwd", 0, 100)]),
        "bomb": lambda f: f.create_dataset("a", (1 << 40,), "f4"),
        "bomb_chunked": lambda f: f.create_dataset("a", (1 << 20, 1 << 20), "f4", chunks=(1024, 1024)),
        "bomb_packed": lambda f: f.create_dataset("a", data=np.zeros((2000, 2000)), compression="gzip", chunks=(2000, 2000)),
        "reference": lambda f: f.__setitem__("r", np.array([f.create_group("x").ref], h5py.ref_dtype)),
        "committed_type": lambda f: f.__setitem__("t", np.dtype("f8")),
        "plugin_filter": lambda f: f.create_dataset("d", data=np.ones(3000), compression="lzf"),
        "lists": lambda f: f.create_dataset("d", (3,), h5py.vlen_dtype("i4")),
        "pickle_attribute": lambda f: f.attrs.__setitem__("x", np.bytes_(pickle.dumps(Payload(), 0))),
        "pickle_opaque": lambda f: f.attrs.__setitem__("x", np.void(pickle.dumps(Payload()))),
        "pickle_dataset": lambda f: f.__setitem__("x", np.frombuffer(pickle.dumps(Payload()), "u1")),
        "many_ordered": lambda f: [f["g"].create_group(f"x{n}") for n in range(30)] if f.create_group("g", track_order=True) else None,
    }  # fmt: skip
    for name, fill in bad.items():
        with h5py.File(hostile / f"{name}.h5", "w") as f:
            fill(f)
    with h5py.File(hostile / "virtual.h5", "w", libver="latest") as f:
        layout = h5py.VirtualLayout((10,), "f4")
        layout[:] = h5py.VirtualSource("/etc/passwd", "x", (10,))
        f.create_virtual_dataset("v", layout)
    with h5py.File(hostile / "user_block.h5", "w", userblock_size=512) as f:
        f["a"] = 1
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as inner:
        inner.writestr("a", "b")
    tail = archive.getvalue()
    with h5py.File(hostile / "zip_inside.h5", "w") as f:
        f["z"] = np.frombuffer(tail + bytes(-len(tail) % 8), "f8")


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    benign, hostile = folder / "files/benign", folder / "files/hostile"
    benign.mkdir(parents=True)
    hostile.mkdir()
    models = keras_models()
    for name, model in models.items():
        model.save(benign / f"{name}.keras")
        model.save(benign / f"{name}.h5")
        model.save_weights(benign / f"{name}.weights.h5")
    layer = keras.Sequential([keras.Input((8,)), layers.Lambda(double)])
    layer.save(hostile / "lambda.keras")
    layer.save(hostile / "lambda.h5")
    old_keras(benign, hostile, folder)
    saved_models(models, benign, hostile, folder)
    lite(models, benign, hostile)
    hdf5(benign, hostile)
    with zipfile.ZipFile(Path(sys.argv[0]).with_name("models.zip"), "w", zipfile.ZIP_LZMA) as archive:
        for path in sorted((folder / "files").rglob("*.*")):
            archive.write(path, path.relative_to(folder / "files"))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
