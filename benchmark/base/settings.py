"""Base of every block of settings in a study file."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class Settings(BaseModel):
    """Settings are immutable and allow no extra keys: a misspelt key is an error, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @property
    def _idle(self) -> tuple[str, ...]:
        """Settings that have no effect, given the others; a new one at its default, where keys must not change."""
        return ()

    @model_serializer(mode="wrap")
    def _only_what_is_used(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # So records hold no idle settings, and keys of runs made before there was a setting stay theirs.
        values: dict[str, Any] = handler(self)
        return {k: v for k, v in values.items() if k not in self._idle}
