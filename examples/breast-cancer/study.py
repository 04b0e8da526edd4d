#!/usr/bin/python3
"""A study that runs inside Glovebox: how well do 30 measurements of cell nuclei tell malignant from benign tumours?

L2-regularised logistic regression by Newton's method, 5-fold stratified cross-validation with a fixed split, features
standardised inside each fold. Python and numpy only; no network, no writes except to the output folder.

What it writes is small on purpose. Whoever owns the data counts every bit that leaves, so each number has at most
three significant digits and three decimals, and every file has the shape that job.yaml declares for it:

  coefficients.csv   feature, coefficient       the model fitted to all rows, on standardised features
  calibration.csv    bin, n, predicted, observed    ten groups of equal size by out-of-fold risk
  metrics.json       one flat object            out-of-fold performance
"""
import argparse
import csv
import json
import os
import sys
import time

import numpy as np

LABEL, POSITIVE, NEGATIVE = "diagnosis", "M", "B"
FOLDS = 5
PENALTY = 1.0  # on the sum of the log-losses; the intercept is free
BINS = 10


def read(path):
    with open(path, newline="", encoding="ascii") as f:
        rows = csv.reader(f)
        header = next(rows)
        if header[-1] != LABEL or len(set(header)) != len(header):
            raise ValueError(f"the last column must be {LABEL} and no name may appear twice")
        x, y = [], []
        for row in rows:
            if len(row) != len(header) or row[-1] not in (POSITIVE, NEGATIVE):
                raise ValueError("a row has the wrong number of columns or an unknown label")
            x.append([float(v) for v in row[:-1]])
            y.append(row[-1] == POSITIVE)
    x, y = np.array(x), np.array(y, dtype=float)
    if not np.isfinite(x).all() or min(y.sum(), len(y) - y.sum()) < FOLDS:
        raise ValueError("the data has a missing value or too few cases")
    return header[:-1], x, y


def sigmoid(z):
    return np.exp(-np.logaddexp(0.0, -z))


def fit(x, y, penalty=PENALTY):
    """Newton's method on sum(log-loss) + penalty/2 * |w|^2; the first weight is the intercept."""
    design = np.column_stack([np.ones(len(x)), x])
    ridge = np.full(design.shape[1], penalty)
    ridge[0] = 0.0

    def loss(w):
        z = design @ w
        return np.sum(np.logaddexp(0.0, z) - y * z) + 0.5 * np.sum(ridge * w * w)

    w = np.zeros(design.shape[1])
    for _ in range(100):
        p = sigmoid(design @ w)
        gradient = design.T @ (p - y) + ridge * w
        hessian = (design.T * (p * (1.0 - p))) @ design + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        if np.max(np.abs(step)) < 1e-10:
            return w
        before, size = loss(w), 1.0
        while loss(w - size * step) > before + 1e-9 and size > 1e-6:
            size /= 2.0
        w = w - size * step
    raise ArithmeticError("the model did not converge")


def predict(w, x):
    return sigmoid(w[0] + x @ w[1:])


def standardise(train, other):
    mean, spread = train.mean(axis=0), train.std(axis=0)
    spread[spread == 0.0] = 1.0
    return (train - mean) / spread, (other - mean) / spread


def split(y):
    """The k-th case of a class, in file order, goes to fold k mod FOLDS."""
    fold = np.empty(len(y), dtype=int)
    for value in (0.0, 1.0):
        where = np.flatnonzero(y == value)
        fold[where] = np.arange(len(where)) % FOLDS
    return fold


def auc(score, y):
    """The share of (case, control) pairs ranked the right way round; ties count half."""
    case, control = score[y == 1.0], np.sort(score[y == 0.0])
    below = np.searchsorted(control, case, side="left")
    upto = np.searchsorted(control, case, side="right")
    return float(np.mean((below + upto) / 2.0) / len(control))


def calibration_slope(p, y):
    logit = np.log(np.clip(p, 1e-9, 1 - 1e-9) / np.clip(1 - p, 1e-9, 1 - 1e-9))
    return fit(logit[:, None], y, penalty=0.0)[1]


def short(value):
    """Three significant digits, at most three decimals, no exponent, no minus zero."""
    text = f"{float(f'{float(value):.3g}'):.3f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def write_csv(path, header, rows):
    with open(path, "w", newline="", encoding="ascii") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow(header)
        out.writerows(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", default=os.environ.get("STUDY_DATA", "/data/wdbc/breast_cancer.csv"))
    parser.add_argument("--out", default=os.environ.get("STUDY_OUT", "/out"))
    args = parser.parse_args()
    start = time.monotonic()

    def say(text):
        print(f"{time.monotonic() - start:5.2f} s  {text}", flush=True)

    names, x, y = read(args.data)
    say(f"read {len(x)} rows, {len(names)} features")

    fold = split(y)
    risk, per_fold = np.empty(len(y)), []
    for k in range(FOLDS):
        test = fold == k
        inside, outside = standardise(x[~test], x[test])
        risk[test] = predict(fit(inside, y[~test]), outside)
        per_fold.append(auc(risk[test], y[test]))
        say(f"fold {k + 1} of {FOLDS} done")

    everything, _ = standardise(x, x)
    weights = fit(everything, y)
    write_csv(os.path.join(args.out, "coefficients.csv"), ["feature", "coefficient"],
              sorted((name, short(w)) for name, w in zip(["intercept", *names], weights)))

    bins = np.array_split(np.argsort(risk, kind="stable"), BINS)
    write_csv(os.path.join(args.out, "calibration.csv"), ["bin", "n", "predicted", "observed"],
              [(i + 1, len(b), short(risk[b].mean()), short(y[b].mean())) for i, b in enumerate(bins)])

    called = risk >= 0.5
    sure = np.clip(risk, 1e-9, 1 - 1e-9)
    metrics = {
        "accuracy": np.mean(called == (y == 1.0)),
        "auc": auc(risk, y),
        "auc_fold_max": max(per_fold),
        "auc_fold_min": min(per_fold),
        "brier": np.mean((risk - y) ** 2),
        "calibration_slope": calibration_slope(risk, y),
        "log_loss": -np.mean(y * np.log(sure) + (1 - y) * np.log(1 - sure)),
        "sensitivity": np.mean(called[y == 1.0]),
        "specificity": np.mean(~called[y == 0.0]),
    }
    report = {name: float(short(value)) for name, value in metrics.items()}
    report |= {"features": len(names), "folds": FOLDS, "n": len(y), "n_malignant": int(y.sum())}
    with open(os.path.join(args.out, "metrics.json"), "w", encoding="ascii") as f:
        json.dump(report, f, sort_keys=True, indent=1)
        f.write("\n")
    say("wrote coefficients.csv, calibration.csv, metrics.json")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        # The kind only: a message could quote the data.
        sys.exit(f"study: {type(error).__name__}")
