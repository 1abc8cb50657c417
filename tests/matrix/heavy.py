"""Forms of heavy libraries: functions that JAX, Numba and SymPy compile, as a script has them. See `forms`.

python tests/matrix/heavy.py        leaves out what is not installed, and says so
"""

from __future__ import annotations

import functools
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import numpy as np

from tests.matrix.run import form, main, value

try:
    import jax
    import jax.numpy as jnp
except ImportError:
    print("JAX is not installed here", file=sys.stderr)
else:

    def helper(x):
        return jnp.sum(x) * SCALE

    SCALE = 2.0

    @jax.jit
    def compiled(x):
        return helper(x) + 1

    @functools.partial(jax.jit, static_argnums=1)
    def with_static(x, n):
        return jnp.sum(x) * n

    gradient = jax.grad(compiled)
    mapped = jax.vmap(lambda x: x * SCALE)

    class Energy:
        def of(self, x):
            return float(compiled(jnp.asarray(x)))

    @form
    def jax_jit():
        return float(compiled(jnp.ones(3))), float(with_static(jnp.ones(3), 2))

    @form
    def jax_grad_and_vmap():
        return gradient(jnp.ones(2)).tolist(), mapped(jnp.ones(2)).tolist()

    @form
    def method_that_calls_a_jitted_function():
        return Energy().of([1.0, 2.0])

    @value(lambda f: float(f(np.ones(3))))
    def jitted_function_as_a_value():
        return compiled


try:
    import numba
except ImportError:
    print("Numba is not installed here", file=sys.stderr)
else:

    @numba.njit
    def inner(x):
        return x + OFFSET

    OFFSET = 3

    @numba.njit
    def looped(n):
        total = 0
        for i in range(n):
            total += inner(i)
        return total

    @numba.vectorize
    def elementwise(x):
        return x * 2.0

    @form
    def numba_njit():
        return looped(10), looped.py_func(3)

    @form
    def numba_vectorize():
        return elementwise(np.arange(3.0)).tolist()

    @value(lambda f: f(5))
    def njit_function_as_a_value():
        return looped


try:
    import sympy
except ImportError:
    print("SymPy is not installed here", file=sys.stderr)
else:
    SYMBOL = sympy.Symbol("x")
    EXPRESSION = sympy.sin(SYMBOL) ** 2 + SYMBOL
    number = sympy.lambdify(SYMBOL, EXPRESSION)

    @form
    def sympy_lambdify():
        return round(float(number(1.0)), 6), str(sympy.diff(EXPRESSION, SYMBOL))

    @value(lambda f: round(float(f(0.5)), 6))
    def lambdified_function_as_a_value():
        return number


try:
    import torch
except ImportError:
    print("PyTorch is not installed here", file=sys.stderr)
else:

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def forward(self, x):
            return torch.relu(self.layer(x))

    NET = Net()

    @form
    def torch_module():
        return tuple(NET(torch.ones(1, 2)).shape), float(NET(torch.ones(1, 2))) >= 0

    @value(lambda net: tuple(net(torch.ones(3, 2)).shape))
    def torch_module_as_a_value():
        return Net()


if __name__ == "__main__":
    sys.exit(main())
