"""Slots: the cores, threads, memory and devices of each server. What a host has, what a server needs, who gets what.

    needs      what a server needs, as its publisher says it
    resources  what a host has, what its entry in the hosts file says instead, what one server gets
    choose     from both, and from what is taken, slots: a pure function
    threads    the variables that say how many threads libraries start, and who said them first
    cores      how many cores are ours; `find`, `devices` look at the rest of the machine; `places` says where that is

All of it is shipped to hosts and stands on the standard library alone.

Elsewhere: servers that are born with their slot (`kernel/`), which host gets how many servers (`grids/publishing.py`).
"""
