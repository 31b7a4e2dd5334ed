"""Pickles as the frameworks write them, and hostile ones by hand: what the tests of pickle readers are made of."""

from __future__ import annotations

import io
import pickle
import warnings
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any


def short(text: str) -> bytes:
    """A short string, protocol 4."""
    return b"\x8c" + bytes([len(text.encode())]) + text.encode()


def named(module: str, name: str) -> bytes:
    return short(module) + short(name) + b"\x93"


def estimators() -> Iterator[tuple[str, Any]]:
    """Fitted estimators of every family, with everything that they hold in Cython."""
    import numpy as np
    from scipy import sparse
    from sklearn import (
        calibration,
        cluster,
        compose,
        decomposition,
        ensemble,
        feature_selection,
        gaussian_process,
        impute,
        isotonic,
        kernel_approximation,
        linear_model,
        manifold,
        mixture,
        model_selection,
        naive_bayes,
        neighbors,
        neural_network,
        pipeline,
        preprocessing,
        svm,
        tree,
    )
    from sklearn.feature_extraction import text
    from sklearn.metrics import f1_score, make_scorer

    random = np.random.default_rng(0)
    x = random.normal(size=(80, 4))
    y = (x[:, 0] + x[:, 1] > 0).astype(int)
    words = np.array(["cat", "dog"])[y]
    kernel = gaussian_process.kernels.RBF() + gaussian_process.kernels.WhiteKernel()
    documents = ["a cat sat", "a dog ran", "the cat ran", "dogs and cats"] * 20
    yield "linear", linear_model.LinearRegression().fit(x, y)
    yield "ridge", linear_model.RidgeCV().fit(x, y)
    yield "lasso", linear_model.Lasso().fit(x, y)
    yield "logistic", linear_model.LogisticRegression().fit(x, words)
    yield "sgd", linear_model.SGDClassifier(loss="log_loss").fit(x, y)
    yield "sgd regression", linear_model.SGDRegressor(loss="huber").fit(x, y)
    yield "poisson", linear_model.PoissonRegressor().fit(x, y)
    yield "tree", tree.DecisionTreeClassifier().fit(x, words)
    yield "forest", ensemble.RandomForestClassifier(5, random_state=np.random.RandomState(0)).fit(x, words)
    yield "forest regression", ensemble.RandomForestRegressor(5, oob_score=True).fit(x, x[:, 0])
    yield "extra trees", ensemble.ExtraTreesClassifier(5).fit(x, y)
    yield "gradient boosting", ensemble.GradientBoostingClassifier(n_estimators=5).fit(x, y)
    yield "gradient boosting regression", ensemble.GradientBoostingRegressor(n_estimators=5, loss="huber").fit(x, y)
    yield "histogram boosting", ensemble.HistGradientBoostingClassifier(max_iter=5).fit(x, y)
    yield "histogram regression", ensemble.HistGradientBoostingRegressor(max_iter=5, loss="poisson").fit(x, y)
    yield "early stopping", ensemble.HistGradientBoostingClassifier(max_iter=5, early_stopping=True).fit(x, words)
    yield "ada", ensemble.AdaBoostClassifier(n_estimators=5).fit(x, y)
    yield "bagging", ensemble.BaggingClassifier(n_estimators=3).fit(x, y)
    yield "isolation", ensemble.IsolationForest(n_estimators=5).fit(x)
    yield "voting", ensemble.VotingClassifier([("a", tree.DecisionTreeClassifier()), ("b", svm.SVC())]).fit(x, y)
    yield "stacking", ensemble.StackingClassifier([("a", tree.DecisionTreeClassifier())]).fit(x, y)
    yield "svc", svm.SVC(probability=False).fit(x, words)
    yield "sparse svc", svm.SVC().fit(sparse.csr_matrix(x), y)
    yield "linear svc", svm.LinearSVC().fit(x, y)
    yield "one class", svm.OneClassSVM().fit(x)
    yield "kd tree", neighbors.KNeighborsClassifier(algorithm="kd_tree").fit(x, y)
    yield "ball tree", neighbors.KNeighborsRegressor(algorithm="ball_tree", metric="manhattan").fit(x, y)
    yield "kernel density", neighbors.KernelDensity().fit(x)
    yield "outlier", neighbors.LocalOutlierFactor(novelty=True).fit(x)
    yield "centroid", neighbors.NearestCentroid().fit(x, y)
    yield "k-means", cluster.KMeans(3).fit(x)
    yield "mini batches", cluster.MiniBatchKMeans(3, random_state=1).fit(x)
    yield "birch", cluster.Birch().fit(x)
    yield "dbscan", cluster.DBSCAN().fit(x)
    yield "agglomerative", cluster.AgglomerativeClustering().fit(x)
    yield "pca", decomposition.PCA(2).fit(x)
    yield "svd", decomposition.TruncatedSVD(2).fit(x)
    yield "nmf", decomposition.NMF(2).fit(abs(x))
    yield "lda", decomposition.LatentDirichletAllocation(2).fit(abs(x))
    yield "ica", decomposition.FastICA(2, random_state=0).fit(x)
    yield "isomap", manifold.Isomap().fit(x)
    yield "tsne", manifold.TSNE(init="random", perplexity=5, max_iter=250).fit(x)
    yield "mixture", mixture.GaussianMixture(2).fit(x)
    yield "bayes", naive_bayes.GaussianNB().fit(x, y)
    yield "multinomial", naive_bayes.MultinomialNB().fit(abs(x), y)
    yield "gaussian process", gaussian_process.GaussianProcessClassifier(kernel).fit(x, y)
    yield "gaussian regression", gaussian_process.GaussianProcessRegressor(kernel).fit(x, y)
    yield "perceptron", neural_network.MLPClassifier(max_iter=5, random_state=1).fit(x, y)
    yield "isotonic", isotonic.IsotonicRegression().fit(x[:, 0], y)
    yield "calibrated", calibration.CalibratedClassifierCV(svm.LinearSVC(), method="isotonic").fit(x, y)
    yield "sampler", kernel_approximation.RBFSampler(random_state=1).fit(x)
    yield (
        "search",
        model_selection.GridSearchCV(
            tree.DecisionTreeClassifier(), {"max_depth": [1, 2]}, scoring=make_scorer(f1_score)
        ).fit(x, y),
    )
    yield (
        "random search",
        model_selection.RandomizedSearchCV(
            svm.SVC(), {"C": [1, 2]}, n_iter=2, cv=model_selection.StratifiedKFold(3)
        ).fit(x, y),
    )
    yield "count", text.CountVectorizer().fit(documents)
    yield "hashing", text.HashingVectorizer()
    yield "text", pipeline.make_pipeline(text.TfidfVectorizer(), linear_model.LogisticRegression()).fit(documents, y)
    yield (
        "columns",
        pipeline.Pipeline(
            [
                (
                    "prepare",
                    compose.ColumnTransformer(
                        [
                            ("numbers", preprocessing.StandardScaler(), [0, 1]),
                            ("classes", preprocessing.OneHotEncoder(handle_unknown="ignore"), [2]),
                            ("gaps", impute.SimpleImputer(), slice(3, 4)),
                        ],
                        remainder="passthrough",
                    ),
                ),
                ("model", ensemble.RandomForestClassifier(3)),
            ]
        ).fit(np.round(x), y),
    )
    yield (
        "transformers",
        pipeline.make_pipeline(
            preprocessing.MinMaxScaler(),
            preprocessing.PolynomialFeatures(2),
            preprocessing.QuantileTransformer(n_quantiles=10),
            preprocessing.KBinsDiscretizer(3, encode="onehot-dense", quantile_method="averaged_inverted_cdf"),
            preprocessing.FunctionTransformer(np.log1p),
            feature_selection.SelectKBest(feature_selection.chi2, k=2),
        ).fit(x, y),
    )
    yield "splines", pipeline.make_pipeline(preprocessing.SplineTransformer(), preprocessing.PowerTransformer()).fit(x)
    yield "select", feature_selection.RFE(linear_model.LogisticRegression(), n_features_to_select=2).fit(x, y)
    yield "mutual", feature_selection.SelectPercentile(feature_selection.mutual_info_classif).fit(x, y)
    yield (
        "encoders",
        [
            preprocessing.LabelEncoder().fit(words),
            preprocessing.LabelBinarizer().fit(words),
            preprocessing.OrdinalEncoder().fit(words[:, None]),
            preprocessing.TargetEncoder().fit(words[:, None], y),
            impute.KNNImputer().fit(x),
            preprocessing.MultiLabelBinarizer().fit([["a"], ["b"]]),
        ],
    )


def arrays() -> dict[str, Any]:
    """What numpy and scipy pickle in ways of their own."""
    import numpy as np
    from scipy import sparse

    return {
        "numbers": [np.arange(6).reshape(2, 3), np.asfortranarray(np.ones((3, 2), np.float32)), np.zeros((0, 3))],
        "big endian": np.arange(3, dtype=">i4"),
        "texts": [np.array(["a", "bcd"]), np.array([b"x"]), np.array(["1970-01-01"], "M8[ns]"), np.array([1], "m8[s]")],
        "objects": np.array(["a", None, 3, {"b": [1]}], dtype=object),
        "structured": np.array([(1, 2.0, "x")], dtype=[("a", "i4"), ("b", "f8"), ("c", "O")]),
        "nested": np.zeros(2, np.dtype([("a", [("b", "u1", (2, 2))]), ("c", "?")], align=True)),
        "scalars": [np.float32(1), np.int64(2), np.bool_(True), np.str_("a"), np.datetime64("2020-01-01"), np.complex64(1)],
        "types": [np.float32, np.dtype("f4"), np.dtype([("a", "i1")]), np.int64, np.bool_],
        "masked": np.ma.array([1, 2, 3], mask=[0, 1, 0]),
        "records": np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]),
        "random": [np.random.RandomState(3), np.random.default_rng(3), np.random.Generator(np.random.Philox(1))],
        "functions": [np.log, np.exp, np.add, np.mean],
        "sparse": [getattr(sparse, f"{kind}_{form}")(np.eye(3)) for kind in ("csr", "csc", "coo", "lil", "dok", "dia") for form in ("matrix", "array")],
    }  # fmt: skip


def plain_data() -> dict[str, Any]:
    import datetime as dt
    import decimal
    import fractions
    import uuid

    return {
        "numbers": [1, -1, 2**70, 1.5, True, None, float("inf"), 2**600],
        "text": ["naïve", "x" * 5000, "line\nline\n", ""],
        "bytes": [b"\x00\xff" * 300, b"", bytearray(b"abc"), b"\x80\x04 is not a pickle."],
        "sets": [{1, 2}, frozenset({"a"}), set()],
        "containers": [OrderedDict(a=(1, (2, 3))), defaultdict(list, a=[1]), Counter("aab"), deque([1, 2], 5)],
        "others": [complex(1, 2), slice(1, 2, None), range(3), Ellipsis, int, type(None)],
        "times": [
            dt.datetime(2020, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))),
            dt.date(2020, 1, 1),
            dt.timedelta(1),
        ],
        "exact": [decimal.Decimal("1.5"), fractions.Fraction(1, 3), uuid.UUID(int=5)],
        "same": [[]] * 3,
    }


def torch_modules() -> Iterator[tuple[str, Any]]:
    import torch
    from torch import nn

    yield (
        "layers",
        nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, 10),
            nn.Softmax(-1),
        ),
    )
    yield "recurrent", nn.ModuleList([nn.LSTM(4, 4, 2), nn.GRU(4, 4), nn.RNN(4, 4), nn.LSTMCell(4, 4)])
    yield "attention", nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
    yield "gelu", nn.TransformerEncoderLayer(8, 2, 16, activation="gelu")
    yield "normalised", nn.ModuleDict({"a": nn.LayerNorm(3), "b": nn.GroupNorm(1, 2), "c": nn.Embedding(3, 4)})
    yield "weight norm", nn.Sequential(torch.nn.utils.spectral_norm(nn.Linear(3, 3)))
    yield "parameters", nn.ParameterList([nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(3))])
    yield "quantised", torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), {nn.Linear})


def torch_checkpoint() -> dict[str, Any]:
    """A checkpoint as training loops write it."""
    import torch
    from torch import nn

    model = nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    schedule.step()
    tied = torch.arange(12.0)
    return {
        "epoch": 3,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "random": torch.get_rng_state(),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "views": [tied[2:], tied.view(3, 4).t()],
        "sparse": torch.eye(3).to_sparse(),
        "quantised": torch.quantize_per_tensor(torch.ones(4), 0.1, 1, torch.qint8),
        "kinds": [torch.float16, torch.device("cpu"), torch.Size([1, 2]), torch.__version__],
        "arguments": {"lr": 1e-3, "names": {0: "cat", 1: "dog"}, "best": None},
    }


def dumped(write: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(buffer)
    return buffer.getvalue()


def joblib_dump(value: Any, **options: Any) -> bytes:
    import joblib

    return dumped(lambda buffer: joblib.dump(value, buffer, **options))


def torch_save(value: Any, **options: Any) -> bytes:
    import torch

    return dumped(lambda buffer: torch.save(value, buffer, **options))


def every_way(value: Any) -> Iterator[tuple[str, bytes]]:
    """Each protocol, and joblib's own format."""
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        yield f"protocol {protocol}", pickle.dumps(value, protocol)
    yield "joblib", joblib_dump(value)


def joblib_without_padding(value: Any) -> bytes:
    """As joblib wrote before version 1.2."""
    import joblib.numpy_pickle as module

    class Stream(io.BytesIO):
        def tell(self) -> int:
            raise io.UnsupportedOperation

    stream = Stream()
    module.NumpyPickler(stream).dump(value)
    return stream.getvalue()


def instance(module: str, name: str, state: bytes) -> bytes:
    """An instance that is made bare and given a state."""
    return named(module, name) + b")\x81" + state + b"b"


def table(**entries: bytes) -> bytes:
    return b"}(" + b"".join(short(key) + value for key, value in entries.items()) + b"u"


def called(module: str, name: str, *arguments: bytes) -> bytes:
    return named(module, name) + b"(" + b"".join(arguments) + b"tR"


_INDEX = called(
    "pandas.core.indexes.base",
    "_new_Index",
    named("pandas", "RangeIndex"),
    table(name=b"N", start=b"K\x00", stop=b"K\x03"),
)
_OLD_INDEX = called(
    "pandas.core.indexes.base", "_new_Index", named("pandas.core.indexes.base", "Index"), table(data=b"]", name=b"N")
)
_BLOCK = called(
    "pandas._libs.internals",
    "_unpickle_block",
    b"]",
    called("builtins", "slice", b"K\x00", b"K\x03", b"K\x01"),
    b"K\x02",
)

RECIPES: dict[str, bytes] = {
    name: b"\x80\x04" + body + b"."
    for name, body in {
        "lightgbm": instance(
            "lightgbm.sklearn", "LGBMClassifier",
            table(_Booster=instance("lightgbm.basic", "Booster", table(_handle=short("tree\nversion=v4\n"), params=b"}")), n_estimators=b"K\x05"),
        ),
        "lightgbm booster": instance("lightgbm.basic", "Booster", table(_handle=short("tree"), pandas_categorical=b"N")),
        "xgboost": instance(
            "xgboost.sklearn", "XGBClassifier",
            table(_Booster=instance("xgboost.core", "Booster", table(handle=called("builtins", "bytearray", b"C\x04{L\x00i"))), missing=b"G\x7f\xf8" + bytes(6)),
        ),
        "catboost": instance("catboost.core", "CatBoostClassifier", table(_init_params=b"}", __model=b"C\x04CBM1")),
        "pandas frame": instance(
            "pandas", "DataFrame",
            table(
                _mgr=called("pandas.core.internals.managers", "BlockManager", _BLOCK + b"\x85", b"](" + _INDEX + _OLD_INDEX + b"e"),
                _typ=short("dataframe"), _metadata=b"]", attrs=b"}", _flags=table(allows_duplicate_labels=b"\x88"),
            ),
        ),
        "pandas frame, version 1": instance("pandas.core.frame", "DataFrame", table(_mgr=called("pandas.core.internals.managers", "BlockManager", _BLOCK + b"\x85", b"]"), _typ=short("dataframe"))),
        "pandas time": called("pandas._libs.tslibs.timestamps", "_unpickle_timestamp", b"\x8a\x01\x00", b"N", b"N", b"K\x0a"),
        "pandas text": called("pandas", "StringDtype", short("python"), named("pandas", "NA")),
        "torchvision": instance("torchvision.models.resnet", "ResNet", table(training=b"\x89", _modules=called("collections", "OrderedDict") + short("conv1") + instance("torch.nn.modules.conv", "Conv2d", table(stride=b"K\x01K\x01\x86", padding_mode=short("zeros"))) + b"s")),
        "vision transformer": instance(
            "torchvision.models.vision_transformer", "VisionTransformer",
            table(norm_layer=named("functools", "partial") + named("torch.nn.modules.normalization", "LayerNorm") + b"\x94\x85R(h\x00)"
                  + table(eps=b"G>\xb0\xc6\xf7\xa0\xb5\xed\x8d") + b"Ntb"),
        ),
        "ultralytics": table(
            epoch=b"J\xff\xff\xff\xff",
            model=instance("ultralytics.nn.tasks", "DetectionModel", table(yaml=table(nc=b"K\x50"), model=instance("torch.nn.modules.container", "Sequential", table(_modules=table(a=instance("ultralytics.nn.modules.conv", "Conv", table(act=instance("torch.nn.modules.activation", "SiLU", table(inplace=b"\x88"))))))))),
            train_args=table(task=short("detect")),
        ),
        "timm": instance("timm.layers.drop", "DropPath", table(drop_prob=b"G" + bytes(8))),
        "argparse": instance("argparse", "Namespace", table(lr=b"K\x01", data=called("pathlib", "PosixPath", short("data"), short("coco")))),
    }.items()
}  # fmt: skip
"""Small pickles with the names, calls and states that frameworks write which the tests cannot install."""


def tar_checkpoint(value: Any, tensors: dict[int, list[float]]) -> bytes:
    """As torch wrote before version 0.1.10; in `value`, a `TarTensor` stands for a tensor."""
    import struct
    import tarfile

    import torch

    class Pickler(pickle.Pickler):
        def persistent_id(self, found: Any) -> Any:
            return found.key if isinstance(found, TarTensor) else None

    def rows(*parts: Any) -> bytes:
        return b"".join(part if isinstance(part, bytes) else pickle.dumps(part, 2) for part in parts)

    storages: list[Any] = [len(tensors)]
    views: list[Any] = [len(tensors)]
    for key, numbers in tensors.items():
        storages += [(key, "cpu", torch.FloatStorage), struct.pack(f"<q{len(numbers)}f", len(numbers), *numbers)]
        views += [(key, key, torch.FloatTensor), struct.pack("<iiqqq", 1, 0, len(numbers), 1, 0)]
    data = io.BytesIO()
    Pickler(data, 2).dump(value)
    members = {
        "sys_info": rows({"protocol_version": 1000, "little_endian": True}),
        "pickle": data.getvalue(),
        "storages": rows(*storages, []),
        "tensors": rows(*views),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


class TarTensor:
    def __init__(self, key: int) -> None:
        self.key = key
