"""Fixtures of all tests of file formats."""

from both_kernels import kernels_by as kernels_by
