"""Probes: what a view computes, one module for each subject with its public view functions at the top."""
