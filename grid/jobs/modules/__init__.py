"""Modules that users install on a job server."""
