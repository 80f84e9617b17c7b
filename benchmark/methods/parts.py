"""Methods that rest on other methods of their study: which they rest on, and which go together."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.methods.base import (
    CNN,
    EmbeddingMethod,
    FinetunedMethod,
    FrozenMethod,
    FusionMethod,
    MethodSettings,
    ProfileMethod,
)


def names_of_parts(method: MethodSettings) -> tuple[str, ...]:
    """Names of the methods that a method rests on; none for most."""
    if isinstance(method, FusionMethod):
        return method.parts
    return (method.of,) if isinstance(method, EmbeddingMethod) else ()


def parts_of(methods: Sequence[MethodSettings], method: MethodSettings) -> list[MethodSettings]:
    """The methods that a method rests on, in its own order."""
    by_name = {m.name: m for m in methods}
    return [by_name[name] for name in names_of_parts(method)]


def refuse_unfit_parts(methods: Sequence[MethodSettings]) -> None:
    """ValueError where a method rests on one that is not there or does not suit it; the key is named."""
    by_name = {m.name: m for m in methods}
    for method in methods:
        key = f"{method.name}.{'of' if isinstance(method, EmbeddingMethod) else 'parts'}"
        for name in names_of_parts(method):
            part = by_name.get(name)
            if part is None:
                raise ValueError(f"{key}: the study has no method {name!r}; it has {', '.join(by_name)}")
            wrong = _why_not_embedding(method, part) if isinstance(method, EmbeddingMethod) else (
                _why_not_fusion(method, part) if isinstance(method, FusionMethod) else "")
            if wrong:
                raise ValueError(f"{key}: {name} {wrong}")


def _why_not_embedding(method: EmbeddingMethod, part: MethodSettings) -> str:
    """Why a method cannot run on a part's embeddings; empty where it can."""
    if not isinstance(part, CNN):
        return f"is of kind {part.kind}; embeddings are of cnn_frozen and cnn_finetuned"
    if "well" not in part.embeddings:
        return "writes no embeddings of wells: give it embeddings: [well]"
    if isinstance(part, FinetunedMethod) and part.labels != method.labels:
        return f"has labels: {part.labels}, and {method.name} has labels: {method.labels}: give both the same"
    return ""


def _why_not_fusion(method: FusionMethod, part: MethodSettings) -> str:
    """Why a part cannot be fused; empty where it can."""
    if not isinstance(part, ProfileMethod | FrozenMethod | FinetunedMethod):
        return f"is of kind {part.kind}; profile, cnn_frozen and cnn_finetuned can be fused"
    if isinstance(part, ProfileMethod) and part.decision != "classifier":
        return "has decision: nearest, which gives no probabilities of wells"
    if part.labels != method.labels:
        return f"has labels: {part.labels}, and {method.name} has labels: {method.labels}: give all the same"
    if method.how == "concatenated" and isinstance(part, ProfileMethod) and part.profile.unit != "well":
        return f"has profiles of {part.profile.unit}s, and features are joined by well: set its profile.unit to well"
    if method.how == "concatenated" and isinstance(part, FinetunedMethod) and "well" not in part.embeddings:
        return "writes no embeddings of wells to join: give it embeddings: [well], or fuse with how: stacked"
    return ""
