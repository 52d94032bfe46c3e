"""A job matrix of GitHub Actions as the list of its combinations. Pure.

Source: GitHub's workflow syntax, `jobs.<job_id>.strategy.matrix`: the product of the axes, less
what `exclude` matches; an `include` adds to every combination whose axes it does not contradict,
else it is a combination of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from stretto_sdk.fields import Fields, Mistakes, name_of

COMBINATIONS_MAX = 256
"""GitHub's own limit of jobs a matrix."""

Combination = dict[str, object]


def is_dynamic(matrix: object) -> bool:
    """Whether an expression makes the matrix, or one of its axes, when the workflow runs."""
    if isinstance(matrix, Mapping):
        return any(isinstance(each, str) for each in matrix.values())
    return isinstance(matrix, str)


def combinations(matrix: object, path: str, mistakes: Mistakes) -> list[Combination]:
    """Return the combinations of a matrix that is not dynamic, in GitHub's order."""
    fields = Fields(matrix, path, mistakes)
    if not isinstance(matrix, Mapping):
        return []
    axes: dict[str, list[object]] = {}
    for name, values in matrix.items():
        if name in ("include", "exclude"):
            continue
        if not isinstance(values, list) or not values:
            fields.wrong(name, f"must be a list of at least one value, not {name_of(values)}")
            return []
        axes[name] = values
    size = 1
    for values in axes.values():
        size *= len(values)
    included = fields.each("include", _combination)
    if size + len(included) > COMBINATIONS_MAX:
        mistakes.add(path, f"has more than {COMBINATIONS_MAX} combinations")
        return []
    excluded = fields.each("exclude", _combination)
    products = [
        dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())
    ]
    # Without axes the product is one empty combination, which is none.
    found = [each for each in products if each and not _matches_any(each, excluded)]
    _include(found, included, axes)
    if not found:
        mistakes.add(path, "has no combination")
    return found


def _matches_any(combination: Combination, patterns: list[Combination]) -> bool:
    return any(
        all(combination.get(key) == value for key, value in pattern.items()) for pattern in patterns
    )


def _include(
    found: list[Combination], included: list[Combination], axes: Mapping[str, object]
) -> None:
    products = list(found)
    for each in included:
        fitting = [
            combination
            for combination in products
            if all(combination[key] == value for key, value in each.items() if key in axes)
        ]
        for combination in fitting:
            combination.update(each)
        if not fitting:
            found.append(dict(each))


def _combination(value: object, path: str, mistakes: Mistakes) -> Combination:
    if isinstance(value, Mapping):
        return dict(value)
    mistakes.add(path, f"must be an object, not {name_of(value)}")
    return {}
