"""Each step of the formula is as exact as docs/exactness.md says: the bounds that its proof adds up."""

import ctypes
import math
import os
import random
import re
import shutil
from fractions import Fraction
from pathlib import Path

import mpmath
import pytest
from processes import run_process

ROOT = Path(__file__).parent.parent
UNIT = Fraction(1, 2**62)
FAR = 2**20  # from this exponent on a Real is 0


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    """Calls a step of tests/native/arithmetic.cc: a list is a Real or a divisor; the result is a pair."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler on this machine")
    library = tmp_path_factory.mktemp("arithmetic") / "arithmetic.so"
    options = ["-std=c++17", "-O1", "-fPIC", "-shared", "-I", ROOT / "cc", "-o", library]
    done = run_process(compiler, *options, ROOT / "tests/native/arithmetic.cc")
    assert done.returncode == 0, done.stderr
    functions = ctypes.CDLL(str(library))

    def call(name, *arguments):
        out = (ctypes.c_uint64 * 2)()
        values = [
            (ctypes.c_uint64 * len(value))(*value) if isinstance(value, list) else ctypes.c_uint64(value)
            for value in arguments
        ]
        getattr(functions, name)(*values, out)
        return list(out)

    return call


def value(real):
    """The number that a Real is."""
    significand, exponent = real
    exponent -= 2**64 if exponent >= 2**63 else 0
    if exponent >= FAR:
        assert significand == 0
        return Fraction(0)
    assert significand >> 63, "normalized"
    return Fraction(significand, 2 ** (64 + exponent)) if exponent >= -64 else Fraction(significand << -64 - exponent)


def root(ratio):
    """The square root of a Fraction, to 200 bits."""
    return Fraction(math.isqrt((ratio.numerator << 600) // ratio.denominator), 2**300)


def off(found, true):
    """How far a Real is from the true value, in parts of that and in units of 2^-62."""
    return float((value(found) / true - 1) / UNIT)


def significands(draw, count):
    """Of 64 bits, the top one set: at random, near the ends, and with few bits."""
    ends = [2**63, 2**63 + 1, 2**64 - 1, 2**64 - 2, 3 * 2**62, 2**63 + 2**32, 2**64 - 2**32]
    return ends + [draw.getrandbits(63) | 2**63 for _ in range(count)]


def integers(draw, count, below=2**62):
    """From 1 on, of every length."""
    few = [1, 2, 3, 4, 5, 7, 8, 9, below - 1, below // 2, below // 2 - 1, below // 2 + 1]
    return few + [draw.randrange(1, max(2, int(2 ** draw.uniform(1, math.log2(below))))) for _ in range(count)]


# The least and the greatest error of each step, from docs/exactness.md.
ROWS = re.findall(r"^\| (`\w+\(.*?) \| (.+?) \| .+ \|$", (ROOT / "docs/exactness.md").read_text("utf-8"), re.MULTILINE)
BOUNDS = {
    step: (-float(said[2:]), float(said[2:])) if said[0] == "±" else tuple(map(float, said.split(" to ")))
    for step, said in ROWS
}


def within(errors, step):
    """Whether every error is within the bound, and the bound is at most three times the largest error seen."""
    least, most = BOUNDS[step]
    assert least <= min(errors) and max(errors) <= most, (min(errors), max(errors))
    assert max(abs(min(errors)), abs(max(errors))) > max(-least, most) / 3, (min(errors), max(errors))


def test_a_product(call):
    draw = random.Random(1)
    pairs = [(a, b) for a in significands(draw, 100) for b in significands(draw, 100)]
    within([off(call("product", [a, 3], [b, 0]), Fraction(a * b, 2**131)) for a, b in pairs], "`Product(a, b)`")
    assert value(call("product", [0, 2 * FAR], [2**63, 5])) == 0
    assert value(call("product", [3 * 2**62, 0], [5 * 2**61, 0])) == Fraction(15, 32)  # exact if it has the bits


def test_a_sum_and_a_difference(call):
    draw = random.Random(2)
    added, subtracted = [], []
    for a in significands(draw, 100):
        for b in significands(draw, 50):
            exponent = draw.choice([1, 1, 2, 3, 20, 62, 63, 64, 65, 200])
            large, small = [a, 1], [b, 1 + exponent]
            added.append(off(call("sum", large, small, 0), value(large) + value(small)))
            assert call("sum", small, large, 0) == call("sum", large, small, 0)
            if value(small) <= value(large) / 2:
                subtracted.append(off(call("sum", large, small, 2**64 - 1), value(large) - value(small)))
    within(added, "`Sum(a, b)`, added")
    within(subtracted, "`Sum(a, b)`, subtracted, b <= a / 2")


def test_a_quotient(call):
    draw = random.Random(3)
    errors = []
    for d in integers(draw, 2000):
        shift = 63 - d.bit_length()
        divisor = [d << shift, (2**126 - 1) // (d << shift), shift]
        numerators = {draw.randrange(d), 0, d - 1, d // 2, 1 % d}
        errors += [off(call("quotient", n, divisor), Fraction(n, d)) for n in numerators if n]
        assert value(call("quotient", 0, divisor)) == 0
        if d & (d - 1) == 0:
            assert value(call("quotient", d // 2, divisor)) == Fraction(d // 2, d)
    within(errors, "`Quotient(n, d)`")


def test_an_inverse_square_root(call):
    draw = random.Random(4)
    numbers = [*integers(draw, 5000, 2**64), *significands(draw, 5000), *(2**63 + (at << 54) for at in range(1, 512))]
    numbers += [2**62 + (at << 54) for at in range(256)]
    within([off(call("inverse_square_root", n), root(Fraction(1, n))) for n in numbers], "`InverseSquareRoot(n)`")


def test_a_square_root(call):
    draw = random.Random(5)
    errors = []
    for d in integers(draw, 3000, 2**64) + significands(draw, 3000):
        n = draw.randrange(min(d, 2**63 - 1)) + 1
        found, ratio = call("square_root", n, d), Fraction(n, d)
        errors.append(off(found, root(ratio)))
        exact = value(found) ** 2 == ratio
        assert found[0] & 1 == (not exact)  # sticky
        assert value(call("square_root", 0, d)) == 0
    within(errors, "`SquareRoot(n, d)`")
    for power in range(32):  # the roots that are exact
        for above in {2**power, 1, (2**power + 1) // 2, draw.randint(1, 2**power), draw.randint(1, 2**power)}:
            times = draw.choice([1, 3, draw.randint(1, 2 ** (63 - 2 * power) - 1)])
            found = call("square_root", above**2 * times, 4**power * times)
            assert value(found) == Fraction(above, 2**power) and found[0] & 1 == 0


def test_a_reciprocal(call):
    draw = random.Random(7)
    numbers = [d for d in significands(draw, 20_000) if d >= 3 * 2**62]
    within([off(call("half_reciprocal", d), Fraction(2**63, d)) for d in numbers], "`HalfReciprocal(d)`, d >= 3/4")


def test_the_square_of_a_sine(call):
    draw = random.Random(8)
    errors = []
    with mpmath.workprec(300):
        for significand in [2**63 | at << 53 for at in range(1024)] + significands(draw, 3000):
            x = [significand, draw.choice([1, 1, 1, 2, 3, 10, 40, 63])]
            true = mpmath.sin(mpmath.pi / 2 * mpmath.mpf(significand) / mpmath.mpf(2) ** (64 + x[1])) ** 2
            errors.append(off(call("sine_squared", x), Fraction(int(mpmath.ldexp(true, 290)), 2**290)))
        half = call("sine_squared", [2**63, 0])
    within(errors + [off(half, Fraction(1, 2))], "`SineSquared(x)`")
