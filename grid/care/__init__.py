"""Care of hosts: can this one be used, what does it lack, what was left on it.

`doctor` (step by step, how far) · `probe` (what is asked there) · `environment` (making Python and packages ready) ·
`wheels` (packages for a host without an index) · `trust` (accepting a key by name) · `remains` (what a crash left) ·
`errand` (a function of ours run there with nothing installed) · `remedies` (one sentence on missing modules) ·
`ourselves` (what hides this installation here).

Elsewhere: ways in, which all of it uses (`launch/`), commands and tables (`cli/`).
"""
