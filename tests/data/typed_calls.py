"""Calls as type checkers see them: a line that ends with `# wrong` is one that they must refuse, and no other is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from typing_extensions import assert_type

from grid import LocalGrid, Proxy, Result, ServiceId, Stream


class Base:
    def name(self) -> str:
        return "base"


class Model(Base):
    scale = 2.0

    def energy(self, x: float, *, steps: int = 1) -> float:
        return self.scale * x * steps

    def walk(self, steps: int) -> Iterator[float]:
        yield from map(float, range(steps))

    def forces(self, at: Sequence[float]) -> list[float]:
        return list(at)


class Other:
    def weight(self) -> int:
        return 1


def use(g: LocalGrid, text: str) -> float:
    sid = g.publish(Model())
    assert_type(sid, ServiceId[Model])
    plain: str = sid
    with g.acquire_service(sid, timeout=5.0) as proxy:
        assert_type(proxy, Proxy[Model])
        energy = proxy.call(Model.energy, 2.0, steps=3)
        assert_type(energy, Result[float])
        assert_type(energy.get(), float)
        assert_type(energy.result(1.0), float)
        assert_type(proxy.call(Base.name).get(), str)
        assert_type(proxy.call(Model.forces, [1.0]).get(), list[float])
        assert_type(proxy.call(Model.walk, 3), Stream[float])
        assert_type(proxy.call(Model.walk, 3).get(), list[float])
        proxy.call(Model.walk, "3")  # wrong
        proxy.call(Model.enrgy, 2.0)  # wrong
        proxy.call(Model.energy, "2")  # wrong
        proxy.call(Model.energy)  # wrong
        proxy.call(Model.energy, 2.0, stps=3)  # wrong
        proxy.call(Model.energy, 2.0, 3)  # wrong
        proxy.call(Other.weight)  # wrong
        proxy.call(Model.forces, 1.0)  # wrong
        wrong: int = proxy.call(Base.name).get()  # wrong
        untyped = proxy.energy(2.0)
        untyped.get()
    with g.acquire_service(text) as anybody:
        anybody.whatever(1)
        anybody.call(Other.weight)
    g.acquire_service(3)  # wrong
    return proxy.call(Model.energy, 1.0).get() + wrong + len(plain)


async def later(proxy: Proxy[Model]) -> float:
    value = await proxy.call(Model.energy, 1.0)
    assert_type(value, float)
    return value
