"""The mixture: several models over one vocabulary and a cache of the recent text, weighted at every token."""
