"""A user's own pipeline as it is: its input modules replaced by LoadData, and the roles of its objects recognised.

Pipelines made in CellProfiler's window start with Images, Metadata, NamesAndTypes and Groups, which look for files on
disk. Here the assay's table says which files there are, so one LoadData module replaces the four; what follows is the
user's, unchanged to the byte.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.base.errors import MorphobenchError
from benchmark.cellprofiler.pipeline import NAMES_OBJECTS, Module, object_names, parse

IMAGES, METADATA, NAMES_AND_TYPES, GROUPS = INPUTS = ("Images", "Metadata", "NamesAndTypes", "Groups")
#: As CellProfiler 4.2.8.1 writes it (revision 6); the table is given with --data-file.
LOAD_DATA = r"""LoadData:[module_num:1|svn_version:'Unknown'|variable_revision_number:6|show_window:False|notes:['In the place of Images, Metadata, NamesAndTypes and Groups; the table is given with --data-file.']|batch_state:array([], dtype=uint8)|enabled:True|wants_pause:False]
    Input data file location:Default Input Folder|
    Name of the file:load_data.csv
    Load images based on this data?:Yes
    Base image location:None|
    Process just a range of rows?:No
    Rows to process:1,100000
    Group images by metadata?:{grouped}
    Select metadata tags for grouping:{tags}
    Rescale intensities?:{rescale}
"""  # noqa: E501
#: Metadata of the table of images (`benchmark.cellprofiler.shards.stage`).
TAGS = ("Plate", "Well", "Site", "FieldNumber")
_GROUP_TAGS = ("Plate", "Well", "Site")
GREY, FUNCTION = "Grayscale image", "Illumination function"
_BY_METADATA, _BY_TYPE = "Image metadata", "Image bit-depth"
_ALL, _RULES = "All images", "Images matching rules"
#: First text of an assignment of NamesAndTypes, and of a single image.
_ASSIGNMENT, _SINGLE = "Select the rule criteria", "Single image location"
#: Modules whose objects are those of another module, fewer of them or changed.
_CHANGED = {"FilterObjects", "EditObjectsManually", "MaskObjects", "ExpandOrShrinkObjects", "SplitOrMergeObjects",
            "FillObjects", "ErodeObjects", "DilateObjects", "ResizeObjects"}
_TAG = re.compile(r"\\g<(\w+)>")
_COUNT = re.compile(r"(?m)^ModuleCount:\d+(?=\r?$)")
_WHERE = "cellprofiler.pipeline"


@dataclass(frozen=True)
class Roles:
    """Names of a pipeline's objects; '' where it has none of that kind."""

    nuclei: str = ""
    cells: str = ""
    cytoplasm: str = ""


@dataclass(frozen=True)
class Load:
    """One image that NamesAndTypes loads: its name, how it is loaded, what it is divided by, one file for all sets?"""

    image: str
    kind: str
    rescale: str
    single: bool


def with_load_data(text: str) -> str:
    """The pipeline with LoadData in the place of Images, Metadata, NamesAndTypes and Groups.

    Everything after those modules stays to the byte; of the header only the count of modules changes. A pipeline that
    has none of them comes back as it is.

    Parameters
    ----------
    text : str
        A pipeline.

    Returns
    -------
    str
        A pipeline that starts with LoadData. The images to load are those that NamesAndTypes names, grey planes and
        illumination functions; a field's intensities are divided by 255 or 65535, as its files' type has it.

    Raises
    ------
    MorphobenchError
        The pipeline does not start with the four modules (or has LoadData too); or NamesAndTypes loads what a table of
        grey planes cannot give: objects, masks, colour images, volumes, one picture for all fields, intensities divided
        by a number of the user's; or it groups by, or later modules use, metadata other than plate, well and site.
    """
    modules = parse(text)
    inputs = [m for m in modules if m.name in INPUTS]
    if not inputs:
        return text
    if [m.name for m in modules[:len(inputs)]] != [n for n in INPUTS if n in {m.name for m in inputs}] or (
            NAMES_AND_TYPES not in {m.name for m in inputs}):
        raise MorphobenchError(f"the pipeline's input modules ({', '.join(m.name for m in inputs)}) are not Images, "
                               "Metadata, NamesAndTypes and Groups at its start", _WHERE,
                               "Save it again from CellProfiler.")
    rest = modules[len(inputs):]
    if any(m.name == "LoadData" for m in rest):
        raise MorphobenchError("the pipeline loads images by LoadData and by NamesAndTypes", _WHERE, "Remove one.")
    loads = _loads(next(m for m in inputs if m.name == NAMES_AND_TYPES))
    _check_loads(loads)
    tags = _grouping(next((m for m in inputs if m.name == GROUPS), None))
    _check_tags(rest)
    by_metadata = any(load.rescale == _BY_METADATA and load.kind == GREY for load in loads)
    block = LOAD_DATA.format(grouped="Yes" if tags else "No", tags=",".join(tags),
                             rescale="Yes" if by_metadata else "No")
    lines = text.split("\n")
    windows = lines[modules[0].line].endswith("\r")
    head = _COUNT.sub(f"ModuleCount:{len(rest) + 1}", "\n".join(lines[:modules[0].line]))
    # What is written after the last module is written after LoadData where nothing follows.
    tail = "\n" + "\n".join(lines[rest[0].line:]) if rest else ""
    return f"{head}\n{_ends(block, windows)}{_ends(tail[:1], windows)}{tail[1:]}"


def _ends(text: str, windows: bool) -> str:
    return text.replace("\n", "\r\n") if windows else text


def _loads(module: Module) -> list[Load]:
    """What NamesAndTypes loads, in its order.

    Raises
    ------
    MorphobenchError
        It assigns images in a way that is not known, or loads volumes.
    """
    method = module.get("Assign a name to")
    if module.get("Process as 3D?") == "Yes":
        raise MorphobenchError("NamesAndTypes loads volumes (Process as 3D)", _WHERE, "Fields are flat here.")
    if method == _ALL:
        return [Load(module.get("Name to assign these images"), module.get("Select the image type"),
                     module.get("Set intensity range from"), False)]
    if method != _RULES:
        raise MorphobenchError(f"NamesAndTypes assigns images by {method!r}", _WHERE,
                               f"Choose {_ALL!r} or {_RULES!r}.")
    found = []
    starts = [i for i, s in enumerate(module.settings) if s.text in (_ASSIGNMENT, _SINGLE)]
    for start, end in zip(starts, [*starts[1:], len(module.settings)], strict=True):
        # An assignment is a module's settings in small; its texts occur once each.
        part = Module(NAMES_AND_TYPES, module.number, True, module.settings[start:end], module.line)
        name = part.get("Name to assign these images") or part.get("Name to assign this image")
        kind = part.get("Select the image type")
        if kind == "Objects":
            name = part.get("Name to assign these objects")
        found.append(Load(name, kind, part.get("Set intensity range from"), part.settings[0].text == _SINGLE))
    return found


def _check_loads(loads: Sequence[Load]) -> None:
    """Refuse what a table of grey planes cannot give."""
    if not loads or not all(load.image for load in loads):
        raise MorphobenchError("NamesAndTypes names no images", _WHERE, "Save it again from CellProfiler.")
    for load in loads:
        if load.kind not in (GREY, FUNCTION):
            what = f"NamesAndTypes loads {load.image} as {load.kind.lower() or 'nothing'}"
            raise MorphobenchError(what, _WHERE, "Only grey images, one a channel, and illumination functions can be "
                                   "loaded here: let the pipeline find its objects, and load each channel by itself.")
        if load.kind == GREY and load.single:
            raise MorphobenchError(f"NamesAndTypes loads one file, {load.image}, for all fields", _WHERE,
                                   "Load a channel of the assay; for illumination choose the type "
                                   f"{FUNCTION!r}, and the study's functions are loaded.")
        if load.kind == GREY and load.rescale not in (_BY_METADATA, _BY_TYPE, "Yes", "No", ""):
            raise MorphobenchError(f"NamesAndTypes divides {load.image} by a number ({load.rescale}), and LoadData "
                                   "cannot", _WHERE, f"Set intensity range from {_BY_TYPE!r}, and multiply with "
                                   "ImageMath (by 16 for a 12-bit camera).")


def _grouping(module: Module | None) -> list[str]:
    """Metadata tags to group by; none where the pipeline does not group."""
    if module is None or not module.enabled or module.get("Do you want to group your images?") != "Yes":
        return []
    tags = [t for t in module.all("Metadata category") if t not in ("", "None")]
    other = [t for t in tags if t not in _GROUP_TAGS]
    if other or not tags:
        raise MorphobenchError(f"Groups groups by {', '.join(other) or 'nothing'}", _WHERE,
                               f"Fields have {', '.join(_GROUP_TAGS)}: group by these, or not at all.")
    return tags


def _check_tags(modules: Sequence[Module]) -> None:
    r"""Refuse ``\g<tag>`` of metadata that a field does not have here."""
    for module in modules:
        unknown = sorted({t for s in module.settings for t in _TAG.findall(s.value) if t not in TAGS})
        if module.enabled and unknown:
            raise MorphobenchError(f"{module.name} uses the metadata {', '.join(unknown)}", _WHERE,
                                   f"Fields have {', '.join(TAGS)} here.")


def object_roles(text: str, nuclei: str = "", cells: str = "") -> Roles:
    """Which of a pipeline's objects are nuclei, cells and cytoplasm, whatever they are called.

    Nuclei are what the first IdentifyPrimaryObjects finds, or what FilterObjects and its like leave of them where
    cells are grown from that; cells what the first IdentifySecondaryObjects grows from them; cytoplasm what the first
    IdentifyTertiaryObjects leaves of those cells around those nuclei.

    Parameters
    ----------
    text : str
        A pipeline.
    nuclei, cells : str
        As the study states them; these go before.

    Returns
    -------
    Roles
        '' for each kind that the pipeline does not have. A pipeline without objects has none.

    Raises
    ------
    MorphobenchError
        A stated name is none of the pipeline's objects.
    """
    modules = [m for m in parse(text) if m.enabled]
    known = object_names(text)
    for setting, name in (("nuclei", nuclei), ("cells", cells)):
        if name and name not in known:
            raise MorphobenchError(f"the pipeline makes no objects {name!r}", f"cellprofiler.{setting}",
                                   f"It makes {', '.join(known) or 'none'}.")
    grown = [(m.get("Select the input objects"), m.get("Name the objects to be identified")) for m in modules
             if m.name == "IdentifySecondaryObjects"]
    if not nuclei and cells:
        nuclei = next((seed for seed, made in grown if made == cells), "")
    family = [nuclei] if nuclei else _primary(modules)
    found = next(((seed, made) for seed, made in grown if seed in family and cells in ("", made)), None)
    nuclei = nuclei or (found[0] if found else next(iter(family), ""))
    cells = cells or (found[1] if found else "")
    return Roles(nuclei, cells, _cytoplasm(modules, nuclei, cells))


def _primary(modules: Sequence[Module]) -> list[str]:
    """What the first IdentifyPrimaryObjects finds, and objects that are a selection or a change of them."""
    family: list[str] = []
    for m in modules:
        made = [s.value for s in m.settings if NAMES_OBJECTS.fullmatch(s.text)]
        if m.name == "IdentifyPrimaryObjects":
            family = family or made[:1]
        elif m.name in _CHANGED and any(s.value in family for s in m.settings if s.text.startswith("Select")):
            family += made[:1]
    return family


def _cytoplasm(modules: Sequence[Module], nuclei: str, cells: str) -> str:
    """What the first IdentifyTertiaryObjects leaves of the cells around the nuclei."""
    wanted = {"Select the larger identified objects": cells, "Select the smaller identified objects": nuclei}
    return next((m.get("Name the tertiary objects to be identified") for m in modules if cells and nuclei
                 and m.name == "IdentifyTertiaryObjects" and all(m.get(k) == v for k, v in wanted.items())), "")
