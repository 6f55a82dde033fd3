"""Estimators as a user might write them, good ones and others."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.linear_model import LogisticRegression, Ridge


class Centres(ClassifierMixin, BaseEstimator):
    """Probabilities by the distance from the classes' means."""

    def __init__(self, sharpness: float = 1.0) -> None:
        self.sharpness = sharpness

    def fit(self, X, y, sample_weight=None):
        self.classes_ = np.unique(y)
        weights = np.ones(len(y)) if sample_weight is None else sample_weight
        self.centres_ = np.stack([np.average(X[y == c], axis=0, weights=weights[y == c]) for c in self.classes_])
        return self

    def predict_proba(self, X):
        near = np.exp(-self.sharpness * ((X[:, None, :] - self.centres_) ** 2).sum(axis=2))
        return near / near.sum(axis=1, keepdims=True)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class Mixed(RegressorMixin, BaseEstimator):
    """Holds another estimator."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def fit(self, X, y):
        self.inner_ = Ridge(alpha=self.alpha).fit(X, y)
        return self

    def predict(self, X):
        return self.inner_.predict(X)


class Ranks(ClassifierMixin, BaseEstimator):
    """Only ranks."""

    def fit(self, X, y):
        self.inner_ = LogisticRegression().fit(X, y)
        self.classes_ = self.inner_.classes_
        return self

    def decision_function(self, X):
        return self.inner_.decision_function(X)


class Labels(ClassifierMixin, BaseEstimator):
    """Tells nothing but a class."""

    def fit(self, X, y):
        return self

    def predict(self, X):
        return np.zeros(len(X))


class Broken(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        raise RuntimeError("no luck today")

    def predict_proba(self, X):
        return np.zeros((len(X), 2))


class Short(RegressorMixin, BaseEstimator):
    def fit(self, X, y):
        return self

    def predict(self, X):
        return np.zeros(1)


class Unkept(RegressorMixin, BaseEstimator):
    def fit(self, X, y):
        self.function_ = lambda X: X.sum(axis=1)
        return self

    def predict(self, X):
        return self.function_(X)


class NoEstimator:
    pass
