"""Services for programs of others, ready for `grid serve`: one file for each program.

Lives here: `bumps`, fits of models to data. Elsewhere: jobs (`grid.jobs`), the same programs in scripts (`compat/`).
"""
