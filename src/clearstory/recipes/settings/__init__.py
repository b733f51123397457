"""Settings of every command: dataclasses, how they are built from flags, YAML and Python values, and preset defaults."""
