"""Small assays, a small pipeline, and a stand-in for CellProfiler that writes files of its form.

Run as a program it takes CellProfiler's options, counts two objects in every field, notes each call in
the file FAKE_CALLS, and misbehaves as FAKE_FAULT says, or at fields whose DNA image holds the words of a FAULT below.
Needs only the standard library, so it starts fast.
"""

import csv
import os
import signal
import struct
import sys
import time
import zlib
from pathlib import Path

PIPELINE = r"""CellProfiler Pipeline: http://www.cellprofiler.org
Version:5
DateRevision:4281
GitHash:
ModuleCount:6
HasImagePlaneDetails:False

LoadData:[module_num:1|variable_revision_number:6|notes:['read: with |pipes|']|enabled:True|wants_pause:False]
    Name of the file:load_data.csv

Smooth:[module_num:2|variable_revision_number:2|notes:[]|enabled:False|wants_pause:False]
    Select the input image:OrigNothing
    Name the output image:Nothing

IdentifyPrimaryObjects:[module_num:3|variable_revision_number:15|notes:[]|enabled:True|wants_pause:False]
    Select the input image:OrigDNA
    Name the primary objects to be identified:Nuclei
    Typical diameter of objects, in pixel units (Min,Max):12,60
    Thresholding method:Otsu
    Thresholding method:Minimum Cross-Entropy

IdentifySecondaryObjects:[module_num:4|variable_revision_number:10|notes:[]|enabled:True|wants_pause:False]
    Select the input objects:Nuclei
    Name the objects to be identified:Cells
    Select the input image:OrigActin

ConvertObjectsToImage:[module_num:5|variable_revision_number:1|notes:[]|enabled:True|wants_pause:False]
    Select the input objects:Nuclei
    Name the output image:LabelNuclei

SaveImages:[module_num:6|variable_revision_number:16|notes:[]|enabled:True|wants_pause:False]
    Select the image to save:LabelNuclei
    Select image name for file prefix:OrigDNA
    Append a suffix to the image file name?:Yes
    Text to append to the image name:_Nuclei
    Saved file format:tiff

ExportToSpreadsheet:[module_num:7|variable_revision_number:13|notes:[]|enabled:True|wants_pause:False]
    Add a prefix to file names?:No
    Filename prefix:MyExpt_
"""
MODULES = ["LoadData", "IdentifyPrimaryObjects", "IdentifySecondaryObjects", "ConvertObjectsToImage", "SaveImages"]


#: Bytes among a staged DNA image's pixels → what happens there. Flaky fields fail in the first run that has them.
FAULTS = {b"!FAILURE": "failure", b"!CRASHES": "crash", b"!HANGING": "hang", b"!ODDTIME": "flaky"}


def write_csv(path, rows, header):
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, header)
        writer.writeheader()
        writer.writerows(rows)


def write_mask(path, width=4, height=4):
    """A 16-bit TIFF of zeros, by hand."""
    entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1),
               (273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, height), (279, 4, 1, width * height * 2)]
    pixels = bytes(width * height * 2)
    ifd = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries) + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + ifd)


def write_output(folder, numbers, empty=(), dna="OrigDNA", values=None):
    """Everything a good run leaves in ``folder`` for fields with these numbers.

    Measurements follow from the number, or from ``values`` (number → value) where given.
    """
    out = folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    images, nuclei, cells = [], [], []
    for image_number, number in enumerate(numbers, 1):
        count = 0 if number in empty else 2
        value = values[number] if values else number
        row = {"ImageNumber": image_number, "Metadata_FieldNumber": number, "Count_Nuclei": count, "Count_Cells": count,
               "ImageQuality_Focus_OrigDNA": 0.5 + value, "FileName_OrigDNA": f"f{number:05d}_OrigDNA.tif"}
        for i, module in enumerate(MODULES, 1):
            place = i if i == 1 else i + 1  # the disabled Smooth keeps its number
            row[f"ExecutionTime_{place:02d}{module}"] = 0.01
            row[f"ModuleError_{place:02d}{module}"] = 0
        images.append(row)
        for k in range(1, count + 1):
            key = {"ImageNumber": image_number, "ObjectNumber": k, "Metadata_FieldNumber": number}
            nuclei.append({**key, "AreaShape_Area": 100 * value + k, "AreaShape_Center_X": 5,
                           "Location_Center_X": 10 + k, "Location_Center_Y": 20 + k, "Number_Object_Number": k,
                           "Children_Cells_Count": 1})
            # Cells are numbered the other way round, so that only parents can join them rightly.
            cells.append({**key, "AreaShape_Area": 1000 * value + 3 - k, "Location_Center_X": 1,
                          "Location_Center_Y": 1, "Parent_Nuclei": 3 - k,
                          "Neighbors_FirstClosestObjectNumber_Adjacent": 1})
        write_mask(out / f"f{number:05d}_{dna}_Nuclei.tiff")
    write_csv(out / "Image.csv", images, list(images[0]))
    # Like CellProfiler: no measurement columns where nothing was found.
    for name, rows in (("Nuclei", nuclei), ("Cells", cells)):
        write_csv(out / f"{name}.csv", rows, list(rows[0]) if rows else ["ImageNumber", "ObjectNumber"])
    (folder / "done.txt").write_text("Complete\n")
    (folder / "log.txt").write_text("Mon Nov 23 2026: Image # 1, module LoadData # 1: CPU_time = 0.70 secs\n")


def stumble(pixels, done):
    """Misbehave as a field's image tells; the exit status, 0 where it is sound."""
    kind = next((kind for word, kind in FAULTS.items() if word in pixels), "")
    if kind == "flaky":
        with Path(os.environ["FAKE_CALLS"] + "-flaky").open("a+") as handle:
            kind = "" if handle.tell() else "failure"
            handle.write("seen")
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "hang":
        time.sleep(60)
    if kind == "failure":
        print("Error detected during run of module IdentifyPrimaryObjects")
        print("ValueError: zero-size array")
        done.write_text("Failure\n")
        return 255
    return 0


def main(arguments):
    if "--version" in arguments:
        print("4.2.8.1")
        return 0
    value = {name: arguments[arguments.index(name) + 1] for name in ("-p", "--data-file", "-o", "-d")}
    fault = os.environ.get("FAKE_FAULT", "")
    print(f"threads {os.environ.get('OMP_NUM_THREADS')}", flush=True)
    with Path(value["--data-file"]).open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    with Path(os.environ["FAKE_CALLS"]).open("a") as handle:
        handle.write(f"{len(rows)}\n")
    if fault == "hang":
        if os.fork() == 0:  # a grandchild that would outlive its parent
            time.sleep(2)
            Path(os.environ["FAKE_CALLS"]).write_text("survived")
            os._exit(0)
        time.sleep(60)
    if fault == "silent" or (fault == "second-well" and any(r["Metadata_Well"] == "well1" for r in rows)):
        print("Error detected during run of module IdentifyPrimaryObjects")
        print("ValueError: zero-size array")
        return 0
    values = {}
    for row in rows:
        pixels = (Path(row["Image_PathName_OrigDNA"]) / row["Image_FileName_OrigDNA"]).read_bytes()
        values[int(row["Metadata_FieldNumber"])] = zlib.crc32(pixels) % 10000  # so they do not depend on the run
        if bad := stumble(pixels, Path(value["-d"])):
            return bad
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
    if fault == "unknown-module":
        print("Could not find the MeasureMagic module", flush=True)
    numbers = [int(r["Metadata_FieldNumber"]) for r in rows]
    log = Path(value["-d"]).with_name("log.txt").read_text()
    write_output(Path(value["-d"]).parent, numbers, numbers if fault == "empty" else (), values=values)
    Path(value["-d"]).with_name("log.txt").write_text(log)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
