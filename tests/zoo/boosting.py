"""XGBoost's and LightGBM's scikit-learn wrappers, alone and inside an ensemble of scikit-learn's."""

from __future__ import annotations

from typing import Any

from tests.zoo.sklearn import on


def _xgboost() -> Any:
    import xgboost

    return xgboost.XGBClassifier(n_estimators=20, max_depth=4, n_jobs=1, random_state=0)


def _xgboost_regressor() -> Any:
    import xgboost

    return xgboost.XGBRegressor(n_estimators=20, max_depth=4, n_jobs=1, random_state=0)


def _lightgbm() -> Any:
    import lightgbm

    return lightgbm.LGBMClassifier(n_estimators=20, n_jobs=1, verbose=-1, random_state=0)


def _stacking() -> Any:
    from sklearn.ensemble import RandomForestClassifier, StackingClassifier
    from sklearn.linear_model import LogisticRegression

    judges = [("forest", RandomForestClassifier(10, random_state=0)), ("boosted", _lightgbm())]
    return StackingClassifier(judges, final_estimator=LogisticRegression(max_iter=500), cv=2)


SAMPLES = (
    on("xgboost", _xgboost, slow=True),
    on("xgboost-regressor", _xgboost_regressor, labels=False, slow=True),
    on("lightgbm", _lightgbm, suffix=".pkl", slow=True),
    on("stacking", _stacking, slow=True),
)
