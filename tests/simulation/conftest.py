"""What the simulations share."""

# Where no test uses it, Hypothesis' own plugin would import it after the last test, with millions of objects alive that
# are collected meanwhile: there CPython 3.11.7 stumbles over itself (https://github.com/python/cpython/issues/106905).
import hypothesis  # noqa: F401
