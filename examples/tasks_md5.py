"""Which word has this MD5 hash? A search that ends when one task has found it; the others are dropped.

    python examples/tasks_md5.py                                          the word behind a hash, on this machine
    python examples/tasks_md5.py 5d41402abc4b2a76b9719d911017c592         another hash ("hello")
    python examples/tasks_md5.py --hosts hosts.yaml --longest 6           over ssh

Every task tries all words that begin with one prefix. There are as many as there are prefixes, made one by one as
workers take them.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import string
import sys
from collections.abc import Iterator, Sequence

from open_grid import add_options, open_grid

from grid.tasks import Task, TaskSystem, run_system

LETTERS = string.ascii_lowercase
OURS = "ff4a008470319a22d9cf3d14af485977"  # of "grid"


class Try(Task):
    """All words that begin with `prefix` and have up to `more` letters after it."""

    def __init__(self, wanted: str, prefix: str, more: int) -> None:
        self.wanted, self.prefix, self.more = wanted, prefix, more

    def __call__(self) -> str | None:
        wanted, begun = bytes.fromhex(self.wanted), hashlib.md5(self.prefix.encode())
        for length in range(self.more + 1):
            for letters in itertools.product(LETTERS, repeat=length):
                tail = "".join(letters)
                attempt = begun.copy()
                attempt.update(tail.encode())
                if attempt.digest() == wanted:
                    return self.prefix + tail
        return None


class ReverseMD5(TaskSystem):
    """Complete when a word is found, or none of up to `longest` letters is left."""

    def __init__(self, wanted: str, longest: int) -> None:
        self.wanted, self.longest = wanted, longest
        self.found: str | None = None
        self.tried = 0
        self.size = min(2, longest)  # letters of a prefix
        self.expected_tasks = len(LETTERS) ** self.size + (len(LETTERS) if longest > self.size else 0)

    def init_system(self, master) -> None:
        pass

    def generate_tasks(self, master) -> Iterator[Task]:
        if self.longest > self.size:
            yield from (Try(self.wanted, letter, 0) for letter in LETTERS)
        for prefix in itertools.product(LETTERS, repeat=self.size):
            yield Try(self.wanted, "".join(prefix), self.longest - self.size)

    def task_finished(self, master, task, result, error) -> None:
        if error is not None:
            raise error
        self.tried += 1
        self.found = self.found or result

    def is_complete(self, master) -> bool:
        return self.found is not None or self.tried == self.expected_tasks

    def gather_result(self, master):
        return self.found, None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Search for the word behind an MD5 hash.")
    parser.add_argument("hash", nargs="?", default=OURS)
    parser.add_argument("--longest", type=int, default=4, help="letters of a word, at most (default: 4)")
    add_options(parser)
    options = parser.parse_args(arguments)
    with open_grid(options) as g:
        word = run_system(ReverseMD5(options.hash, options.longest), g)
    if word is None:
        print(f"no word of up to {options.longest} letters")
        return 1
    assert hashlib.md5(word.encode()).hexdigest() == options.hash
    print(f"the word is {word!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
