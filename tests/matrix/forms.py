"""What people write in a script: more than 150 forms of definition, each with something that uses it.

Run as a script, under any Python, in a directory of its own: prints a JSON line for each form and each way to use it.

    python tests/matrix/forms.py [--no-loky] [--quick] [name of a form ...]

Lives here: the forms of plain Python and of light libraries. Elsewhere: running them (`run`), those of heavy libraries
(`heavy`), judging (`tests/edges/test_matrix.py`).

A `@form` is a function that runs on a server and must give there what it gives here. A `@value` makes something that
goes to a server as an argument and comes back as a result; `look` says what is seen of it. `stays`: it can't travel,
and a word of the reason. The definitions that a form uses stand above it.
"""

from __future__ import annotations

import abc
import asyncio
import collections
import concurrent.futures
import contextlib
import contextvars
import copyreg
import ctypes
import dataclasses
import datetime
import decimal
import email.mime.text
import enum
import fractions
import functools
import heapq
import io
import itertools
import logging
import logging.handlers
import operator
import os
import os.path
import pathlib
import queue
import random
import re
import socket
import sqlite3
import string
import struct
import subprocess
import sys
import threading
import types
import typing
import urllib.parse
import uuid
import warnings
import weakref
import xml.dom.minidom
import zlib
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from typing import Any, ClassVar, Generic, NamedTuple, NewType, Protocol, TypedDict, TypeVar

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from tests.matrix.run import form, main, value

# -- functions -----------------------------------------------------------------------------------------------------


def plain(x):
    return x + 1


@form
def function_calls_function():
    return plain(1)


square = lambda x: x * x  # noqa: E731


@form
def lambda_with_a_name():
    return square(3)


def even(n):
    return True if n == 0 else odd(n - 1)


def odd(n):
    return False if n == 0 else even(n - 1)


@form
def mutual_recursion():
    return even(10), odd(7)


def fact(n):
    return 1 if n < 2 else n * fact(n - 1)


@form
def recursion():
    return fact(10)


def with_defaults(a, b=[1, 2], *, c={"k": 3}, d=None, **more):  # noqa: B006
    return a, b, c, d, more


@form
def defaults_and_keyword_only():
    return with_defaults(0, d=4, e=5)


def positional_only(a, /, b):
    return a - b


@form
def positional_only_arguments():
    return positional_only(5, b=2)


def counter():
    n = 0

    def step():
        nonlocal n
        n += 1
        return n

    def look():
        return n

    return step, look


STEP, LOOK = counter()


@form
def closures_that_share_a_variable():
    STEP()
    STEP()
    return LOOK() == STEP() - 1


def outer(x):
    def middle(y):
        def inner(z):
            return x + y + z

        return inner

    return middle


@form
def closures_in_closures():
    return outer(1)(2)(3)


def self_referring():
    def f(n):
        return 1 if n == 0 else n * f(n - 1)

    return f


RECURSIVE_CLOSURE = self_referring()


@form
def closure_that_calls_itself():
    return RECURSIVE_CLOSURE(5)


def unfilled():
    def use():
        return later

    if False:
        later = 1
    return use


UNFILLED = unfilled()


@form
def closure_over_a_variable_without_value():
    try:
        UNFILLED()
    except NameError:
        return "NameError"
    return "?"


def decorated(f):
    @functools.wraps(f)
    def wrapper(*args):
        return ("wrapped", f(*args))

    wrapper.calls = 0
    return wrapper


@decorated
def under_decorator(x):
    """Doc."""
    return x


@form
def decorator_with_wraps():
    return under_decorator(1), under_decorator.__doc__, under_decorator.calls, under_decorator.__wrapped__(2)


def by_arguments(n):
    def decorate(f):
        return lambda *args: [f(*args)] * n

    return decorate


@by_arguments(2)
@decorated
def twice_decorated(x):
    return x


@form
def decorators_on_decorators():
    return twice_decorated(5)


class CallableDecorator:
    def __init__(self, f):
        self.f, self.calls = f, 0
        functools.update_wrapper(self, f)

    def __call__(self, *args):
        self.calls += 1
        return self.f(*args), self.calls


@CallableDecorator
def under_a_class(x):
    return x


@form
def decorator_that_is_a_class():
    return under_a_class(7)[0], under_a_class.calls > 0, under_a_class.__name__


@functools.lru_cache(maxsize=100)
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


@form
def lru_cache_on_a_recursive_function():
    return fib(50)


@functools.cache
def cached(n):
    return n * 2


@form
def functools_cache():
    return cached(4), cached.cache_info().maxsize


@functools.singledispatch
def kind(x):
    return "other"


@kind.register(int)
def _(x):
    return "int"


@kind.register(list)
def _(x):
    return "list"


@form
def singledispatch():
    return kind(1), kind([]), kind("")


class Dispatching:
    @functools.singledispatchmethod
    def kind(self, x):
        return "other"

    @kind.register(int)
    def _(self, x):
        return "int"


@form
def singledispatchmethod():
    return Dispatching().kind(1), Dispatching().kind("")


HALF = functools.partial(operator.mul, 0.5)
OF_MAIN = functools.partial(with_defaults, 1, d=2)


@form
def partials():
    return HALF(4), OF_MAIN(e=3)


class PartialMethods:
    def scaled(self, by, x):
        return by * x

    double = functools.partialmethod(scaled, 2)


@form
def partialmethod():
    return PartialMethods().double(4)


GETTERS = operator.itemgetter(1), operator.attrgetter("real"), operator.methodcaller("upper")


@form
def operator_getters():
    return GETTERS[0]([1, 2]), GETTERS[1](3), GETTERS[2]("a")


REDUCED = functools.reduce


@form
def builtins_under_another_name():
    return REDUCED(max, [1, 5, 2])


def generator(n):
    yield from range(n)


@form
def generator_function():
    return list(generator(3))


async def coroutine(x):
    await asyncio.sleep(0)
    return x + 1


@form
def coroutine_function():
    return asyncio.run(coroutine(1))


async def async_generator(n):
    for i in range(n):
        yield i


@form
def async_generators_and_comprehensions():
    async def collect():
        return [i async for i in async_generator(3)]

    return asyncio.run(collect())


@contextlib.contextmanager
def managed(x):
    yield x + 1


@form
def contextmanager():
    with managed(1) as x:
        return x


class OwnManager:
    def __enter__(self):
        return 5

    def __exit__(self, *_):
        return True


@form
def class_as_context_manager():
    with OwnManager() as five:
        raise ValueError
    return five


def annotated(x: int, y: Annotation = None) -> Annotation:
    return x


Annotation = typing.Optional[int]  # noqa: UP045


@form
def annotations_as_strings():
    return annotated(1), sorted(annotated.__annotations__)


@form
def class_made_in_the_form():
    class Local:
        n = LIMIT

    return Local.n


LIMIT = 12


@form
def comprehension_over_a_global():
    return [x + LIMIT for x in range(2)], {LIMIT: LIMIT}


@form
def walrus_and_star():
    return (n := LIMIT), [*range(2), n]


def takes_function(f):
    return f(3)


@form
def lambda_inside():
    return takes_function(lambda x: x + LIMIT)


exec("def executed(x):\n    return x + LIMIT\n")


@form
def function_made_by_exec():
    return executed(1)  # noqa: F821


EVALUATED = eval("lambda x: x - LIMIT")


@form
def function_made_by_eval():
    return EVALUATED(1)


MADE = types.FunctionType(plain.__code__, globals(), "made")


@form
def function_made_by_hand():
    return MADE(1)


def attributed():
    return attributed.data


attributed.data = {"a": 1}


@form
def function_with_attributes():
    return attributed()


@form
def name_by_globals():
    return globals().get("LIMIT", LIMIT)


TOTAL = 0


def add(n):
    global TOTAL
    TOTAL += n
    return TOTAL


@form
def global_that_is_changed():
    first = add(2)
    return add(2) - first


HANDLERS = {"plain": plain, "square": square, "kind": kind}


@form
def functions_in_a_table():
    return HANDLERS["plain"](1), HANDLERS["square"](2), HANDLERS["kind"](1)


# -- modules, names ------------------------------------------------------------------------------------------------


@form
def submodule_by_dots():
    return xml.dom.minidom.parseString("<a/>").documentElement.tagName


@form
def submodule_of_logging():
    return logging.handlers.MemoryHandler(1).capacity


@form
def submodule_three_deep():
    return email.mime.text.MIMEText("x").get_payload()


@form
def submodule_that_is_an_alias():
    return os.path.basename("/a/b"), urllib.parse.quote(" ")


import xml.sax.saxutils as saxutils  # noqa: E402


@form
def module_under_another_name():
    return saxutils.escape("<")


@form
def import_inside():
    import colorsys

    return colorsys.rgb_to_hsv(0, 0, 1)


DYNAMIC = types.ModuleType("made_up")
exec("VALUE = 3\ndef f(): return VALUE", DYNAMIC.__dict__)


@form
def module_made_by_hand():
    return DYNAMIC.f(), DYNAMIC.VALUE


@form
def file_of_the_script():
    return os.path.basename(__file__)


@form
def name_of_the_script():
    return __name__


LOGGER = logging.getLogger("a.b")


@form
def logger():
    return LOGGER.name, LOGGER.isEnabledFor(logging.CRITICAL)


@form
def print_and_streams():
    print("", end="", file=sys.stderr)
    return sys.stdout is not None


# -- data ----------------------------------------------------------------------------------------------------------

TABLE = list(range(100_000))
TEXT = "x" * 400_000
BYTES = bytes(500_000)
NESTED: list[Any] = []
for _depth in range(100):
    NESTED = [NESTED]
CYCLE: list[Any] = [1]
CYCLE.append(CYCLE)
SHARED: list[Any] = []
SHARERS = {"a": SHARED, "b": SHARED}


@form
def large_list():
    return sum(TABLE)


@form
def large_text_and_bytes():
    return len(TEXT), len(BYTES)


@form
def nested_data():
    depth, each = 0, NESTED
    while each:
        each, depth = each[0], depth + 1
    return depth


@form
def data_in_a_cycle():
    return CYCLE[1] is CYCLE


@form
def data_that_is_shared():
    return SHARERS["a"] is SHARERS["b"] and SHARERS["a"] is SHARED


COLLECTIONS = (Counter("aab"), OrderedDict(a=1), defaultdict(list, {"x": [1]}), deque([1, 2], maxlen=3))


@form
def collections_of_all_sorts():
    return [sorted(COLLECTIONS[0].items()), list(COLLECTIONS[1]), COLLECTIONS[2]["new"], COLLECTIONS[3].maxlen]


DEFAULT_OF_MAIN = defaultdict(lambda: LIMIT)


@form
def defaultdict_with_a_lambda():
    return DEFAULT_OF_MAIN["x"]


CHAIN = collections.ChainMap({"a": 1}, {"b": 2})
PROXY = types.MappingProxyType({"a": 1})
SPACE = types.SimpleNamespace(a=1, f=plain)


@form
def chain_proxy_and_namespace():
    return CHAIN["b"], PROXY["a"], SPACE.f(SPACE.a)


VIEWS = {"a": 1}.keys(), {"a": 1}.values(), {"a": 1}.items()


@form
def views_of_dictionaries():
    return [list(view) for view in VIEWS]


NUMBERS = decimal.Decimal("1.5"), fractions.Fraction(1, 3), 1 + 2j, float("inf"), 10**50


@form
def numbers_of_all_sorts():
    return [str(n) for n in NUMBERS]


TIMES = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc), datetime.timedelta(1), datetime.date(2020, 1, 2)


@form
def dates():
    return [str(t) for t in TIMES]


PATTERN = re.compile(r"(\d+)")
PATH = pathlib.Path("/a/b")
RANGE, SLICE, DOTS = range(3), slice(1, 2), ...


@form
def pattern_path_range():
    return PATTERN.findall("a1b22"), str(PATH / "c"), list(RANGE), [1, 2, 3][SLICE], DOTS is Ellipsis


RNG = random.Random(7)
UUID = uuid.UUID(int=5)
STRUCT = struct.Struct("<I")
TEMPLATE = string.Template("$a")


@form
def generators_and_formats():
    return random.Random(7).random(), UUID.int, struct.calcsize(STRUCT.format), TEMPLATE.substitute(a=1)


ITERATOR = iter([1, 2, 3])
COUNT = itertools.count(5) if sys.version_info < (3, 14) else iter(range(5, 99))  # can't be pickled since
ZIPPED = zip([1, 2], "ab", strict=False)


@form
def iterators():
    return next(COUNT) >= 5, len(list(ITERATOR)) in (0, 3)


BUFFER = io.BytesIO(b"abc")
WORDS = io.StringIO("abc")


@form
def files_in_memory():
    return BUFFER.getvalue(), WORDS.getvalue()


HEAP: list[tuple[int, str]] = []
heapq.heappush(HEAP, (1, "a"))


@form
def heap():
    return HEAP[0]


MEMORY = memoryview(b"abc")


@form
def memory_view():
    return bytes(MEMORY)


# -- classes -------------------------------------------------------------------------------------------------------


class Plain:
    scale = 2

    def __init__(self, x=1):
        self.x = x

    def area(self):
        return self.scale * self.x

    def __eq__(self, other):
        return type(other) is type(self) and other.x == self.x

    def __hash__(self):
        return hash(self.x)


@form
def class_with_methods():
    return Plain(3).area()


@value(lambda v: (type(v) is Plain, v == Plain(2), v.area()))
def instance_of_a_class():
    return Plain(2)


@value(lambda v: v is Plain)
def class_itself():
    return Plain


@value(lambda v: v(2))
def bound_method():
    return Multiplier(3).by


class Multiplier:
    def __init__(self, n):
        self.n = n

    def by(self, x):
        return self.n * x


class Child(Plain):
    def area(self):
        return super().area() + 1


class GrandChild(Child):
    def area(self):
        return super(GrandChild, self).area() + 1  # noqa: UP008


@form
def super_of_both_kinds():
    return GrandChild(1).area()


class Left(Plain):
    def area(self):
        return ("left", super().area())


class Right(Plain):
    def area(self):
        return ("right", super().area())


class Diamond(Left, Right):
    pass


@form
def diamond():
    return Diamond(1).area(), [each.__name__ for each in Diamond.__mro__]


class Properties:
    _x = 1

    @property
    def x(self):
        return self._x

    @x.setter
    def x(self, new):
        self._x = new

    @staticmethod
    def static(a):
        return a

    @classmethod
    def made(cls, a):
        new = cls()
        new.x = a
        return new


@form
def properties_static_and_class_methods():
    return Properties.made(4).x, Properties.static(2), Properties.x.fget.__name__


class Cached:
    @functools.cached_property
    def costly(self):
        return LIMIT


@form
def cached_property():
    return Cached().costly


class Typed:
    def __set_name__(self, owner, name):
        self.name = "_" + name

    def __get__(self, instance, owner):
        return self if instance is None else getattr(instance, self.name, None)

    def __set__(self, instance, new):
        setattr(instance, self.name, int(new))


class Descriptors:
    n = Typed()


@form
def descriptors():
    each = Descriptors()
    each.n = "5"
    return each.n, Descriptors.n.name


class Slots:
    __slots__ = ("__private", "a", "b")

    def __init__(self):
        self.a, self.b, self.__private = 1, 2, 3

    def private(self):
        return self.__private


class MoreSlots(Slots):
    __slots__ = ("c",)


@form
def slots():
    each = MoreSlots()
    each.c = 4
    return each.a, each.private(), hasattr(each, "__dict__"), Slots.__slots__


@value(lambda v: (v.a, v.private(), type(v) is Slots))
def instance_with_slots():
    return Slots()


class WeakSlots:
    __slots__ = ("__weakref__", "a")


@form
def slots_with_weakref():
    each = WeakSlots()
    return weakref.ref(each)() is each


class Nested:
    class Inner:
        class Deeper:
            n = 5

            def up(self):
                return Nested.Inner.Deeper.n

    inner = Inner()


@form
def classes_in_classes():
    return Nested.Inner.Deeper().up(), type(Nested.inner) is Nested.Inner


@value(lambda v: type(v) is Nested.Inner.Deeper)
def instance_of_a_nested_class():
    return Nested.Inner.Deeper()


def make_class(n):
    class Made:
        size = n

        def get(self):
            return self.size

        def same(self):
            return Made

    return Made


MADE_CLASS = make_class(4)


@form
def class_made_in_a_function():
    return MADE_CLASS().get(), MADE_CLASS().same() is MADE_CLASS


@value(lambda v: (v.get(), type(v).__name__))
def instance_of_a_local_class():
    return make_class(6)()


DYNAMIC_CLASS = type("DynamicClass", (Plain,), {"area": lambda self: -1, "extra": 5})


@form
def class_made_by_type():
    return DYNAMIC_CLASS().area(), DYNAMIC_CLASS.extra, issubclass(DYNAMIC_CLASS, Plain)


Renamed = type("OtherName", (), {"n": 1})


@form
def class_under_another_name():
    return Renamed.n, Renamed.__name__


class Base:
    registry: ClassVar[dict[str, type]] = {}

    def __init_subclass__(cls, *, tag, **kwargs):
        super().__init_subclass__(**kwargs)
        Base.registry[tag] = cls


class First(Base, tag="first"):
    pass


class Second(First, tag="second"):
    pass


@form
def registry_by_init_subclass():
    return sorted(Base.registry), Base.registry["second"] is Second


PLUGINS: list[type] = []


class Plugin:
    def __init_subclass__(cls):
        PLUGINS.append(cls)


class PluginA(Plugin):
    pass


class PluginB(Plugin):
    pass


@form
def registry_in_a_global():
    return [each.__name__ for each in PLUGINS], PLUGINS[0] is PluginA


class UsesOneOfARegistry(Plugin):
    n = 3


@form
def registry_from_one_of_its_classes():
    return UsesOneOfARegistry.n


COMMANDS: dict[str, Any] = {}


def command(f):
    COMMANDS[f.__name__] = f
    return f


@command
def run_it():
    return LIMIT


@form
def registry_of_functions():
    return COMMANDS["run_it"]()


class Colour:
    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return self.name


Colour.RED = Colour("red")
Colour.ALL = [Colour.RED, Colour("blue")]


@form
def instances_as_attributes_of_their_class():
    return repr(Colour.RED), Colour.ALL[0] is Colour.RED, type(Colour.RED) is Colour


class Singleton:
    _instance = None

    def __new__(cls):
        if cls._instance is None:
            cls._instance = super().__new__(cls)
            cls._instance.n = 5
        return cls._instance


SINGLETON = Singleton()


@form
def singleton_by_new():
    return Singleton() is SINGLETON, SINGLETON.n, Singleton._instance is SINGLETON


class Stateful:
    known: ClassVar[dict[str, Stateful]] = {}

    def __init__(self, key):
        self.key, self.open = key, True
        Stateful.known[key] = self

    def __getstate__(self):
        return (self.key,)

    def __setstate__(self, state):
        (self.key,) = state
        self.open = False


Stateful("a")


@form
def instances_with_setstate_in_their_class():
    return Stateful.known["a"].key


@value(lambda v: (v.key, type(v) is Stateful))
def instance_with_getstate():
    return Stateful("b")


class Reduced:
    def __init__(self, a):
        self.a = a

    def __reduce__(self):
        return Reduced, (self.a,)


@value(lambda v: (v.a, type(v) is Reduced))
def instance_with_reduce():
    return Reduced(3)


class NewArgs(tuple):
    def __new__(cls, a, b):
        return super().__new__(cls, (a, b))

    def __getnewargs__(self):
        return tuple(self)


@value(lambda v: (tuple(v), type(v) is NewArgs))
def instance_with_getnewargs():
    return NewArgs(1, 2)


class Sentinel:
    def __reduce__(self):
        return "MISSING"


MISSING = Sentinel()


@form
def sentinel_by_its_name():
    return MISSING is not None, type(MISSING) is Sentinel


@value(lambda v: v is MISSING)
def sentinel_as_a_value():
    return MISSING


class Registered:
    def __init__(self, n):
        self.n = n


copyreg.pickle(Registered, lambda each: (Registered, (each.n + 0,)))


@value(lambda v: v.n)
def instance_with_copyreg():
    return Registered(4)


class Meta(type):
    made: ClassVar[list[str]] = []

    def __new__(mcs, name, bases, space, **kwargs):
        space["from_meta"] = len(name)
        mcs.made.append(name)
        return super().__new__(mcs, name, bases, space)

    def __init__(cls, name, bases, space, **kwargs):
        super().__init__(name, bases, space)
        cls.inited = True

    def __call__(cls, *args):
        new = super().__call__(*args)
        new.called = True
        return new

    @property
    def size(cls):
        return 7


class WithMeta(metaclass=Meta, option=1):
    pass


@form
def metaclass():
    return WithMeta.from_meta, WithMeta.inited, WithMeta().called, WithMeta.size, Meta.made


class SingletonMeta(type):
    _all: ClassVar[dict[type, Any]] = {}

    def __call__(cls, *args):
        if cls not in cls._all:
            cls._all[cls] = super().__call__(*args)
        return cls._all[cls]


class OnlyOne(metaclass=SingletonMeta):
    pass


ONLY = OnlyOne()


@form
def singleton_by_metaclass():
    return OnlyOne() is OnlyOne(), OnlyOne() is ONLY


class Preparing(type):
    @classmethod
    def __prepare__(mcs, name, bases):
        return OrderedDict()

    def __new__(mcs, name, bases, space):
        made = super().__new__(mcs, name, bases, dict(space))
        made.order = [key for key in space if not key.startswith("__")]
        return made


class Prepared(metaclass=Preparing):
    b = 1
    a = 2


@form
def metaclass_with_prepare():
    return Prepared.order


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...

    @property
    @abc.abstractmethod
    def name(self): ...


class Square(Shape):
    name = "square"

    def area(self):
        return 4


@Shape.register
class Virtual:
    pass


@form
def abstract_classes():
    try:
        Shape()
        return "made"
    except TypeError:
        return Square().area(), isinstance(Virtual(), Shape), isinstance(Square(), Shape)


class Sized_(Protocol):
    def size(self) -> int: ...


@typing.runtime_checkable
class Checked(Protocol):
    def area(self): ...


@form
def protocols():
    return isinstance(Square(), Checked), isinstance(1, Checked)


class Mapping_(collections.abc.Mapping):
    def __init__(self, **items):
        self.items_ = items

    def __getitem__(self, key):
        return self.items_[key]

    def __iter__(self):
        return iter(self.items_)

    def __len__(self):
        return len(self.items_)


@form
def mapping_by_abc():
    return dict(Mapping_(a=1)), Mapping_(a=1).get("b", 2)


class Operators:
    def __init__(self, n):
        self.n = n

    def __add__(self, other):
        return Operators(self.n + other.n)

    def __getitem__(self, key):
        return key

    def __call__(self):
        return self.n

    def __class_getitem__(cls, item):
        return item


@form
def operators():
    return (Operators(1) + Operators(2))(), Operators(1)["k"], Operators[5]


class Dynamic:
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return "dynamic " + name


@value(lambda v: v.anything)
def instance_with_getattr():
    return Dynamic()


class Patched:
    def f(self):
        return "old"


Patched.f = lambda self: "new"
Patched.g = plain


@form
def monkeypatched_methods():
    return Patched().f(), Patched.g(1)


class ListChild(list):
    def total(self):
        return sum(self)


class DictChild(dict):
    extra = 1


class IntChild(int):
    def double(self):
        return 2 * self


class StrChild(str):
    __slots__ = ()


@value(lambda v: (v[0].total(), v[1]["a"], v[2].double(), v[3].upper(), [type(each).__name__ for each in v]))
def children_of_builtin_classes():
    return [ListChild([1, 2]), DictChild(a=1), IntChild(3), StrChild("a")]


class Iterating:
    def __iter__(self):
        yield 1
        yield LIMIT


@form
def class_that_iterates():
    return list(Iterating())


class Deleting:
    def __del__(self):
        pass


@form
def class_with_del():
    return Deleting() is not None


class Referring:
    def other(self):
        return Referred().n


class Referred:
    n = 2

    def back(self):
        return Referring


@form
def classes_that_refer_to_each_other():
    return Referring().other(), Referred().back() is Referring


class Node:
    def __init__(self, n, following=None):
        self.n, self.next = n, following


LIST = Node(1, Node(2))
LIST.next.next = LIST


@form
def instances_in_a_cycle():
    return LIST.next.next is LIST


def chain_of(n):
    first = None
    for i in range(n):
        first = Node(i, first)
    return first


@value(lambda v: v.next.n)
def linked_list():
    return chain_of(150)


class Counted:
    count = 0

    def __init__(self):
        Counted.count += 1


@form
def counter_in_a_class():
    before = Counted.count
    Counted()
    return Counted.count - before


OLD_VERSION = Plain
if True:

    class Redefined:
        n = 1

    OLD_INSTANCE = Redefined()

    class Redefined:
        n = 2


@form
def class_that_was_defined_anew():
    return Redefined.n, OLD_INSTANCE.n


class WithBound:
    def f(self):
        return 3


BOUND = WithBound().f
BOUND_CLASS = Properties.made


@form
def bound_methods_as_globals():
    return BOUND(), BOUND_CLASS(2).x


# -- enums ---------------------------------------------------------------------------------------------------------


class Level(enum.Enum):
    LOW = 1
    HIGH = 2
    TOP = 2  # noqa: PIE796

    def word(self):
        return self.name.lower()


@form
def enum_with_methods():
    return Level.HIGH.word(), Level(1) is Level.LOW, Level["TOP"] is Level.HIGH


@value(lambda v: v is Level.LOW)
def member_of_an_enum():
    return Level.LOW


class Permission(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()
    BOTH = READ | WRITE


@form
def flag():
    return (Permission.READ | Permission.WRITE) is Permission.BOTH, Permission.READ in Permission.BOTH


@value(lambda v: v == (Permission.READ | Permission.WRITE))
def combined_flag():
    return Permission.READ | Permission.WRITE


class Number(enum.IntEnum):
    ONE = 1


class Word(str, enum.Enum):
    A = "a"


class Bits(enum.IntFlag):
    X = 1
    Y = 2


@form
def int_enum_str_enum_int_flag():
    return Number.ONE + 1, Word.A.upper(), int(Bits.X | Bits.Y), Word("a") is Word.A


class Planet(enum.Enum):
    EARTH = (5.97, 6.37)
    MARS = (0.64, 3.39)

    def __init__(self, mass, radius):
        self.mass, self.radius = mass, radius

    @property
    def ratio(self):
        return self.mass / self.radius


@form
def enum_with_init():
    return Planet.EARTH.mass, Planet.MARS.ratio


class Coded(enum.Enum):
    def __new__(cls, code, label):
        new = object.__new__(cls)
        new._value_ = code
        new.label = label
        return new

    A = (1, "first")
    B = (2, "second")

    @classmethod
    def _missing_(cls, value):
        return cls.A


@form
def enum_with_new_and_missing():
    return Coded.A.value, Coded.B.label, Coded(99) is Coded.A


class Job:
    class State(enum.Enum):
        NEW = 1

    state = State.NEW


@form
def enum_in_a_class():
    return Job.State.NEW.value, Job.state is Job.State.NEW


@value(lambda v: v is Job.State.NEW)
def member_of_an_enum_in_a_class():
    return Job.State.NEW


def make_enum():
    class Kind(enum.Enum):
        A = 1

        def f(self):
            return self.value

    return Kind


MadeEnum = make_enum()


@form
def enum_made_in_a_function():
    return MadeEnum.A.f(), MadeEnum(1) is MadeEnum.A


Functional = enum.Enum("Functional", "RED GREEN")


@form
def enum_by_its_function():
    return Functional.GREEN.value


class Generated(enum.Enum):
    @staticmethod
    def _generate_next_value_(name, start, count, last):
        return name.lower()

    ABC = enum.auto()


@form
def enum_that_generates_values():
    return Generated.ABC.value


class Strategy(enum.Enum):
    DOUBLE = functools.partial(operator.mul, 2)

    def __call__(self, x):
        return self.value(x)


@form
def enum_of_functions():
    return Strategy.DOUBLE(4)


# -- data classes and their like -----------------------------------------------------------------------------------


@dataclasses.dataclass
class Point:
    x: int
    y: int = 2
    tags: list[str] = dataclasses.field(default_factory=list)

    def total(self):
        return self.x + self.y


@form
def dataclass():
    return Point(1).total(), dataclasses.asdict(Point(1)), dataclasses.replace(Point(1), y=5).y


@form
def fields_of_a_dataclass():
    first, *_, last = dataclasses.fields(Point)
    return first.default is dataclasses.MISSING, last.default_factory is list, repr(Point(1))


@value(lambda v: (v == Point(1, 3), type(v) is Point))
def instance_of_a_dataclass():
    return Point(1, 3)


@dataclasses.dataclass(frozen=True, order=True)
class Frozen:
    a: int
    b: str = "b"


@form
def frozen_ordered_dataclass():
    try:
        Frozen(1).a = 2
        return "changed"
    except dataclasses.FrozenInstanceError:
        return sorted([Frozen(2), Frozen(1)])[0].a, len({Frozen(1), Frozen(1)})


@dataclasses.dataclass(slots=True)
class Slotted:
    a: int
    b: int = 0


@form
def dataclass_with_slots():
    return Slotted(1).a, hasattr(Slotted(1), "__dict__")


@value(lambda v: (v == Slotted(3), type(v) is Slotted))
def instance_of_a_dataclass_with_slots():
    return Slotted(3)


@dataclasses.dataclass(kw_only=True)
class KeywordOnly:
    a: int
    b: int = dataclasses.field(default=1, repr=False)


@form
def dataclass_with_keywords_only():
    return repr(KeywordOnly(a=2)), KeywordOnly(a=2).b


@dataclasses.dataclass
class Initialised:
    a: int
    start: dataclasses.InitVar[int] = 3
    limit: ClassVar[int] = 9

    def __post_init__(self, start):
        self.sum = self.a + start


@form
def dataclass_with_initvar():
    return Initialised(1).sum, Initialised(1, 5).sum, Initialised.limit


@dataclasses.dataclass
class Derived(Point):
    z: int = 9


@form
def derived_dataclass():
    return Derived(1).total(), Derived(1).z


MadeData = dataclasses.make_dataclass("MadeData", [("a", int), ("b", int, 2)])


@form
def dataclass_by_its_function():
    return MadeData(1).b


class Pair(NamedTuple):
    x: int
    y: int = 2

    def total(self):
        return self.x + self.y

    @property
    def swapped(self):
        return Pair(self.y, self.x)


@form
def named_tuple_with_methods():
    return Pair(1).total(), Pair(1).swapped, Pair._fields, Pair._field_defaults


@value(lambda v: (v.total(), type(v) is Pair))
def instance_of_a_named_tuple():
    return Pair(3)


Old = namedtuple("Old", "a b", defaults=[5])


class OldChild(Old):
    __slots__ = ()

    def f(self):
        return self.a + self.b


@form
def namedtuple_of_collections():
    return Old(1)._replace(b=2), OldChild(1).f(), Old._make([1, 2])


class Movie(TypedDict, total=False):
    name: str


@form
def typed_dict():
    return Movie(name="x"), sorted(Movie.__annotations__)


# -- typing --------------------------------------------------------------------------------------------------------

T = TypeVar("T")
K = TypeVar("K", bound=int)
V = TypeVar("V", int, str)
Uid = NewType("Uid", int)


class Stack(Generic[T]):
    def __init__(self):
        self.items: list[T] = []

    def push(self, item: T) -> int:
        self.items.append(item)
        return len(self.items)


class IntStack(Stack[int]):
    pass


class Two(Generic[T, K]):
    pass


@form
def generic_class():
    return Stack[int]().push(1), IntStack().push(2), Stack.__parameters__ == (T,)


@value(lambda v: type(v) is Stack)
def instance_of_a_generic_class():
    return Stack[int]()


@form
def type_variables():
    return T.__name__, K.__bound__ is int, V.__constraints__ == (int, str), Two[str, int].__args__ == (str, int)


@form
def new_type():
    return Uid(5), Uid.__name__


@value(lambda v: v is T)
def type_variable_as_a_value():
    return T


Alias = typing.Union[int, "list[int]"]
Callback = typing.Callable[[int], str]
Lists = list[int]
Either = int | None


@form
def aliases_of_types():
    return str(Callback), Lists.__origin__ is list, typing.get_args(Either)[0] is int


P = typing.ParamSpec("P")


def typed_decorator(f: typing.Callable[P, T]) -> typing.Callable[P, T]:
    def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        return f(*args, **kwargs)

    return inner


@typed_decorator
def typed_function(x: T) -> T:
    return x


@form
def param_spec():
    return typed_function(4), P.__name__


@form
def hints_that_are_looked_up():
    return sorted(typing.get_type_hints(Point))


@typing.overload
def overloaded(x: int) -> int: ...
@typing.overload
def overloaded(x: str) -> str: ...
def overloaded(x):
    return x


@form
def overloads():
    return overloaded(1)


@typing.final
class Final_:
    n: typing.Final = 3


@form
def final():
    return Final_.n


if sys.version_info >= (3, 11):
    exec(
        """
Ts = typing.TypeVarTuple("Ts")
class Many(typing.Generic[typing.Unpack[Ts]]):
    pass
@form
def type_variable_tuple():
    return Many[int, str].__args__ == (int, str)
class Loud(enum.StrEnum):
    A = enum.auto()
@form
def str_enum():
    return Loud.A.upper()
@form
def except_groups():
    caught = []
    try:
        raise ExceptionGroup("g", [ValueError(1), KeyError(2)])
    except* ValueError as group:
        caught.append(len(group.exceptions))
    except* KeyError:
        pass
    return caught
"""
    )
if sys.version_info >= (3, 12):
    exec(
        """
class Pile[U]:
    def top(self, x: U) -> U:
        return x
def first[U](items: list[U]) -> U:
    return items[0]
type Table[U] = dict[str, U]
type Plainly = int
class Bounded[B: int, *Rest, **Spec]:
    pass
@form
def class_with_type_parameters():
    return Pile[int]().top(3), [str(p) for p in Pile.__type_params__]
@form
def function_with_type_parameters():
    return first([1, 2])
@form
def type_statements():
    return str(Plainly.__value__), Table.__name__, len(Bounded.__type_params__)
@value(lambda v: type(v) is Pile)
def instance_of_a_class_with_type_parameters():
    return Pile[int]()
"""
    )

# -- exceptions ----------------------------------------------------------------------------------------------------


class OwnError(Exception):
    def __init__(self, code, *, detail=""):
        super().__init__(f"{code}: {detail}")
        self.code, self.detail = code, detail

    def __reduce__(self):
        return functools.partial(OwnError, detail=self.detail), (self.code,)


class SimpleError(ValueError):
    pass


@form
def exceptions_of_ones_own():
    try:
        raise OwnError(3, detail="d")
    except OwnError as exc:
        return exc.code, str(exc)


@value(lambda v: (type(v) is OwnError, v.code, v.detail))
def exception_as_a_value():
    return OwnError(4, detail="e")


@form
def exceptions_in_a_table():
    return [issubclass(each, Exception) for each in ERRORS]


ERRORS = [OwnError, SimpleError]


class OwnWarning(UserWarning):
    pass


@form
def warnings_of_ones_own():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("w", OwnWarning, stacklevel=1)
    return caught[0].category is OwnWarning


# -- locks, threads, references ------------------------------------------------------------------------------------

LOCK, RLOCK, CONDITION = threading.Lock(), threading.RLock(), threading.Condition()
EVENT, SEMAPHORE, BARRIER = threading.Event(), threading.Semaphore(2), threading.Barrier(1)
HELD = threading.Lock()
HELD.acquire()
HELD_AGAIN = threading.RLock()
HELD_AGAIN.acquire()


@form
def lock():
    with LOCK:
        return LOCK.locked()


@form
def rlock():
    with RLOCK, RLOCK:
        return 1


@form
def locks_that_are_held_here():
    return [each.acquire(timeout=2) for each in (HELD, HELD_AGAIN)] if on_a_server() else [True] * 2


def on_a_server():
    return "GRID_SERVER" in os.environ or "LOKY" in os.environ.get("MATRIX", "")


@form
def condition():
    with CONDITION:
        CONDITION.notify_all()
    return CONDITION.acquire(timeout=1)


@form
def event_semaphore_barrier():
    EVENT.set()
    return EVENT.is_set(), SEMAPHORE.acquire(timeout=1), BARRIER.wait(1)


class Locked:
    def __init__(self):
        self.lock, self.rlock, self.n = threading.Lock(), threading.RLock(), 0
        self.changed = threading.Condition(self.lock)

    def step(self):
        with self.rlock, self.changed:
            self.n += 1
            return self.n


LOCKED = Locked()


@form
def locks_in_an_instance():
    return LOCKED.step() - LOCKED.step()


@value(lambda v: v.step() > 0)
def instance_with_locks():
    return Locked()


class ClassLock:
    lock = threading.RLock()

    def f(self):
        with self.lock:
            return 1


@form
def lock_in_a_class():
    return ClassLock().f()


def synchronised(f):
    guard = threading.RLock()

    @functools.wraps(f)
    def inner(*args):
        with guard:
            return f(*args)

    return inner


@synchronised
def one_at_a_time(x):
    return x


@form
def lock_in_a_closure():
    return one_at_a_time(3)


QUEUE: queue.Queue[int] = queue.Queue()
QUEUE.put(3)


@form
def queue_with_something():
    QUEUE.put(3)
    return QUEUE.get(timeout=1)


TARGET = Plain(5)
WEAK = weakref.ref(TARGET)
WEAK_VALUES = weakref.WeakValueDictionary({"a": TARGET})
WEAK_SET = weakref.WeakSet([TARGET])


@form
def weak_references():
    return TARGET.x, WEAK().x, WEAK_VALUES["a"].x, len(WEAK_SET)


class Observed:
    def __init__(self):
        self.observers = weakref.WeakKeyDictionary()
        self.observers[TARGET] = 1


OBSERVED = Observed()


@form
def weak_keys():
    return TARGET is not None, len(OBSERVED.observers)


ASYNC_LOCK_CLASS = asyncio.Lock


@form
def asyncio_inside():
    async def work():
        async with ASYNC_LOCK_CLASS():
            return LIMIT

    return asyncio.run(work())


@form
def threads_inside():
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        return list(threads.map(plain, range(3)))


# -- what can't travel ---------------------------------------------------------------------------------------------

LIBM = ctypes.CDLL(None)
CONTEXT = contextvars.ContextVar("current", default=3)
THREADS = concurrent.futures.ThreadPoolExecutor(1)
PER_THREAD = threading.local()
PER_THREAD.n = 1
OPEN = open("written", "wb")  # noqa: SIM115
SOCKET = socket.socket()
DATABASE = sqlite3.connect(":memory:")
SIMPLE: queue.SimpleQueue[int] = queue.SimpleQueue()
RUNNING = generator(3)
THREAD = threading.Thread(target=plain)
CHILD = subprocess.Popen([sys.executable, "-c", ""])
CHILD.wait()
PACKED = zlib.compressobj()
CONFIG = {"library": LIBM, "n": 3}


@form(stays="library")
def ctypes_library():
    return LIBM.abs(-1)


@form(stays="ContextVar")
def context_variable():
    return CONTEXT.get()


@form(stays="executor")
def thread_pool():
    return THREADS.submit(plain, 1).result()


@form(stays="local")
def thread_local():
    return PER_THREAD.n


@form(stays="BufferedWriter|Temporary|write|file")
def open_file():
    return OPEN.write(b"x")


@form(stays="socket")
def open_socket():
    return SOCKET.fileno() > 0


@form(stays="Connection")
def database():
    return DATABASE.execute("select 1").fetchone()


@form(stays="SimpleQueue")
def simple_queue():
    return SIMPLE.empty()


@form(stays="generator")
def running_generator():
    return next(RUNNING)


@form(stays="thread")
def thread():
    return THREAD.is_alive()


@form(stays="child")
def child_process():
    return CHILD.returncode


@form(stays="Compress")
def compressor():
    return PACKED.flush() is not None


@form(stays="library")
def part_of_a_table_that_stays():
    return CONFIG["library"].abs(-1)


@form
def rest_of_a_table_of_which_a_part_stays():
    return CONFIG["n"]


class HasLibrary:
    library = LIBM
    n = 4

    def use(self):
        return self.library.abs(-1)


@form(stays="library")
def library_in_a_class():
    return HasLibrary().use()


@form
def rest_of_a_class_of_which_a_part_stays():
    return HasLibrary().n


def names_it_only(flag_):
    return LIBM if flag_ else 5


@form
def what_stays_is_named_and_not_used():
    return names_it_only(False)


# -- libraries -----------------------------------------------------------------------------------------------------

try:
    import pydantic
except ImportError:
    pass
else:

    class Settings(pydantic.BaseModel):
        steps: int = 1
        name: str = pydantic.Field(default="n", min_length=1)

        @pydantic.field_validator("steps")
        @classmethod
        def positive(cls, v):
            if v < 0:
                raise ValueError("negative")
            return v

        @property
        def double(self):
            return 2 * self.steps

    class Outer(pydantic.BaseModel):
        inner: Settings = Settings()
        many: list[Settings] = []

    @form
    def pydantic_model():
        try:
            Settings(steps=-1)
        except pydantic.ValidationError as exc:
            return Settings(steps="2").double, exc.error_count()
        return "?"

    @form
    def pydantic_model_in_a_model():
        return Outer(many=[{"steps": 3}]).many[0].steps, Outer().model_dump()

    @value(lambda v: (v == Settings(steps=4), type(v) is Settings))
    def instance_of_a_pydantic_model():
        return Settings(steps=4)

    @pydantic.dataclasses.dataclass
    class Checked_:
        a: int

    @form
    def pydantic_dataclass():
        return Checked_(a="3").a

    @pydantic.validate_call
    def validated(n: int) -> int:
        return n

    @form(stays="'validated' can't be put together")
    def pydantic_validate_call():
        return validated("4")


try:
    import attr
    import attrs
except ImportError:
    pass
else:

    @attrs.define
    class Attrs:
        a: int = attrs.field(validator=attrs.validators.instance_of(int))
        b: list[int] = attrs.Factory(list)

        def f(self):
            return self.a + len(self.b)

    @attr.s
    class OldAttrs:
        x = attr.ib(default=1, converter=int)

    @attrs.frozen
    class FrozenAttrs(Attrs):
        c: int = 3

    @form
    def attrs_class():
        try:
            Attrs("x")
        except TypeError:
            return Attrs(1, [2]).f(), attrs.asdict(Attrs(1)), FrozenAttrs(1).c
        return "?"

    @form
    def attr_s_class():
        return OldAttrs("5").x

    @value(lambda v: (v == Attrs(3), type(v) is Attrs))
    def instance_of_an_attrs_class():
        return Attrs(3)


try:
    import msgspec
except ImportError:
    pass
else:

    class Struct(msgspec.Struct):
        a: int
        b: str = "x"

        def f(self):
            return self.b * self.a

    @form
    def msgspec_struct():
        return Struct(2).f(), msgspec.json.encode(Struct(1))

    @value(lambda v: (v == Struct(3), type(v) is Struct))
    def instance_of_a_msgspec_struct():
        return Struct(3)


try:
    import numpy as np
except ImportError:
    pass
else:
    ARRAY = np.arange(100_000.0)
    DTYPE = np.dtype([("a", int), ("b", float)])
    vectorized = np.vectorize(plain)
    UFUNC = np.frompyfunc(plain, 1, 1)
    GENERATOR = np.random.default_rng(3)
    ARRAY.tofile("mapped")
    MAPPED = np.memmap(os.path.abspath("mapped"), dtype=float, mode="r")

    def over_mapped(mapped):
        return lambda i: float(mapped[i])

    OVER_MAPPED = over_mapped(MAPPED)

    class Vector(np.ndarray):
        def norm(self):
            return float((self * self).sum())

    @form
    def array_as_a_global():
        return float(ARRAY.sum()), DTYPE.names

    @form
    def numpy_vectorize():
        return vectorized([1, 2]).tolist()

    @form(stays="frompyfunc|numpy|vectorized|plain")
    def numpy_frompyfunc():
        return UFUNC([1, 2]).tolist()

    @form
    def numpy_generator():
        return float(np.random.default_rng(3).random()) >= 0 and GENERATOR.integers(1, 2)

    @form
    def closure_over_a_memmap():
        return OVER_MAPPED(3), float(MAPPED[2])

    @form
    def child_of_ndarray():
        return np.ones(3).view(Vector).norm()

    @form
    def submodule_of_numpy():
        return float(np.linalg.norm([3, 4])), np.polynomial.polynomial.polyval(1, [1, 2])


try:
    import pandas as pd
except ImportError:
    pass
else:
    FRAME = pd.DataFrame({"a": [1, 2], "b": pd.Categorical(["x", "y"])})

    @pd.api.extensions.register_dataframe_accessor("mine")
    class Accessor:
        def __init__(self, frame):
            self.frame = frame

    @form
    def pandas_frame():
        return int(FRAME.a.sum()), list(FRAME.b.cat.categories)


try:
    import polars as pl
except ImportError:
    pass
else:
    POLARS = pl.DataFrame({"a": [1, 2, 3]})
    EXPRESSION = pl.col("a") * 2

    @form
    def polars_frame_and_expression():
        return POLARS.select(EXPRESSION)["a"].to_list()


if __name__ == "__main__":
    sys.exit(main())
