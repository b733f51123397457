"""Fixtures of all tests of generation."""

from both_kernels import kernels_by as kernels_by
