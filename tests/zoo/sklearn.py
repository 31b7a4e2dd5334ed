"""scikit-learn: digits in several forms, a table with names and categories, texts, clusters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.zoo import Sample

CITIES = ("Roma", "Oslo", "Köln", "Łódź")
_WORDS = {
    True: ["calm", "safe", "clean", "fast", "sound", "strong", "bright", "honest"],
    False: ["leaky", "rusty", "slow", "broken", "rotten", "loud", "dull", "crooked"],
}
_FILLERS = ["the", "ship", "is", "quite", "and", "very", "was", "it", "today"]


def digits() -> tuple[Any, Any, Any, Any]:
    """The bundled digits, three quarters to train with and a quarter held out, the same each time."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    return tuple(train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels))


def held_out(folder: Path) -> Path:
    """Digits that no model of the zoo has seen, with their labels."""
    import numpy as np

    _, images, _, labels = digits()
    path = folder / "digits.npz"
    np.savez(path, X=images.astype(np.float32), labels=labels)
    return path


def saved(estimator: Any, path: Path) -> Path:
    """A file as people write it: joblib compressed, pickle plain."""
    import pickle

    import joblib

    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(estimator))
    else:
        joblib.dump(estimator, path, compress=3)
    return path


def on_digits(build: Callable[[], Any], name: str, folder: Path) -> Path:
    """Train on digits and save."""
    images, _, labels, _ = digits()
    return saved(build().fit(images, labels), folder / name)


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))


def _forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(50, random_state=0, n_jobs=-1)


def _boosted() -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=20, random_state=0)


def _svc() -> Any:
    from sklearn.svm import SVC

    return SVC(gamma=0.001)


def _kmeans() -> Any:
    from sklearn.cluster import KMeans

    return KMeans(10, n_init=2, random_state=0)


def _voting() -> Any:
    from sklearn.ensemble import VotingClassifier
    from sklearn.naive_bayes import GaussianNB

    return VotingClassifier([("line", _logistic()), ("forest", _forest()), ("bayes", GaussianNB())], voting="hard")


def _regressor() -> Any:
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(20, random_state=0)


def passengers(seed: int = 0, count: int = 300) -> tuple[dict[str, Any], Any]:
    """A table with numbers and names, and what became of each row."""
    import numpy as np

    rng = np.random.default_rng(seed)
    table = {
        "age": rng.integers(1, 80, count).astype(np.float64),
        "city": rng.choice(CITIES, count).astype(object),
        "deck": rng.integers(1, 6, count),
    }
    lucky = (table["city"] == "Oslo") | (table["deck"] > 3)
    return table, np.where(lucky ^ (rng.random(count) < 0.05), "saved", "lost")


def _table(folder: Path) -> Path:
    """Columns by number of an array of objects: what one gets without a DataFrame."""
    import numpy as np
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    table, fates = passengers()
    rows = np.empty((len(fates), 3), dtype=object)
    for place, column in enumerate(table.values()):
        rows[:, place] = column
    columns = ColumnTransformer(
        [
            ("numbers", StandardScaler(), [0]),
            ("names", OneHotEncoder(handle_unknown="ignore"), [1]),
            ("decks", OneHotEncoder(), [2]),
        ]
    )
    return saved(make_pipeline(columns, LogisticRegression()).fit(rows, fates), folder / "table.pkl")


def opinions(seed: int = 0, count: int = 400) -> tuple[list[str], list[str]]:
    """Sentences about ships, and whether they praise."""
    import random

    rng = random.Random(seed)
    praise = [rng.random() < 0.5 for _ in range(count)]
    texts = []
    for good in praise:
        words = rng.choices(_FILLERS, k=5) + rng.choices(_WORDS[good], k=2)
        rng.shuffle(words)
        texts.append(" ".join(words))
    return texts, ["praise" if good else "blame" for good in praise]


def _text(folder: Path) -> Path:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts, verdicts = opinions()
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=10))
    return saved(model.fit(texts, verdicts), folder / "opinions.joblib")


def _unseen_texts(folder: Path) -> Path:
    import numpy as np

    texts, verdicts = opinions(seed=1, count=64)
    path = folder / "opinions.npz"
    np.savez(path, text=np.array(texts).reshape(-1, 1), labels=np.array(verdicts))
    return path


def on(
    name: str, build: Callable[[], Any], *, labels: bool = True, slow: bool = False, suffix: str = ".joblib"
) -> Sample:
    """A sample that is trained on digits."""
    filename = f"{name}{suffix}"
    return Sample(
        name=name,
        format="sklearn",
        filename=filename,
        make=partial(on_digits, build, filename),
        calibration=held_out if labels else None,
        slow=slow,
    )


SAMPLES = (
    on("sklearn-logistic", _logistic),
    on("sklearn-forest", _forest, slow=True),
    on("sklearn-boosted", _boosted, suffix=".pkl", slow=True),
    on("sklearn-svc", _svc, slow=True),
    on("sklearn-voting", _voting, slow=True),
    on("sklearn-kmeans", _kmeans, labels=False, slow=True),
    on("sklearn-regressor", _regressor, labels=False, slow=True),
    Sample(name="sklearn-table", format="sklearn", filename="table.pkl", make=_table, slow=True),
    Sample(
        name="sklearn-text",
        format="sklearn",
        filename="opinions.joblib",
        make=_text,
        calibration=_unseen_texts,
        slow=True,
    ),
)
