"""Tests of grid; a package so that helpers have one name: `from tests.lab import Lab`."""
