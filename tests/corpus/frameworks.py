"""Files as the frameworks write them, in every form that a scanner has been seen to cry wolf about."""

from __future__ import annotations

import bz2
import functools
import gzip
import importlib
import io
import json
import lzma
import pickle
import tarfile
import tempfile
import warnings
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID

from tests.corpus import Sample, torch_files
from tests.corpus.containers import zipped


class Later:
    """A module that is imported when something is asked of it, so that naming the samples costs nothing."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


np = Later("numpy")
torch = Later("torch")
nn = Later("torch.nn")
onnx = Later("onnx")
helper = Later("onnx.helper")
joblib = Later("joblib")
sparse = Later("scipy.sparse")
safe_numpy = Later("safetensors.numpy")
safe_torch = Later("safetensors.torch")
models = Later("tests.readers.model_files")
modules = Later("tests.readers.script_modules")
calibration = Later("sklearn.calibration")
cluster = Later("sklearn.cluster")
compose = Later("sklearn.compose")
decomposition = Later("sklearn.decomposition")
discriminant_analysis = Later("sklearn.discriminant_analysis")
ensemble = Later("sklearn.ensemble")
feature_extraction = Later("sklearn.feature_extraction")
feature_selection = Later("sklearn.feature_selection")
gaussian_process = Later("sklearn.gaussian_process")
impute = Later("sklearn.impute")
isotonic = Later("sklearn.isotonic")
kernel_approximation = Later("sklearn.kernel_approximation")
linear_model = Later("sklearn.linear_model")
mixture = Later("sklearn.mixture")
model_selection = Later("sklearn.model_selection")
multiclass = Later("sklearn.multiclass")
naive_bayes = Later("sklearn.naive_bayes")
neighbors = Later("sklearn.neighbors")
neural_network = Later("sklearn.neural_network")
pipeline = Later("sklearn.pipeline")
preprocessing = Later("sklearn.preprocessing")
svm = Later("sklearn.svm")
tree = Later("sklearn.tree")

_Rows = Iterator[tuple[str, str, Callable[[], bytes]]]


def samples() -> Iterator[Sample]:
    for framework, rows in (
        ("pickle", _data()),
        ("sklearn", _sklearn()),
        ("numpy", _numpy()),
        ("scipy", _scipy()),
        ("torch", _torch()),
        ("export", _exports()),
        ("onnx", _onnx()),
        ("safetensors", _safetensors()),
        ("text", _texts()),
        ("package", _packages()),
    ):
        for name, filename, make in rows:
            yield Sample(
                name=f"{framework}: {name}",
                attack=framework,
                why="as its framework writes it",
                make=quietly(make),
                filename=filename,
            )


def quietly(make: Callable[[], bytes]) -> Callable[[], bytes]:
    def made() -> bytes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # frameworks announce what they will drop; files of today stay
            return make()

    return made


def written(save: Callable[[Path], object], name: str = "model") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        save(path)
        return path.read_bytes()


def _data() -> _Rows:
    data = {
        "numbers": [1, -1, 2**70, 1.5, True, None, complex(1, 2)],
        "text": ["naïve", "", "x" * 3000],
        "bytes": [b"", b"\x80\x04." * 100, bytearray(b"abc")],
        "sets": [{1, 2}, frozenset({"a"})],
        "nested": {"a": {"b": ({"c": [1]},)}},
        "shared": [[1]] * 3,
    }
    more = {
        "ordered": OrderedDict(a=1, b=OrderedDict(c=2)),
        "counts": Counter("banana"),
        "queue": deque([1, 2], maxlen=5),
        "default": defaultdict(list, {"a": [1]}),
        "when": [datetime(2026, 1, 2, tzinfo=UTC), date(2026, 1, 2), timedelta(seconds=3)],
        "exact": [Decimal("1.5"), Fraction(1, 3)],
        "id": UUID(int=5),
        "slice": slice(1, 2),
        "range": range(5),
    }
    for protocol in range(6):
        yield f"plain data, protocol {protocol}", "data.pkl", lambda protocol=protocol: pickle.dumps(data, protocol)
    yield "data of the standard library", "data.pkl", lambda: pickle.dumps(more)
    yield "data of the standard library, protocol 2", "data.pkl", lambda: pickle.dumps(more, 2)
    yield "several pickles", "data.pkl", lambda: pickle.dumps([1]) + pickle.dumps({"a": 2})
    yield "by the pickler in Python", "data.pkl", lambda: pickle._dumps(data, 4)  # type: ignore[attr-defined]
    yield "long lists", "data.pkl", lambda: pickle.dumps(list(range(100_000)))
    yield "labels", "labels.pkl", lambda: pickle.dumps({index: f"class {index}" for index in range(1000)})


def _estimators() -> Iterator[tuple[str, Callable[[], Any]]]:
    @functools.cache
    def digits() -> Any:
        from sklearn.datasets import load_digits

        found = load_digits()
        return found.data[:300], found.target[:300]

    def fitted(make: Callable[[], Any], **more: Any) -> Callable[[], Any]:
        def fit() -> Any:
            x, y = digits()
            return make().fit(x, more.get("y", y))

        return fit

    few = {"n_estimators": 3, "random_state": 0}
    yield "LogisticRegression", fitted(lambda: linear_model.LogisticRegression(max_iter=20))
    yield "SGDClassifier", fitted(lambda: linear_model.SGDClassifier(max_iter=5))
    yield "Ridge", fitted(lambda: linear_model.Ridge())
    yield "Lasso", fitted(lambda: linear_model.Lasso())
    yield "ElasticNetCV", fitted(lambda: linear_model.ElasticNetCV(cv=2, alphas=3))
    yield "LinearRegression", fitted(lambda: linear_model.LinearRegression())
    yield "PassiveAggressive-like Perceptron", fitted(lambda: linear_model.Perceptron(max_iter=5))
    yield "HuberRegressor", fitted(lambda: linear_model.HuberRegressor(max_iter=5))
    yield "PoissonRegressor", fitted(lambda: linear_model.PoissonRegressor(max_iter=5))
    yield "DecisionTreeClassifier", fitted(lambda: tree.DecisionTreeClassifier())
    yield "RandomForestClassifier", fitted(lambda: ensemble.RandomForestClassifier(**few))
    yield "ExtraTreesRegressor", fitted(lambda: ensemble.ExtraTreesRegressor(**few))
    yield "GradientBoostingClassifier", fitted(lambda: ensemble.GradientBoostingClassifier(**few, max_depth=2))
    yield "HistGradientBoostingClassifier", fitted(lambda: ensemble.HistGradientBoostingClassifier(max_iter=2))
    yield "AdaBoostClassifier", fitted(lambda: ensemble.AdaBoostClassifier(**few))
    yield "BaggingClassifier", fitted(lambda: ensemble.BaggingClassifier(**few))
    yield "IsolationForest", fitted(lambda: ensemble.IsolationForest(**few))
    yield (
        "VotingClassifier",
        fitted(
            lambda: ensemble.VotingClassifier([("a", naive_bayes.GaussianNB()), ("b", tree.DecisionTreeClassifier())])
        ),
    )
    yield "StackingClassifier", fitted(lambda: ensemble.StackingClassifier([("a", naive_bayes.GaussianNB())], cv=2))
    yield "SVC", fitted(lambda: svm.SVC(probability=False))
    yield "LinearSVC", fitted(lambda: svm.LinearSVC(max_iter=20))
    yield "OneClassSVM", fitted(lambda: svm.OneClassSVM())
    yield "KNeighborsClassifier, kd tree", fitted(lambda: neighbors.KNeighborsClassifier(algorithm="kd_tree"))
    yield "KNeighborsClassifier, ball tree", fitted(lambda: neighbors.KNeighborsClassifier(algorithm="ball_tree"))
    yield "LocalOutlierFactor", fitted(lambda: neighbors.LocalOutlierFactor(novelty=True))
    yield "GaussianNB", fitted(lambda: naive_bayes.GaussianNB())
    yield "MultinomialNB", fitted(lambda: naive_bayes.MultinomialNB())
    yield "MLPClassifier", fitted(lambda: neural_network.MLPClassifier(max_iter=2))
    yield (
        "GaussianProcessClassifier",
        fitted(
            lambda: gaussian_process.GaussianProcessRegressor(
                gaussian_process.kernels.RBF() + gaussian_process.kernels.WhiteKernel(), optimizer=None
            )
        ),
    )
    yield "LinearDiscriminantAnalysis", fitted(lambda: discriminant_analysis.LinearDiscriminantAnalysis())
    yield "KMeans", fitted(lambda: cluster.KMeans(3, n_init=1))
    yield "DBSCAN", fitted(lambda: cluster.DBSCAN())
    yield "Birch", fitted(lambda: cluster.Birch(n_clusters=3))
    yield "GaussianMixture", fitted(lambda: mixture.GaussianMixture(2, reg_covar=1.0))
    yield "PCA", fitted(lambda: decomposition.PCA(3))
    yield "TruncatedSVD", fitted(lambda: decomposition.TruncatedSVD(3))
    yield "NMF", fitted(lambda: decomposition.NMF(2, max_iter=5))
    yield "StandardScaler", fitted(lambda: preprocessing.StandardScaler())
    yield "MinMaxScaler", fitted(lambda: preprocessing.MinMaxScaler())
    yield "OneHotEncoder", fitted(lambda: preprocessing.OneHotEncoder())
    yield "OrdinalEncoder of text", lambda: preprocessing.OrdinalEncoder().fit(np.array([["a"], ["b"]], dtype=object))
    yield "LabelEncoder", lambda: preprocessing.LabelEncoder().fit(["cat", "dog"])
    yield "PolynomialFeatures", fitted(lambda: preprocessing.PolynomialFeatures())
    yield "QuantileTransformer", fitted(lambda: preprocessing.QuantileTransformer(n_quantiles=10))
    yield (
        "KBinsDiscretizer",
        fitted(lambda: preprocessing.KBinsDiscretizer(3, encode="ordinal", quantile_method="averaged_inverted_cdf")),
    )
    yield "SimpleImputer", fitted(lambda: impute.SimpleImputer())
    yield "KNNImputer", fitted(lambda: impute.KNNImputer())
    yield "SelectKBest", fitted(lambda: feature_selection.SelectKBest(k=5))
    yield "VarianceThreshold", fitted(lambda: feature_selection.VarianceThreshold())
    yield "TfidfVectorizer", lambda: feature_extraction.text.TfidfVectorizer().fit(["a cat sat", "the dog ran"])
    yield "CountVectorizer", lambda: feature_extraction.text.CountVectorizer(ngram_range=(1, 2)).fit(["a cat sat"])
    yield "HashingVectorizer", lambda: feature_extraction.text.HashingVectorizer(n_features=16)
    yield "DictVectorizer", lambda: feature_extraction.DictVectorizer().fit([{"a": 1}])
    yield "IsotonicRegression", lambda: isotonic.IsotonicRegression().fit([1, 2, 3], [1, 3, 2])
    yield "Nystroem", fitted(lambda: kernel_approximation.Nystroem(n_components=4))
    yield "CalibratedClassifierCV", fitted(lambda: calibration.CalibratedClassifierCV(naive_bayes.GaussianNB(), cv=2))
    yield "OneVsRestClassifier", fitted(lambda: multiclass.OneVsRestClassifier(naive_bayes.GaussianNB()))
    yield (
        "Pipeline",
        fitted(
            lambda: pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression(max_iter=10))
        ),
    )
    yield (
        "ColumnTransformer",
        fitted(
            lambda: compose.ColumnTransformer([("a", preprocessing.StandardScaler(), [0, 1])], remainder="passthrough")
        ),
    )
    yield (
        "GridSearchCV",
        fitted(lambda: model_selection.GridSearchCV(naive_bayes.GaussianNB(), {"var_smoothing": [1e-9, 1e-8]}, cv=2)),
    )
    yield (
        "RandomizedSearchCV",
        fitted(
            lambda: model_selection.RandomizedSearchCV(
                tree.DecisionTreeClassifier(), {"max_depth": [1, 2, 3]}, n_iter=2, cv=2, random_state=0
            )
        ),
    )
    yield (
        "TransformedTargetRegressor",
        fitted(
            lambda: compose.TransformedTargetRegressor(linear_model.Ridge(), transformer=preprocessing.StandardScaler())
        ),
    )


def _sklearn() -> _Rows:
    def dumped(make: Callable[[], Any], **more: Any) -> bytes:
        buffer = io.BytesIO()
        joblib.dump(make(), buffer, **more)
        return buffer.getvalue()

    estimators = dict(_estimators())
    for number, (name, make) in enumerate(estimators.items()):
        protocol = 2 + number % 4
        yield (
            f"{name}, pickle {protocol}",
            "model.pkl",
            lambda make=make, protocol=protocol: pickle.dumps(make(), protocol),
        )
        yield f"{name}, joblib", "model.joblib", lambda make=make: dumped(make)
    forest = estimators["RandomForestClassifier"]
    for protocol in range(6):
        yield f"forest, pickle {protocol}", "model.pkl", lambda protocol=protocol: pickle.dumps(forest(), protocol)
    for method in ("zlib", "gzip", "bz2", "xz", "lzma"):
        yield f"forest, joblib {method}", "model.joblib", lambda method=method: dumped(forest, compress=(method, 3))
        yield (
            f"scaler, joblib {method}",
            "model.joblib",
            lambda method=method: dumped(estimators["StandardScaler"], compress=(method, 9)),
        )
    for protocol in (2, 3, 5):
        yield (
            f"pipeline, joblib, protocol {protocol}",
            "model.joblib",
            lambda protocol=protocol: dumped(estimators["Pipeline"], protocol=protocol),
        )
    yield (
        "dictionary of models, joblib",
        "model.joblib",
        lambda: dumped(
            lambda: {
                "model": estimators["PCA"](),
                "columns": ["a", "b"],
                "classes": estimators["LabelEncoder"]().classes_,
            }
        ),
    )


_ARRAYS = (
    "float32",
    "fortran",
    "integers",
    "booleans",
    "text",
    "bytes",
    "complex",
    "dates",
    "structured",
    "empty",
    "scalar shape",
    "big endian",
    "half",
)


def _arrays() -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {
        "float32": random.random((4, 3), dtype=np.float32),
        "fortran": np.asfortranarray(random.random((4, 3))),
        "integers": np.arange(10),
        "booleans": np.array([True, False]),
        "text": np.array(["a", "bc"]),
        "bytes": np.array([b"a", b"bc"]),
        "complex": np.array([1 + 2j]),
        "dates": np.array(["2026-01-01", "2026-01-02"], dtype="datetime64[D]"),
        "structured": np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        "empty": np.zeros((0, 3)),
        "scalar shape": np.array(3.5),
        "big endian": np.arange(4, dtype=">i2"),
        "half": np.ones(3, dtype=np.float16),
    }  # fmt: skip


def _numpy() -> _Rows:
    for name in _ARRAYS:
        yield f"npy of {name}", "x.npy", lambda name=name: written(lambda path: np.save(path, _arrays()[name]), "x.npy")
    for protocol in (0, 1, 2, 4, 5):
        yield (
            f"pickled arrays, protocol {protocol}",
            "x.pkl",
            lambda protocol=protocol: pickle.dumps(_arrays(), protocol),
        )
    yield "npz", "x.npz", lambda: written(lambda path: np.savez(path, **_arrays()), "x.npz")
    yield "npz, compressed", "x.npz", lambda: written(lambda path: np.savez_compressed(path, **_arrays()), "x.npz")
    yield (
        "pickled scalars",
        "x.pkl",
        lambda: pickle.dumps([np.float32(1), np.int64(2), np.bool_(True), np.str_("a"), np.datetime64("2026-01-01")]),
    )
    yield (
        "pickled types",
        "x.pkl",
        lambda: pickle.dumps({"dtype": np.dtype("f4"), "kind": np.float64, "masked": np.ma.array([1, 2], mask=[0, 1])}),
    )
    yield "pickled array of texts as objects", "x.pkl", lambda: pickle.dumps(np.array(["a", None, 1.5], dtype=object))
    yield "pickled random state", "x.pkl", lambda: pickle.dumps([np.random.RandomState(0), np.random.default_rng(1)])


def _scipy() -> _Rows:
    for kind in ("csr", "csc", "coo", "bsr", "dia", "lil", "dok"):
        yield f"{kind} matrix", "x.pkl", lambda kind=kind: pickle.dumps(sparse.csr_matrix(np.eye(4)).asformat(kind))
    yield "csr array", "x.pkl", lambda: pickle.dumps(sparse.csr_array(np.eye(4)), 2)
    yield (
        "npz of a sparse matrix",
        "x.npz",
        lambda: written(lambda path: sparse.save_npz(path, sparse.csr_matrix(np.eye(4))), "x.npz"),
    )


def _torch() -> _Rows:
    def saved(make: Callable[[], Any], **more: Any) -> Callable[[], bytes]:
        return lambda: written(lambda path: torch.save(make(), path, **more), "model.pt")

    def everything() -> dict[str, Any]:
        return {
            "float": torch.randn(3, 4),
            "half": torch.ones(3, dtype=torch.float16),
            "bfloat": torch.ones(3, dtype=torch.bfloat16),
            "float8": torch.ones(3).to(torch.float8_e4m3fn),
            "long": torch.arange(3),
            "bool": torch.tensor([True]),
            "complex": torch.ones(2, dtype=torch.complex64),
            "view": torch.randn(4, 4).t()[1:],
            "empty": torch.zeros(0),
            "scalar": torch.tensor(1.5),
            "sparse": torch.eye(3).to_sparse(),
            "parameter": nn.Parameter(torch.ones(2)),
            "size": torch.Size([1, 2]),
            "device": torch.device("cpu"),
            "dtype": torch.float32,
            "epoch": 7,
        }

    def checkpoint() -> dict[str, Any]:
        model = models.convnet().train()
        optimizer = torch.optim.AdamW(model.parameters())
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
        model(torch.randn(2, 1, 8, 8)).sum().backward()
        optimizer.step()
        schedule.step()
        return {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "epoch": 3,
            "rng": torch.get_rng_state(),
        }

    def layers() -> Any:
        return nn.ModuleDict(
            {
                "lstm": nn.LSTM(4, 4, batch_first=True),
                "attention": nn.MultiheadAttention(4, 2),
                "encoder": nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 1),
                "embedding": nn.Embedding(5, 4),
                "norm": nn.LayerNorm(4),
                "more": nn.ModuleList(
                    [nn.GELU(), nn.Dropout(), nn.Softmax(dim=1), nn.GroupNorm(2, 4), nn.Upsample(scale_factor=2)]
                ),
                "pool": nn.AdaptiveAvgPool2d(1),
                "transposed": nn.ConvTranspose2d(2, 2, 2),
                "weights": nn.ParameterList([nn.Parameter(torch.ones(1))]),
            }
        ).eval()

    yield "state dict", "model.pt", saved(lambda: models.convnet().state_dict())
    yield (
        "state dict, old format",
        "model.pt",
        saved(lambda: models.convnet().state_dict(), _use_new_zipfile_serialization=False),
    )
    yield "state dict, pickle protocol 4", "model.pt", saved(lambda: models.convnet().state_dict(), pickle_protocol=4)
    yield "every kind of tensor", "model.pt", saved(everything)
    yield (
        "every kind of tensor, old format",
        "model.pt",
        saved(
            lambda: {name: one for name, one in everything().items() if name not in ("sparse", "float8")},
            _use_new_zipfile_serialization=False,
        ),
    )
    yield "training checkpoint", "model.pt", saved(checkpoint)
    yield "training checkpoint, old format", "model.pt", saved(checkpoint, _use_new_zipfile_serialization=False)
    yield "whole module", "model.pt", saved(models.convnet)
    yield "whole module, old format", "model.pt", saved(lambda: nn.Linear(3, 2), _use_new_zipfile_serialization=False)
    yield "whole module of many layers", "model.pt", saved(layers)
    yield "one tensor", "model.pt", saved(lambda: torch.randn(5))
    yield "shared storage", "model.pt", saved(lambda: [(base := torch.randn(10)), base[2:5], base.view(2, 5)])
    yield (
        "numpy inside",
        "model.pt",
        saved(lambda: {"mean": __import__("numpy").ones(3), "one": __import__("numpy").float64(2)}),
    )
    yield "quantised tensor", "model.pt", saved(lambda: torch.quantize_per_tensor(torch.randn(4), 0.1, 0, torch.qint8))
    yield "written by hand", "model.pt", lambda: torch_files.in_state(torch_files.tensor(torch_files.storage()))
    yield "pickled tensor", "model.pkl", lambda: pickle.dumps({"w": torch.randn(3)})
    yield (
        "script",
        "model.pt",
        lambda: written(lambda path: torch.jit.save(torch.jit.script(modules.Rich().eval()), path), "model.pt"),
    )
    yield (
        "trace",
        "model.pt",
        lambda: written(
            lambda path: torch.jit.save(torch.jit.trace(models.convnet(), torch.randn(2, 1, 8, 8)), path), "model.pt"
        ),
    )
    yield (
        "frozen script",
        "model.pt",
        lambda: written(
            lambda path: torch.jit.save(
                torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval())),
                path,
                _extra_files={"labels.txt": "cat\ndog\n"},
            ),
            "model.pt",
        ),
    )
    yield (
        "quantised script",
        "model.pt",
        lambda: written(
            lambda path: torch.jit.save(
                torch.jit.script(
                    torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), {nn.Linear})
                ),
                path,
            ),
            "model.pt",
        ),
    )
    yield (
        "traced recurrent net",
        "model.pt",
        lambda: written(
            lambda path: torch.jit.save(
                torch.jit.trace(nn.GRU(4, 4, batch_first=True).eval(), torch.randn(2, 3, 4)), path
            ),
            "model.pt",
        ),
    )
    yield (
        "script optimised for inference",
        "model.pt",
        lambda: written(
            lambda path: torch.jit.save(torch.jit.optimize_for_inference(torch.jit.script(models.convnet())), path),
            "model.pt",
        ),
    )


def _exports() -> _Rows:
    def batch() -> Any:
        return torch.export.Dim("batch", min=1, max=64)

    def saved(make: Callable[[], Any], **more: Any) -> Callable[[], bytes]:
        return lambda: written(lambda path: torch.export.save(make(), path, **more), "model.pt2")

    def one() -> Any:
        return (torch.randn(2, 1, 8, 8),)

    yield "static", "model.pt2", saved(lambda: torch.export.export(models.convnet(), one()))
    yield (
        "dynamic",
        "model.pt2",
        saved(lambda: torch.export.export(models.convnet(), one(), dynamic_shapes=({0: batch()},))),
    )
    yield (
        "automatic",
        "model.pt2",
        saved(lambda: torch.export.export(models.convnet(), one(), dynamic_shapes=({0: torch.export.Dim.AUTO},))),
    )
    yield (
        "with extra files",
        "model.pt2",
        saved(lambda: torch.export.export(nn.Linear(2, 2), (torch.randn(1, 2),)), extra_files={"note.txt": "hello"}),
    )
    yield (
        "two inputs",
        "model.pt2",
        saved(
            lambda: torch.export.export(
                modules.Joined(),
                (torch.randn(4, 3), torch.randn(4, 3)),
                dynamic_shapes={name: {0: batch()} for name in "xy"},
            )
        ),
    )
    yield (
        "recurrent net",
        "model.pt2",
        saved(lambda: torch.export.export(nn.LSTM(4, 4, batch_first=True).eval(), (torch.randn(2, 3, 4),))),
    )


def _onnx() -> _Rows:
    @functools.cache
    def plain() -> bytes:
        return written(
            lambda path: torch.onnx.export(
                models.convnet(),
                (torch.randn(2, 1, 8, 8),),
                path,
                dynamo=False,
                input_names=["x"],
                dynamic_axes={"x": {0: "batch"}},
            ),
            "model.onnx",
        )

    def quantised(static: bool) -> bytes:
        from onnxruntime import quantization

        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "a.onnx", Path(folder) / "b.onnx"
            source.write_bytes(plain())
            if static:
                quantization.quantize_static(source, target, _Calibration())
            else:
                quantization.quantize_dynamic(source, target)
            return target.read_bytes()

    def branching() -> bytes:
        def graph(operator: str) -> Any:
            return helper.make_graph(
                [helper.make_node(operator, ["x"], ["z"])],
                "b",
                [],
                [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [2])],
            )

        node = helper.make_node("If", ["c"], ["y"], then_branch=graph("Relu"), else_branch=graph("Neg"))
        function = helper.make_function(
            "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 18)]
        )
        used = helper.make_node("Twice", ["y"], ["w"], domain="local")
        body = helper.make_graph(
            [node, used],
            "g",
            [
                helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2]),
                helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []),
            ],
            [helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [2])],
        )
        made: bytes = helper.make_model(
            body, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("local", 1)], functions=[function]
        ).SerializeToString()
        return made

    def outside() -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            model = onnx.load_model_from_string(plain())
            onnx.save_model(
                model, Path(folder) / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
            )
            return zipped({name: (Path(folder) / name).read_bytes() for name in ("model.onnx", "weights.bin")})

    yield "legacy export", "model.onnx", plain
    yield (
        "dynamo export",
        "model.onnx",
        lambda: written(
            lambda path: torch.onnx.export(
                models.convnet(), (torch.randn(2, 1, 8, 8),), path, dynamo=True, external_data=False, verbose=False
            ),
            "model.onnx",
        ),
    )
    yield "int8 dynamic", "model.onnx", lambda: quantised(static=False)
    yield "int8 static", "model.onnx", lambda: quantised(static=True)
    yield "branches and functions", "model.onnx", branching
    yield "weights beside the model", "package.zip", outside
    for name in (
        "bvlc_alexnet",
        "densenet121",
        "inception_v1",
        "inception_v2",
        "resnet50",
        "shufflenet",
        "squeezenet",
        "vgg19",
        "zfnet512",
    ):
        yield (
            f"light model {name}",
            "model.onnx",
            lambda name=name: (Path(onnx.__file__).parent / f"backend/test/data/light/light_{name}.onnx").read_bytes(),
        )


class _Calibration:
    def __init__(self) -> None:
        self.left = 2

    def get_next(self) -> dict[str, Any] | None:
        self.left -= 1
        return {"x": np.zeros((2, 1, 8, 8), dtype=np.float32)} if self.left >= 0 else None


def _safetensors() -> _Rows:
    def state() -> dict[str, Any]:
        return {
            "a.weight": torch.randn(3, 4),
            "half": torch.ones(3, dtype=torch.bfloat16),
            "empty": torch.zeros(0),
            "mask": torch.tensor([True]),
        }

    yield "of torch", "model.safetensors", lambda: safe_torch.save(state(), metadata={"format": "pt"})
    yield "of numpy", "model.safetensors", lambda: safe_numpy.save({"x": __import__("numpy").arange(5)})
    yield (
        "of many",
        "model.safetensors",
        lambda: safe_torch.save({f"layers.{n}.weight": torch.ones(1) for n in range(500)}),
    )
    yield "of nothing", "model.safetensors", lambda: safe_torch.save({})


def _texts() -> _Rows:
    texts = {
        "README.md": "# Digits!\n\nimport torch\n\n```python\nimport os\nmodel = eval('1')  # only shown\n```\n\n![picture](https://example.org/p.png) – 98 %\n",
        "LICENSE": "Apache License\nVersion 2.0, January 2004\n",
        "config.yaml": "name: digits # a comment!\nclasses: ['0', \"!1\"]\nlr: !!float 1e-3\nbase: &base {a: 1}\nmore: *base\n",
        "args.yaml": "task: detect\nmode: train\nmodel: yolo11n.yaml\ndata: shapes.yaml\nepochs: 1\nbatch: 16\ncache: null\nlr0: 0.01\nnames:\n  0: circle\n  1: square\n",
        "config.json": json.dumps({"architectures": ["BertModel"], "hidden_size": 768, "id2label": {"0": "a"}, "torch_dtype": "float32"}, indent=2),
        "tokenizer.json": json.dumps({"version": "1.0", "model": {"vocab": {f"token{n}": n for n in range(2000)}}, "added_tokens": [{"id": 0, "content": "<s>"}]}),
        "empty.json": "{}",
        "labels.txt": "cat\ndog\nnaïve\n日本語\n",
        "vocab.txt": "[PAD]\n[UNK]\n##ing\n!\nthe\n{{\n<|endoftext|>\n",
        "metrics.csv": "epoch,loss\n1,0.5\n2,0.25\n",
        "requirements.txt": "# pinned\ntorch==2.13.0\nnumpy>=2,<3 ; python_version >= '3.11'\nuvicorn[standard]~=0.30\nscipy (>=1.1)\nscikit-learn == 1.9.1 --hash=sha256:" + "a1" * 32 + "\n",
        "train.py": "import torch\n\n\ndef main() -> None:\n    print(torch.__version__)\n",
        "train.log": "INFO epoch 1: loss 0.5\nWARNING token count 12\n",
        "environment.yml": "name: x\nchannels: [conda-forge]\ndependencies:\n  - python=3.11\n  - pip:\n      - torch==2.13.0\n",
        "windows.txt": "one\r\ntwo\r\n",
    }  # fmt: skip
    for name, text in texts.items():
        yield name, name, lambda text=text: text.encode()
    yield "with a mark in front", "config.json", lambda: b"\xef\xbb\xbf" + b'{"a": 1}'


def _packages() -> _Rows:
    @functools.cache
    def parts() -> dict[str, bytes]:
        return {
            "digits/README.md": b"# Digits\n",
            "digits/LICENSE": b"Apache License\n",
            "digits/config.yaml": b"classes: 10\n",
            "digits/code/train.py": b"import torch\n",
            "digits/state.pt": written(lambda path: torch.save(models.convnet().state_dict(), path), "state.pt"),
            "digits/calibration.npz": written(lambda path: np.savez(path, x=np.zeros((2, 1))), "x.npz"),
            "digits/labels.pkl": pickle.dumps(["0", "1"]),
        }

    def tarred(**more: Any) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", **more) as archive:
            folder = tarfile.TarInfo("digits")
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
            for name, data in parts().items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mtime = len(data), 1_790_000_000
                archive.addfile(entry, io.BytesIO(data))
        return buffer.getvalue()

    def with_folders() -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.mkdir("digits")
            for name, data in parts().items():
                with archive.open(name, "w") as member:  # streamed: sizes follow the data
                    member.write(data)
        return buffer.getvalue()

    def unseekable() -> bytes:
        class Pipe(io.BytesIO):
            def seekable(self) -> bool:
                return False

            def seek(self, *_: Any) -> int:
                raise io.UnsupportedOperation

            def tell(self) -> int:
                raise io.UnsupportedOperation

        pipe = Pipe()
        with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in parts().items():
                archive.writestr(name, data)
        return pipe.getvalue()

    yield "zip", "package.zip", lambda: zipped(parts())
    yield "zip, deflated", "package.zip", lambda: zipped(parts(), zipfile.ZIP_DEFLATED)
    yield "zip with folders", "package.zip", with_folders
    yield "zip written to a pipe", "package.zip", unseekable
    yield "zip in a zip", "package.zip", lambda: zipped({"inner.zip": zipped(parts())})
    yield "tar", "package.tar", tarred
    yield "tar, GNU", "package.tar", lambda: tarred(format=tarfile.GNU_FORMAT)
    yield "tar, ustar", "package.tar", lambda: tarred(format=tarfile.USTAR_FORMAT)
    yield "tar.gz", "package.tar.gz", lambda: gzip.compress(tarred())
    yield "tar.bz2", "package.tar.bz2", lambda: bz2.compress(tarred())
    yield "tar.xz", "package.tar.xz", lambda: lzma.compress(tarred())
    yield "gzipped pickle", "model.pkl.gz", lambda: gzip.compress(pickle.dumps({"a": list(range(1000))}))
    yield (
        "gzipped onnx",
        "model.onnx.gz",
        lambda: gzip.compress(next(make for name, _, make in _onnx() if name == "legacy export")()),
    )
    yield "long names", "package.tar", lambda: _long_names()


def _long_names() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        entry = tarfile.TarInfo(str(PurePosixPath("digits", "a" * 120, "b.txt")))
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"hi\n"))
    return buffer.getvalue()
