"""Conformance suites: subclass one in a test file, point it at your implementation, and pytest runs it."""

from nas.testing.space_suite import SpaceSuite

__all__ = ["SpaceSuite"]
