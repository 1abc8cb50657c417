"""Exit codes of all commands, and the page of the help that explains them.

`grid run` is the exception: once the script runs, its status is the command's.
"""

from __future__ import annotations

OK = 0
FAILED = 1  # a part of the request failed; the rest was done
USAGE = 2  # an option, host, group or hosts file that grid can't use: ask differently
NOTHING_USABLE = 3  # of all hosts asked for not one can be used
INTERRUPTED = 130  # Ctrl-C, as shells count it: 128 + SIGINT

EPILOG = """\b
Exit status:
  0    fine
  1    something failed; the rest was done
  2    usage: an unknown option, host or group, or a hosts file that can't be used
  3    not one of the hosts can be used
  130  interrupted

Data goes to standard output, everything else to standard error. --json prints the data as JSON with stable keys."""
