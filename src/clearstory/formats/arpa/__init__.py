"""ARPA: n-gram models as text, exchanged by SRILM, KenLM and other tools."""
