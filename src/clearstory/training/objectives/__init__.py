"""Training objectives, one file each, and the table of them."""
