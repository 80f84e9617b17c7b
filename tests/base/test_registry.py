"""Kinds that register themselves, and models that hold any of them."""

import sys
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from benchmark.base.registry import AnyKind, Registry, rebuilt
from benchmark.base.settings import Settings


class Shape(Settings):
    name: str = ""


SHAPES: Registry[Shape] = Registry("shape")


@SHAPES.register
class Square(Shape):
    kind: Literal["square"] = "square"
    side: float = Field(gt=0)


@SHAPES.register
class Circle(Shape):
    kind: Literal["circle"] = "circle"
    radius: float = 1

    @property
    def _idle(self) -> tuple[str, ...]:
        return ("name",) if not self.name else ()


class Drawing(Settings):
    first: Annotated[Shape, AnyKind(SHAPES)]
    others: tuple[Annotated[Shape, AnyKind(SHAPES)], ...] = ()


def test_each_item_becomes_the_class_of_its_kind():
    drawing = Drawing.model_validate({"first": {"kind": "square", "side": 2}, "others": [{"kind": "circle"}]})
    assert isinstance(drawing.first, Square) and drawing.first.side == 2
    assert isinstance(drawing.others[0], Circle)
    assert Drawing(first=Circle()).first == Circle()


def test_members_are_serialised_by_their_own_class():
    drawing = Drawing.model_validate({"first": {"kind": "circle", "radius": 3},
                                      "others": [{"kind": "square", "side": 1}]})
    dumped = drawing.model_dump(mode="json")
    assert dumped == {"first": {"kind": "circle", "radius": 3.0},
                      "others": [{"name": "", "kind": "square", "side": 1.0}]}
    assert Drawing.model_validate(dumped) == drawing


@pytest.mark.parametrize(("first", "error", "loc"), [
    ({"kind": "star"}, "union_tag_invalid", ("first",)),
    ({"side": 2}, "union_tag_not_found", ("first",)),
    ({"kind": "square", "size": 2}, "missing", ("first", "square", "side")),
])
def test_errors_are_those_of_a_tagged_union(first, error, loc):
    with pytest.raises(ValidationError) as caught:
        Drawing.model_validate({"first": first})
    assert (caught.value.errors()[0]["type"], caught.value.errors()[0]["loc"]) == (error, loc)
    if error == "union_tag_invalid":
        assert caught.value.errors()[0]["ctx"]["expected_tags"].startswith("'square', 'circle'")


def test_the_json_schema_maps_each_kind_to_its_definition():
    schema = Drawing.model_json_schema()
    for node in (schema["properties"]["first"], schema["properties"]["others"]["items"]):
        mapping = node["discriminator"]["mapping"]
        assert mapping["square"] == "#/$defs/Square" and mapping["circle"] == "#/$defs/Circle"
    assert "radius" in schema["$defs"]["Circle"]["properties"]


def test_a_kind_registered_later_is_accepted_once_the_model_is_rebuilt():
    # A registry and a model of its own: the other tests look at the shared ones in any order.
    registry: Registry[Shape] = Registry("shape")
    registry.register(Square)

    class Page(Settings):
        shape: Annotated[Shape, AnyKind(registry)]

    raw = {"shape": {"kind": "circle"}}
    with pytest.raises(ValidationError, match="union_tag_invalid"):
        rebuilt(Page).model_validate(raw)
    schema = Page.__pydantic_core_schema__
    assert rebuilt(Page).__pydantic_core_schema__ is schema  # nothing new, nothing built
    registry.register(Circle)
    assert isinstance(rebuilt(Page).model_validate(raw).shape, Circle)
    assert "circle" in Page.model_json_schema()["properties"]["shape"]["discriminator"]["mapping"]


def test_two_kinds_of_one_name_and_a_class_without_a_kind_are_refused():
    class Another(Shape):
        kind: Literal["circle"] = "circle"

    class Two(Shape):
        kind: Literal["one", "two"] = "one"

    with pytest.raises(ValueError, match="two kinds of shape have the name 'circle'"):
        SHAPES.register(Another)
    for cls in (Shape, Two):
        with pytest.raises(TypeError, match="Literal of one string"):
            SHAPES.register(cls)
    assert SHAPES.kinds() == {"square": Square, "circle": Circle}


def test_a_file_in_the_home_package_is_all_that_a_kind_needs(tmp_path, monkeypatch):
    package = tmp_path / "shapes_of_a_test"
    (package / "round").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "round" / "__init__.py").write_text("")
    (package / "base.py").write_text("from benchmark.base.registry import Registry\n"
                                     "KINDS = Registry('shape', 'shapes_of_a_test')\n")
    (package / "round" / "oval.py").write_text(
        "from typing import Literal\nfrom benchmark.base.settings import Settings\n"
        "from shapes_of_a_test.base import KINDS\n\n\n"
        "@KINDS.register\nclass Oval(Settings):\n    kind: Literal['oval'] = 'oval'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    from shapes_of_a_test.base import KINDS  # type: ignore[import-not-found]
    assert "shapes_of_a_test.round.oval" not in sys.modules
    assert list(KINDS.kinds()) == ["oval"]
