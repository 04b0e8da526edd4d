#!/usr/bin/python3
"""The study's AUC computed again, outside Glovebox, by other means: what study.py reports is compared with this.

It shares the question with study.py (penalty 1 on the summed log-loss, intercept free, five folds, the k-th case of
a class in fold k mod 5, features standardised on the other four folds) and none of its code: L-BFGS in place of
Newton's method, a rank sum in place of counted pairs, the csv as a structured array in place of the csv module.

usage: reference_auc.py breast_cancer.csv
"""
import sys

import numpy as np


def load(path):
    table = np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="ascii")
    features = [n for n in table.dtype.names if n != "diagnosis"]
    return np.stack([table[n].astype(float) for n in features], axis=1), np.where(table["diagnosis"] == "M", 1, -1)


def objective(theta, x, sign):
    """Margin form: sum log(1 + exp(-s (x.w + b))) + |w|^2 / 2, and its gradient. theta = (w, b)."""
    w, b = theta[:-1], theta[-1]
    margin = sign * (x @ w + b)
    value = np.sum(np.where(margin > 0, np.log1p(np.exp(-np.abs(margin))), -margin + np.log1p(np.exp(-np.abs(margin)))))
    pull = -sign * np.exp(-np.logaddexp(0, margin))
    return value + 0.5 * w @ w, np.append(x.T @ pull + w, pull.sum())


def lbfgs(x, sign, memory=12, limit=5000, tolerance=1e-7):
    theta = np.zeros(x.shape[1] + 1)
    value, gradient = objective(theta, x, sign)
    pairs = []
    for _ in range(limit):
        if np.abs(gradient).max() < tolerance:
            return theta
        direction, alphas = -gradient.copy(), []
        for s, y in reversed(pairs):
            alphas.append((s @ direction) / (s @ y))
            direction -= alphas[-1] * y
        if pairs:
            s, y = pairs[-1]
            direction *= (s @ y) / (y @ y)
        else:
            direction /= np.abs(gradient).max() * len(x)
        for (s, y), alpha in zip(pairs, reversed(alphas)):
            direction += (alpha - (y @ direction) / (s @ y)) * s
        step, slope = 1.0, gradient @ direction
        while True:
            new_value, new_gradient = objective(theta + step * direction, x, sign)
            if new_value <= value + 1e-4 * step * slope + 1e-12 * abs(value):
                break
            step *= 0.5
        s, y = step * direction, new_gradient - gradient
        if s @ y > 1e-14:
            pairs = (pairs + [(s, y)])[-memory:]
        theta, value, gradient = theta + s, new_value, new_gradient
    raise SystemExit("reference: no convergence")


def rank_auc(score, sign):
    """Wilcoxon's rank sum with average ranks for ties."""
    _, group, count = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    rank = (last - (count - 1) / 2.0)[group]
    cases, controls = np.sum(sign == 1), np.sum(sign == -1)
    return (rank[sign == 1].sum() - cases * (cases + 1) / 2.0) / (cases * controls)


def reference_auc(path):
    x, sign = load(path)
    seen, fold = {1: 0, -1: 0}, []
    for s in sign:
        fold.append(seen[s] % 5)
        seen[s] += 1
    fold = np.array(fold)
    score = np.zeros(len(sign))
    for k in range(5):
        train, test = fold != k, fold == k
        centre, spread = np.mean(x[train], axis=0), np.std(x[train], axis=0)
        theta = lbfgs((x[train] - centre) / spread, sign[train])
        # Probabilities, as the study pools them: each fold has an intercept of its own.
        score[test] = 1 / (1 + np.exp(-((x[test] - centre) / spread @ theta[:-1] + theta[-1])))
    return float(rank_auc(score, sign))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.rsplit("\n\n", 1)[1].strip())
    print(f"{reference_auc(sys.argv[1]):.6f}")
