"""What the tests of exceptions raise: importable where there is no pytest."""

from __future__ import annotations


class Broke(Exception):
    """Takes other arguments than it hands on."""

    def __init__(self, a: int, b: str) -> None:
        super().__init__(f"{a} and {b} broke")
        self.a, self.b = a, b


class Silent(Exception):
    """Rebuilt from its message it would have another one, without an error."""

    def __init__(self, value: object) -> None:
        super().__init__(f"bad value: {value}")
        self.value = value


def breaking(n: int) -> int:
    if n != 3:
        return n
    try:
        {}["missing"]
    except KeyError as exc:
        raise Broke(n, "b") from exc
    return 0
