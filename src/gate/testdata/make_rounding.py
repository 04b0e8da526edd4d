#!/usr/bin/python3
"""Writes rounding.txt: known answers for src/gate/decimal.cpp from Python's decimal module.

Each line: text digits scale rounded. Half to even, once, at the coarser of the two places (digits 0: no such limit).
"""
import decimal
import random

decimal.getcontext().prec = 1000
FIXED = [("0.5", 0, 0), ("1.5", 0, 0), ("2.5", 0, 0), ("-2.5", 0, 0), ("-0.5", 0, 0), ("-0", 3, 3), ("-0.0", 3, 3), ("0.0005", 3, 3),
         ("0.0015", 3, 3), ("0.00050001", 3, 3), ("9.995", 3, 3), ("9.985", 3, 3), ("99.95", 3, 3), ("999.5", 3, 3), ("9995", 3, 3),
         ("0.0045001", 3, 3), ("0.004499", 3, 3), ("1e5", 3, 3), ("1E-5", 3, 3), ("1.25e1", 2, 3), ("1.35e1", 2, 3), ("12345678", 3, 0),
         ("0.1000000000000000055511151231257827", 3, 3), ("17.99", 3, 3), ("122.8", 3, 3), ("1001", 3, 3), ("0.07871", 3, 3),
         ("99999999999999999999", 15, 9), ("1e400", 3, 3), ("1e-400", 3, 9), ("0.9999999999", 3, 9), ("4.4501477170144023e-308", 3, 3)]


def rounded(text, digits, scale):
    value = decimal.Decimal(text)
    if value == 0:
        return "0"
    place = -scale
    if digits:
        place = max(place, value.adjusted() - digits + 1)
    if value.as_tuple().exponent < place:
        value = value.quantize(decimal.Decimal(1).scaleb(place), rounding=decimal.ROUND_HALF_EVEN)
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def main():
    rng = random.Random(7)
    cases = list(FIXED)
    for _ in range(220):
        whole = str(rng.choice([0, 0, rng.randrange(10), rng.randrange(100), rng.randrange(10**6)]))
        part = "".join(rng.choice("0459" if rng.random() < 0.5 else "0123456789") for _ in range(rng.randrange(0, 12)))
        text = rng.choice(["", "-"]) + whole + ("." + part if part else "") + rng.choice(["", "", "", "e3", "e-2", "E+7"])
        cases.append((text, rng.choice([0, 1, 2, 3, 4, 15]), rng.randrange(10)))
    with open("rounding.txt", "w", encoding="ascii") as f:
        for text, digits, scale in cases:
            f.write(f"{text} {digits} {scale} {rounded(text, digits, scale)}\n")


main()
