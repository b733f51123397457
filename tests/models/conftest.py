"""Fixtures of all tests of models."""

from both_kernels import compiled_kernels as compiled_kernels
from both_kernels import kernels_by as kernels_by
