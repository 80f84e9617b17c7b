"""Opening HDF5 files without locks.

HDF5 locks a file that it opens, which network file systems often refuse (NFS without a lock server, some cluster file
systems). Here locks serve nothing: one process writes a file under a temporary name that no other opens, and a file
under its final name is only read.
"""

from __future__ import annotations

from pathlib import Path

import h5py

#: The first bytes of an HDF5 file without a user block.
SIGNATURE = b"\x89HDF\r\n\x1a\n"


def reading(path: Path) -> h5py.File:
    """An HDF5 file to read."""
    return h5py.File(path, "r", locking=False)


def writing(path: Path) -> h5py.File:
    """A new HDF5 file, under a name that no other process opens, in a format that HDF5 1.10 reads.

    Chunks are written at once: what is still held in memory when the disk is full cannot be written when the file is
    closed either, on which HDF5 2.0 crashes.
    """
    return h5py.File(path, "w", libver="v110", locking=False, rdcc_nbytes=0)


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as an HDF5 file does. (``h5py.is_hdf5`` says no where a file cannot be read.)"""
    with path.open("rb") as handle:
        return handle.read(len(SIGNATURE)) == SIGNATURE
