"""Revisions that several kinds of method share; each kind's own stands in its file."""

from __future__ import annotations

#: Raised when the making of profiles, or what decides on them, changes what is predicted.
PROFILES = 6
