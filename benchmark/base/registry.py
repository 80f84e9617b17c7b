"""Kinds of a thing (an assay, a method): each a class of settings that registers itself, chosen by its ``kind``."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin
from weakref import WeakKeyDictionary

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from benchmark.base.settings import Settings

T = TypeVar("T", bound=Settings)
M = TypeVar("M", bound=BaseModel)
#: Registrations of this process so far, over all registries.
_registrations = 0
#: How many registrations there were when a model was last built by `rebuilt`.
_built: WeakKeyDictionary[type[BaseModel], int] = WeakKeyDictionary()


class Registry(Generic[T]):
    """The kinds of one thing, by name.

    Parameters
    ----------
    what : str
        How messages name a member: ``assay``, ``method``.
    home : str
        Name of the package whose modules hold the kinds, those of its subpackages included. They are imported when
        the kinds are first asked for, so that a new kind is one new file and needs no list. '': there is no such
        package, and only what registers itself is known.
    """

    def __init__(self, what: str, home: str = "") -> None:
        self.what = what
        self.home = home
        self._kinds: dict[str, type[T]] = {}
        self._imported = not home

    def register(self, cls: type[T]) -> type[T]:
        """Add a kind, as a decorator of its class of settings.

        Parameters
        ----------
        cls : type
            Its field ``kind`` is a ``Literal`` of one string, which names it.

        Raises
        ------
        TypeError
            The class has no such field.
        ValueError
            Another class has that name already.
        """
        global _registrations
        kind = _kind_of(cls)
        if kind in self._kinds:
            classes = " and ".join(f"{c.__module__}.{c.__qualname__}" for c in (self._kinds[kind], cls))
            raise ValueError(f"two kinds of {self.what} have the name {kind!r}: {classes}")
        self._kinds[kind] = cls
        _registrations += 1
        return cls

    def kinds(self) -> dict[str, type[T]]:
        """Every kind with its class of settings, in the order of registration."""
        if not self._imported:
            self._imported = True  # before the imports: a module among them may ask for the kinds
            try:
                package = importlib.import_module(self.home)
                for module in pkgutil.walk_packages(package.__path__, f"{self.home}."):
                    importlib.import_module(module.name)
            except BaseException:
                self._imported = False
                raise
        return dict(self._kinds)


@dataclass(frozen=True)
class AnyKind:
    """Annotation of a field that holds any kind of a registry: ``Annotated[AssaySettings, AnyKind(ASSAYS)]``.

    It is validated as a union told apart by ``kind``, over what is registered when the model is built; see `rebuilt`.
    Each member is serialised by its own class.
    """

    registry: Registry[Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {kind: handler.generate_schema(cls) for kind, cls in self.registry.kinds().items()}
        return core_schema.tagged_union_schema(choices, "kind")


def rebuilt(model: type[M]) -> type[M]:
    """A model that knows every kind registered by now: built again where any was added since its last building.

    Parameters
    ----------
    model : type
        Its own fields hold an `AnyKind`. Models that it contains are not built again.

    Returns
    -------
    type
        The same class.
    """
    before = _registrations
    if _built.get(model) != before:
        model.model_rebuild(force=True)
        _built[model] = before
    return model


def _kind_of(cls: type[Settings]) -> str:
    """The one value of a class's field ``kind``."""
    field = cls.model_fields.get("kind")
    values = get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()
    if len(values) != 1 or not isinstance(values[0], str):
        raise TypeError(f"{cls.__qualname__} needs a field `kind` that is a Literal of one string")
    return values[0]
