"""What all tests of this folder share: they do not wait for the disk."""

from unsynced import no_fsync

__all__ = ["no_fsync"]
