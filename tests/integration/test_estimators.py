"""scikit-learn, XGBoost, LightGBM and Keras models through the stages, opened nowhere but in the sandbox."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime
import pytest
import sklearn
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.semi_supervised import LabelPropagation

from pipeline.errors import Rejected
from pipeline.formats import glimpse_of, identify
from pipeline.stages import benchmark, convert, optimize, validate
from tests.integration.test_formats import Begin, Intake, begin, refusal
from tests.zoo import SAMPLES, Sample
from tests.zoo import keras as keras_models
from tests.zoo.sklearn import CITIES, passengers

__all__ = ["begin"]  # fixtures

OURS = [
    pytest.param(one, id=one.name, marks=[pytest.mark.slow] if one.slow else [])
    for one in SAMPLES.values()
    if one.format in ("sklearn", "keras")
]
ACCURACY = {"sklearn-text": 0.95, "sklearn-table": 0.9, "keras-attention": 0.8}


def taken_in(sample: Sample, begin: Begin, folder: Path) -> Intake:
    intake = begin(sample.make(folder), **sample.declared)
    if sample.calibration is not None:
        path = sample.calibration(folder)
        intake.side_files = {"calibration": path}
    return intake


@pytest.mark.parametrize("sample", OURS)
def test_a_model_goes_the_whole_way_and_decides_as_before(sample: Sample, begin: Begin, tmp_path: Path) -> None:
    intake = taken_in(sample, begin, tmp_path)
    found = intake.run(validate).facts
    assert found["format"] == sample.format
    assert found["servable"] is True
    assert found["warnings"] == []
    assert all(one["shape"][0] is None for one in (*found["inputs"], *found["outputs"]))
    converted = intake.run(convert).facts
    assert converted["verification"]["verified"] is True
    assert converted["inputs"][0]["shape"][0] is None
    intake.run(optimize)
    rows = {row["name"]: row for row in intake.run(benchmark).facts["rows"]}
    assert rows["onnx-fp32"]["speedup"] > 1
    if sample.calibration is not None:
        held = np.load(intake.side_files["calibration"])
        for file in intake.files().values():
            if file.role in ("canonical", "variant"):
                assert accuracy(Path(file.key), held) >= ACCURACY.get(sample.name, 0.93)


def accuracy(model: Path, held: Any) -> float:
    session = onnxruntime.InferenceSession(str(model))
    answer = session.run(None, {session.get_inputs()[0].name: held[session.get_inputs()[0].name]})[0]
    decided = answer.argmax(axis=1) if answer.ndim == 2 else answer
    return float((decided == held["labels"]).mean())


def pickled(estimator: Any, path: Path) -> Path:
    path.write_bytes(pickle.dumps(estimator))
    return path


def test_a_forest_that_flips_where_its_votes_tie_is_caught_and_kept_only_in_the_form_that_does_not(
    begin: Begin, tmp_path: Path
) -> None:
    """All probabilities agree to seven digits, and yet one label in a hundred is another: only decisions show it."""
    intake = begin(pickled(forest(20), tmp_path / "forest.pkl"))
    unseen = load_breast_cancer(return_X_y=True)[0][1::2]
    np.savez(tmp_path / "unseen.npz", X=unseen[40:].astype(np.float32))
    intake.side_files = {"calibration": tmp_path / "unseen.npz"}
    intake.run(validate)
    found = intake.run(convert).facts
    tried = {one["exporter"]: one for one in found["tried"]}
    caught = tried["single"]
    assert caught["ok"] is False
    assert "decisions of output label differ" in caught["reason"]
    labels, probabilities = caught["verification"]["outputs"]
    assert probabilities["rms_rel"] < 1e-6
    assert 0.005 < labels["decisions"]["flips"] / labels["decisions"]["compared"] < 0.03
    assert probabilities["decisions"]["flips"] == 0
    assert probabilities["decisions"]["ties"] == labels["decisions"]["flips"]
    assert tried["double"]["ok"] is False
    assert found["exporter"] == "votes"
    assert decisions(found["verification"], "label")["flips"] == 0


def forest(trees: int) -> Any:
    """Trained on every other tumour of the bundled set. An even number of trees may be divided in halves."""
    points, kinds = load_breast_cancer(return_X_y=True)
    return RandomForestClassifier(trees, random_state=0).fit(points[::2], kinds[::2])


def decisions(verification: dict[str, Any], output: str) -> dict[str, int]:
    return next(one["decisions"] for one in verification["outputs"] if one["name"] == output)


def test_what_is_no_estimator_is_named(begin: Begin, tmp_path: Path) -> None:
    both = {"model": LogisticRegression(), "note": "the scaler is elsewhere"}
    error = refusal(begin(pickled(both, tmp_path / "both.pkl")), validate)
    assert error.code == "no_estimator"
    assert "a dict of 2" in error.message
    assert refusal(begin(pickled(np.eye(3), tmp_path / "array.pkl")), validate).code == "no_estimator"


def test_an_estimator_that_was_never_fitted_has_nothing_to_serve(begin: Begin, tmp_path: Path) -> None:
    assert refusal(begin(pickled(LogisticRegression(), tmp_path / "blank.pkl")), validate).code == "not_fitted"


def test_the_version_that_trained_it_is_said_where_it_is_another(begin: Begin, tmp_path: Path) -> None:
    path = pickled(forest(2), tmp_path / "old.pkl")
    version = sklearn.__version__.encode()
    path.write_bytes(path.read_bytes().replace(version, b"1.2.3"))
    assert len(version) == len(b"1.2.3")
    found = begin(path).run(validate).facts
    assert found["notes"]["scikit-learn"] == "1.2.3"
    said = f"Saved by scikit-learn 1.2.3 and opened by {sklearn.__version__}: "
    assert found["warnings"] == [f"{said}DecisionTreeClassifier may answer differently."]


def test_a_table_is_asked_column_by_column_with_what_it_knows(begin: Begin, tmp_path: Path) -> None:
    found = begin(SAMPLES["sklearn-table"].make(tmp_path)).run(validate).facts
    described = [(one["name"], one["dtype"], one["shape"], one["closed"]) for one in found["inputs"]]
    assert described == [
        ("x0", "float32", [None, 1], False),
        ("x1", "str", [None, 1], False),
        ("x2", "int64", [None, 1], True),
    ]
    assert found["inputs"][1]["values"] == sorted(CITIES)
    assert found["inputs"][2]["values"] == ["1", "2", "3", "4", "5"]
    assert found["classes"] == ["lost", "saved"]
    assert found["notes"]["estimator"] == "ColumnTransformer, LogisticRegression"


def test_names_of_a_data_frame_become_names_of_inputs(begin: Begin, tmp_path: Path) -> None:
    polars = pytest.importorskip("polars", reason="needs a DataFrame library (polars)")
    table, fates = passengers()
    table["label"] = table.pop("deck")  # what the answer is called
    columns = ColumnTransformer([("names", OneHotEncoder(), ["city"])], remainder=StandardScaler())
    model = make_pipeline(columns, LogisticRegression()).fit(polars.DataFrame(table), fates)
    intake = begin(pickled(model, tmp_path / "framed.pkl"))
    assert [one["name"] for one in intake.run(validate).facts["inputs"]] == ["age", "city", "label_in"]
    intake.run(convert)
    canonical = onnxruntime.InferenceSession(intake.files()["onnx-fp32"].key)
    age, city, label = (np.asarray(table[name]).reshape(-1, 1) for name in ("age", "city", "label"))
    asked = {"age": age.astype(np.float32), "city": city, "label_in": label.astype(np.float32)}
    answer = canonical.run(["label"], asked)[0]
    assert (answer == model.predict(polars.DataFrame(table))).all()


def test_texts_in_other_scripts_are_decided_the_same(begin: Begin, tmp_path: Path) -> None:
    """Unless told better, converters cut words and fold case in ASCII: the words of this model would go unseen."""
    texts = ["Große Freude", "große Mühe", "très bien", "TRÈS mal", "Šťastný den", "smutný den", "良い 船", "悪い 船"]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression(C=100)).fit(texts, [1, 0, 1, 0, 1, 0, 1, 0])
    intake = begin(pickled(model, tmp_path / "scripts.pkl"))
    np.savez(tmp_path / "texts.npz", text=np.array([*texts, "GROSSE", "ŠŤASTNÝ DEN", ""]).reshape(-1, 1))
    intake.side_files = {"calibration": tmp_path / "texts.npz"}
    intake.run(validate)
    found = intake.run(convert).facts
    tried = {one["exporter"]: one for one in found["tried"]}
    assert found["exporter"] == "unicode"
    assert decisions(found["verification"], "label")["flips"] == 0
    assert tried["single"]["ok"] is False
    assert decisions(tried["single"]["verification"], "label")["flips"] > 0


def test_an_estimator_without_a_converter_is_refused_by_name(begin: Begin, tmp_path: Path) -> None:
    points, _ = load_breast_cancer(return_X_y=True)
    model = BernoulliRBM(2, n_iter=1).fit(points / points.max())
    error = refusal(begin(pickled(model, tmp_path / "rbm.pkl")), validate, convert)
    assert error.code == "conversion_failed"
    assert "BernoulliRBM" in error.message


def test_several_decisions_at_once_are_refused(begin: Begin, tmp_path: Path) -> None:
    points, kinds = load_breast_cancer(return_X_y=True)
    model = RandomForestClassifier(2).fit(points, np.stack([kinds, 1 - kinds], axis=1))
    assert refusal(begin(pickled(model, tmp_path / "two.pkl")), validate).code == "unsupported_signature"


def test_classes_that_are_fractions_are_refused(begin: Begin, tmp_path: Path) -> None:
    points, kinds = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), LabelPropagation()).fit(points[:50], kinds[:50])
    model[-1].classes_ = np.array([0.25, 0.75])
    assert refusal(begin(pickled(model, tmp_path / "fractions.pkl")), validate).code == "unsupported_signature"


def test_the_same_estimator_gives_the_same_bytes(begin: Begin, tmp_path: Path) -> None:
    path = SAMPLES["sklearn-logistic"].make(tmp_path)
    digests = []
    for _ in range(2):
        intake = begin(path)
        intake.run(validate, convert)
        digests.append(intake.files()["onnx-fp32"].sha256)
    assert digests[0] == digests[1]


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3)])
def test_estimators_are_known_by_their_content(compress: Any, tmp_path: Path) -> None:
    joblib.dump(LogisticRegression(), tmp_path / "model.joblib", compress=compress)
    glimpse = glimpse_of(tmp_path / "model.joblib")
    assert identify("model.joblib", glimpse).name == "sklearn"
    assert identify("MODEL.PKL", glimpse).name == "sklearn"
    with pytest.raises(Rejected, match=r"named \.keras but holds scikit-learn"):
        identify("model.keras", glimpse)


@pytest.mark.parametrize("content", [b"", b"\x80", b"\x80\x09x", b"\x78\x9c", b"\x1f\x8b\x08", b"x" * 40, b"(dp0\n."])
def test_other_content_is_no_estimator(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    with pytest.raises(Rejected) as caught:
        identify("model.pkl", glimpse_of(path))
    assert caught.value.code == "content_mismatch"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "filename", "said"),
    [
        (keras_models.CUSTOM, "custom.keras", "uses Doubling"),
        (keras_models.CUSTOM, "custom.h5", "uses Doubling"),
        (keras_models.LAMBDA, "lambda.keras", "Lambda layer"),
        (keras_models.LAMBDA, "lambda.h5", "Lambda layer"),
    ],
)
def test_code_that_a_keras_model_would_need_is_named_and_never_run(
    program: str, filename: str, said: str, begin: Begin, tmp_path: Path
) -> None:
    error = refusal(begin(keras_models.made(program, filename, tmp_path)), validate)
    assert error.code == "custom_objects"
    assert said in error.message


@pytest.mark.slow
def test_keras_weights_alone_are_described_and_said_not_to_be_servable(begin: Begin, tmp_path: Path) -> None:
    found = begin(keras_models.made(keras_models.WEIGHTS, "dense.weights.h5", tmp_path)).run(validate).facts
    assert found["servable"] is False
    assert found["parameters"] == 15
    assert [one["shape"] for one in found["tensors"]] == [[4, 3], [3]]
    assert "model.save('model.keras')" in found["unservable"]
