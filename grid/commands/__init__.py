"""Commands: executables on the servers of a grid, with files in and out.

Lives here: templates (`template`), what a run is known by (`identity`), the joblog (`joblog`), one run on its host
            (`onhost`), what came of it (`outcome`), runs under way (`running`), many of them (`many`).
Elsewhere:  servers and functions on them (`compat/crew`), handing out (`services/handing`), files (`staging/`).
"""
