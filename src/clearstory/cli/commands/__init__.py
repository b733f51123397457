"""Commands: one module each, named like the command. Each has a COMMAND and imports its recipe only when it runs."""
