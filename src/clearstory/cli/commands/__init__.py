"""Commands: one module for each, named like the command. Each defines COMMAND and imports its recipe when it is run."""
