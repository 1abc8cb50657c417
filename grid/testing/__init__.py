"""Fakes and conformance suites, for us and for whoever brings a grid, a way into hosts or a clock of their own."""
