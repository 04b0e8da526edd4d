#!/usr/bin/python3
"""A second study: how many patients there are of each diagnosis and size of nuclei.

Python's standard library only. job.yaml declares the table with a recipe, so the Output Gate computes it again from the
same file, and lets this one leave only if it is that one: nothing in it is this program's choice. What the program
writes follows the recipe to the letter: every combination has its row, and counts are multiples of five.
"""
import argparse
import csv
import os
import sys
from fractions import Fraction

SIZES = (("small", None), ("medium", Fraction(13)), ("large", Fraction(15)))  # each from its bound
DIAGNOSES = ("B", "M")
BASE = 5


def size_of(radius):
    return [name for name, bound in SIZES if bound is None or radius >= bound][-1]


def count(path):
    patients = {(d, s): set() for d in DIAGNOSES for s, _ in SIZES}
    with open(path, newline="", encoding="ascii") as f:
        for row in csv.DictReader(f):
            patients[row["diagnosis"], size_of(Fraction(row["radius_mean"]))].add(row["patient"])
    return {cell: (len(who) + BASE // 2) // BASE * BASE for cell, who in patients.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", default="/data/wdbc/patients.csv")
    parser.add_argument("--out", default="/out")
    args = parser.parse_args()
    cells = count(args.data)
    with open(os.path.join(args.out, "cells.csv"), "w", newline="", encoding="ascii") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow(["diagnosis", "size", "patients"])
        out.writerows((d, s, n) for (d, s), n in cells.items())


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, KeyError) as error:
        # The kind only: a message could quote the data.
        sys.exit(f"cell counts: {type(error).__name__}")
