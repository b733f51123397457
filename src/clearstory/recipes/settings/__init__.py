"""Settings of every command: dataclasses built from flags, YAML and Python values, and the defaults of presets."""
