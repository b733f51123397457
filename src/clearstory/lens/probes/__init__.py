"""Probes: functions that compute views, one module for each subject with its public view functions at the top."""
