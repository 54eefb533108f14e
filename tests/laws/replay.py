"""Run one example again: `python -m tests.laws.replay '<JSON that a failing test printed>'`."""

from __future__ import annotations

import sys

from tests.support.laws.configurations import Example
from tests.support.laws.judging import divergence, explain


def main(text: str) -> int:
    """Print the divergence of mlx_impl from the oracle, if any; 1 where there is one."""
    example = Example.from_json(text)
    found = divergence(example)
    print("mlx_impl agrees with the oracle at every tap" if found is None else explain(example, found))
    return 0 if found is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
