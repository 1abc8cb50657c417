"""Random search over hyper-parameters: a support vector classifier for the breast cancer data of scikit-learn.

    python examples/tasks_sklearn.py --tries 40
    python examples/tasks_sklearn.py --hosts node1,node2 --seed 3      they need scikit-learn, too

Each task is one choice of parameters, judged by 5-fold cross-validation; C and gamma are drawn from log-uniform
distributions (J. Bergstra, Y. Bengio, J. Machine Learning Res. 13 (2012) 281).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from random import Random

from open_grid import add_options, open_grid

from grid.tasks import Task, TaskSystem, run_system


def judge(C: float, gamma: float) -> float:
    """Mean accuracy in 5-fold cross-validation; data are standardised within each fold."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    x, y = load_breast_cancer(return_X_y=True)
    return float(cross_val_score(make_pipeline(StandardScaler(), SVC(C=C, gamma=gamma)), x, y, cv=5).mean())


class Trial(Task):
    """One choice of parameters."""

    def __init__(self, C: float, gamma: float) -> None:
        self.C, self.gamma = C, gamma

    def __call__(self) -> float:
        return judge(self.C, self.gamma)


class RandomSearch(TaskSystem):
    """`tries` trials; the result is (accuracy, C, gamma) of the best, and all accuracies."""

    def __init__(self, tries: int, seed: int) -> None:
        self.expected_tasks, self.seed = tries, seed
        self.trials: list[tuple[float, float, float]] = []

    def init_system(self, master) -> None:
        self.rng = Random(self.seed)

    def generate_tasks(self, master) -> Iterator[Task]:
        for _ in range(self.expected_tasks):
            yield Trial(10 ** self.rng.uniform(-2, 3), 10 ** self.rng.uniform(-5, 1))

    def task_finished(self, master, task, result, error) -> None:
        if error is not None:
            raise error
        self.trials.append((result, task.C, task.gamma))

    def is_complete(self, master) -> bool:
        return len(self.trials) == self.expected_tasks

    def gather_result(self, master):
        return (max(self.trials), sorted(accuracy for accuracy, _, _ in self.trials)), None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Random search over hyper-parameters.")
    parser.add_argument("--tries", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    add_options(parser)
    options = parser.parse_args(arguments)
    with open_grid(options) as g:
        (accuracy, C, gamma), all_of_them = run_system(RandomSearch(options.tries, options.seed), g)
    print(f"best of {len(all_of_them)}: accuracy {accuracy:.4f} with C={C:.4g}, gamma={gamma:.4g}")
    print(f"the median choice reaches {all_of_them[len(all_of_them) // 2]:.4f}, the worst {all_of_them[0]:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
