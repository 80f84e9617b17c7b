"""Write the pipelines of this folder with CellProfiler's own API.

Setting order and module revisions are then those of the installed release, and the files open
unchanged in CellProfiler's own window. Run it with CellProfiler's interpreter:

    .venv-cellprofiler/bin/python pipelines/write_pipelines.py [FOLDER]

Sizes and thresholds suit full-resolution fields for analysis (about 1280×1024 pixels, nuclei 12–60 pixels
wide) and BBBC013 for translocation (640×640 pixels, nuclei 10–35 pixels wide); studies of other
magnifications change them by module and setting name. The whole-field pipelines identify no objects and have no sizes
other than those of their filters.
"""

import logging
import sys
from itertools import pairwise
from pathlib import Path

import cellprofiler_core.preferences as preferences

preferences.set_headless()

from cellprofiler_core.pipeline import Pipeline  # noqa: E402  (headless must be set before)
from cellprofiler_core.utilities.core.modules import fill_modules, instantiate_module  # noqa: E402

CHANNELS = ["DNA", "Tubulin", "Actin"]
REPORTER_CHANNELS = ["Reporter", "DNA"]
OBJECTS = ["Nuclei", "Cells", "Cytoplasm"]
MASKS = ["Nuclei", "Cells"]
#: Standard deviations of the Gaussians whose differences are the bands, in pixels.
SIGMAS = (1, 2, 4, 8)
BANDS = ("Fine", "Medium", "Coarse")
PERCENTILES = "1,5,10,25,50,75,90,95,99"


class Builder:
    """A pipeline built module by module."""

    def __init__(self):
        self.pipeline = Pipeline()
        self.count = 0

    def add(self, name, note="", **settings):
        """Append the module ``name`` with its attributes set; returns it for its repeated groups."""
        module = instantiate_module(name)
        self.count += 1
        module.set_module_num(self.count)
        module.notes = [note] if note else []
        module.show_window = False
        for attribute, value in settings.items():
            set_value(getattr(module, attribute), value)
        self.pipeline.add_module(module)
        return module


def set_value(setting, value):
    """Give a setting its value, by text where it has one."""
    if isinstance(value, (list, tuple)):
        value = ", ".join(value)
    if isinstance(value, bool):
        value = "Yes" if value else "No"
    if hasattr(type(setting), "value_text"):
        setting.value_text = str(value)
    if setting.value_text != str(value):
        setting.value = value


def load(b, **more):
    b.add("LoadData", "The table of images is given on the command line with --data-file.",
          csv_directory="Default Input Folder|", csv_file_name="load_data.csv", wants_images=True,
          image_directory="None|", rescale=False, **more)


def correct_illumination(b):
    for channel in CHANNELS:
        calculate_illumination(b, "Orig" + channel, channel, 300)
    apply_illumination(b, CHANNELS)


def calculate_illumination(b, image, channel, block):
    b.add("CorrectIlluminationCalculate",
          "Per field: the darkest pixels of blocks, smoothed by a polynomial, show the lamp's shape.",
          image_name=image, illumination_image_name="Illum" + channel,
          intensity_choice="Background", block_size=block, rescale_option="Yes", each_or_all="Each",
          smoothing_method="Fit Polynomial")


def apply_illumination(b, channels):
    module = b.add("CorrectIlluminationApply")
    while len(module.images) < len(channels):
        module.add_image()
    for image, channel in zip(module.images, channels, strict=True):
        set_value(image.image_name, "Orig" + channel)
        set_value(image.corrected_image_name, "Flat" + channel)
        set_value(image.illum_correct_function_image_name, "Illum" + channel)
        set_value(image.divide_or_subtract, "Divide")
    for channel in channels:
        # Texture uses 256 grey levels of the whole range: 12-bit pictures in 16-bit files would use only 16 of them.
        module = b.add("ImageMath", "The same factor for all fields: 16 for a 12-bit camera's 16-bit files.",
                       operation="None", after_factor=1.0, output_image_name=channel)
        set_value(module.images[0].image_name, "Flat" + channel)


def segment(b):
    identify_nuclei(b, "12,60", 1.3488, "0.01,1.0")
    module = b.add("IdentifySecondaryObjects", x_name="Nuclei", y_name="Cells", method="Propagation",
                   image_name="Actin", regularization_factor=0.05, fill_holes=True,
                   wants_discard_edge=False)
    threshold = module.threshold
    set_value(threshold.threshold_scope, "Global")
    set_value(threshold.global_operation, "Minimum Cross-Entropy")
    set_value(threshold.threshold_smoothing_scale, 1.3488)
    set_value(threshold.threshold_correction_factor, 0.8)
    set_value(threshold.threshold_range, "0.008,1.0")
    identify_cytoplasm(b)


def identify_nuclei(b, diameters, smoothing, bounds):
    module = b.add("IdentifyPrimaryObjects", x_name="DNA", y_name="Nuclei", size_range=diameters,
                   exclude_size=True, exclude_border_objects=True, use_advanced=True,
                   unclump_method="Shape", watershed_method="Intensity", maximum_object_count=1000)
    threshold = module.threshold
    set_value(threshold.threshold_scope, "Global")
    set_value(threshold.global_operation, "Minimum Cross-Entropy")
    set_value(threshold.threshold_smoothing_scale, smoothing)
    set_value(threshold.threshold_correction_factor, 1.0)
    # A floor above the camera's background: an empty field must not fill with false nuclei.
    set_value(threshold.threshold_range, bounds)
    return threshold


def identify_cytoplasm(b):
    b.add("IdentifyTertiaryObjects", secondary_objects_name="Cells", primary_objects_name="Nuclei",
          subregion_objects_name="Cytoplasm", shrink_primary=False)


def measure(b):
    measure_basics(b, CHANNELS)
    measure_distribution(b, CHANNELS)
    measure_texture(b, CHANNELS, OBJECTS, (3, 10))
    b.add("MeasureGranularity", images_list=CHANNELS, wants_objects=True, objects_list=OBJECTS,
          subsample_size=0.25, image_sample_size=0.25, element_size=10, granular_spectrum_length=16)
    measure_neighbours(b, 60)
    measure_colocalisation(b, CHANNELS)


def measure_quality(b, channels):
    """Measures of focus and saturation, of images as they were loaded."""
    module = b.add("MeasureImageQuality", images_choice="Select...")
    group = module.image_groups[0]
    set_value(group.image_names, ["Orig" + c for c in channels])
    set_value(group.calculate_threshold, False)


def measure_basics(b, channels):
    measure_quality(b, channels)
    b.add("MeasureObjectSizeShape", objects_list=OBJECTS, calculate_zernikes=True, calculate_advanced=False)
    b.add("MeasureObjectIntensity", images_list=channels, objects_list=OBJECTS)


def measure_distribution(b, channels):
    module = b.add("MeasureObjectIntensityDistribution", images_list=channels, wants_zernikes="None")
    # Not of the cytoplasm: in a ring the inner bins are always empty, and the cells' outer bins are the same.
    while len(module.objects) < 2:
        module.add_object()
    nuclei, cells = module.objects
    set_value(nuclei.object_name, "Nuclei")
    set_value(nuclei.center_choice, "These objects")
    set_value(cells.object_name, "Cells")
    set_value(cells.center_choice, "Centers of other objects")
    set_value(cells.center_object_name, "Nuclei")
    set_value(module.bin_counts[0].wants_scaled, True)
    set_value(module.bin_counts[0].bin_count, 4)


def measure_texture(b, channels, objects, scales):
    module = b.add("MeasureTexture", images_list=channels, objects_list=objects, gray_levels=256,
                   images_or_objects="Objects")
    module.add_scale()
    for group, scale in zip(module.scale_groups, scales, strict=True):
        set_value(group.scale, scale)


def measure_neighbours(b, distance):
    b.add("MeasureObjectNeighbors", object_name="Nuclei", neighbors_name="Nuclei",
          distance_method="Within a specified distance", distance=distance)
    b.add("MeasureObjectNeighbors", object_name="Cells", neighbors_name="Cells", distance_method="Adjacent")


def measure_colocalisation(b, channels):
    b.add("MeasureColocalization", images_list=channels, images_or_objects="Within objects",
          objects_list=OBJECTS, do_all=False, do_corr_and_slope=True, do_manders=True, do_rwc=True,
          do_overlap=True, do_costes=False)


def measure_ratio(b):
    module = b.add("CalculateMath", "How far the reporter has gone into the nucleus: its mean there over its mean in "
                   "the cytoplasm around.", output_feature_name="TranslocationRatio", operation="Divide")
    for operand, name in zip(module.operands, ("Nuclei", "Cytoplasm"), strict=True):
        set_value(operand.operand_choice, "Object")
        set_value(operand.operand_objects, name)
        set_value(operand.operand_measurement, "Intensity_MeanIntensity_Reporter")


def save(b):
    for name in MASKS:
        b.add("ConvertObjectsToImage", object_name=name, image_name="Label" + name, image_mode="uint16")
        b.add("SaveImages", "Label masks as 16-bit TIFF: <DNA file name>_" + name + ".tiff",
              save_image_or_figure="Image", image_name="Label" + name,
              file_name_method="From image filename", file_image_name="OrigDNA",
              wants_file_name_suffix=True, file_name_suffix="_" + name, file_format="tiff",
              pathname="Default Output Folder|", bit_depth="16-bit integer", overwrite=True,
              when_to_save="Every cycle")
    export(b)


def export(b):
    b.add("ExportToSpreadsheet", add_metadata=True, add_filepath=False, directory="Default Output Folder|",
          wants_everything=True, wants_prefix=False, wants_overwrite_without_warning=True,
          nan_representation="NaN")


def load_reporter(b):
    load(b)
    for channel in REPORTER_CHANNELS:
        module = b.add("ImageMath", "8-bit files may have a background of 0, which says nothing of the lamp: an offset "
                       "keeps the function near 1 there. Nothing but the function is made of this image.",
                       operation="None", addend=0.04, truncate_high=False, output_image_name="Offset" + channel)
        set_value(module.images[0].image_name, "Orig" + channel)
        calculate_illumination(b, "Offset" + channel, channel, 160)
    apply_illumination(b, REPORTER_CHANNELS)


def translocation(b):
    """Nucleus against cytoplasm of a reporter: BBBC013, BBBC014 and similar assays."""
    load_reporter(b)
    threshold = identify_nuclei(b, "10,35", 1.0, "0.06,1.0")
    # Haze over dense cells and dim nuclei in sparse places: one threshold for a whole field cuts into some.
    set_value(threshold.threshold_scope, "Adaptive")
    set_value(threshold.adaptive_window_size, 100)
    b.add("IdentifySecondaryObjects", "A ring of equal width for every cell: an outline found in the reporter would "
          "shrink to the nucleus where the reporter is there, and the ratio would hang on it.",
          x_name="Nuclei", y_name="Cells", method="Distance - N", image_name="Reporter",
          distance_to_dilate=6, fill_holes=True, wants_discard_edge=False)
    identify_cytoplasm(b)
    measure_basics(b, REPORTER_CHANNELS)
    measure_ratio(b)
    measure_distribution(b, REPORTER_CHANNELS)
    measure_texture(b, ["Reporter"], ["Nuclei", "Cells"], (2, 5))
    measure_neighbours(b, 30)
    measure_colocalisation(b, REPORTER_CHANNELS)
    save(b)


def analysis(b):
    """Staining of DNA, tubulin and actin: BBBC021 and similar assays."""
    for step in (load, correct_illumination, segment, measure, save):
        step(b)


def illumination(b):
    """Illumination functions of a plate, averaged over all of its fields (Singh et al. 2014, J Microsc 256:231)."""
    load(b, wants_image_groupings=True, metadata_fields="Plate")
    for channel in CHANNELS:
        b.add("CorrectIlluminationCalculate", "The mean of all fields of a plate, smoothed by a median filter much "
              "wider than a cell, over its median.",
              image_name="Orig" + channel, illumination_image_name="Illum" + channel, intensity_choice="Regular",
              each_or_all="All: Across cycles", rescale_option="Median", smoothing_method="Median Filter",
              automatic_object_width="Manually", size_of_smoothing_filter=250)
        b.add("SaveImages", "<plate>_Illum" + channel + ".npy",
              save_image_or_figure="Image", image_name="Illum" + channel, file_name_method="Single name",
              single_file_name=r"\g<Plate>_Illum" + channel, file_format="npy", pathname="Default Output Folder|",
              overwrite=True, when_to_save="Last cycle")


def whole_field(b):
    """No objects: whole fields of DNA, tubulin and actin and of their transforms (after CP-CHARM)."""
    load(b)
    correct_illumination(b)
    measure_whole(b, CHANNELS)


def whole_field_two(b):
    """No objects: whole fields of a reporter and DNA and of their transforms (after CP-CHARM)."""
    load_reporter(b)
    measure_whole(b, REPORTER_CHANNELS)


def measure_whole(b, channels):
    """Measure each channel, each of its transforms, and their pairs; nothing is saved but the table."""
    transforms = [transform + channel for channel in channels for transform in transform_channel(b, channel)]
    measure_quality(b, channels)
    b.add("MeasureImageIntensity", "Percentiles stand for the histograms of WND-CHARM.",
          images_list=[*channels, *transforms], wants_percentiles=True, percentiles=PERCENTILES)
    for images, scales in ((channels, (3, 10)), (transforms, (3,))):
        module = b.add("MeasureTexture", images_list=images, gray_levels=256, images_or_objects="Images")
        while len(module.scale_groups) < len(scales):
            module.add_scale()
        for group, scale in zip(module.scale_groups, scales, strict=True):
            set_value(group.scale, scale)
    b.add("MeasureGranularity", images_list=channels, wants_objects=False, subsample_size=0.5,
          image_sample_size=0.5, element_size=10, granular_spectrum_length=12)
    same = [channels, *([kind + c for c in channels] for kind in ("Edges", *BANDS))]
    for images in same:
        b.add("MeasureColocalization", images_list=images, images_or_objects="Across entire image", do_all=False,
              do_corr_and_slope=True, do_manders=images is channels, do_rwc=images is channels,
              do_overlap=images is channels, do_costes=False)
    export(b)


def transform_channel(b, channel):
    """Add the modules that make a channel's transforms; returns what comes before the channel in their names."""
    for sigma in SIGMAS:
        b.add("GaussianFilter", x_name=channel, y_name=f"Gauss{sigma}{channel}", sigma=sigma)
    for band, (low, high) in zip(BANDS, pairwise(SIGMAS), strict=True):
        module = b.add("ImageMath", "A band of sizes, as wavelets give it: the difference of two Gaussians around the "
                       "middle of the grey levels.", operation="Subtract", addend=0.5,
                       output_image_name=band + channel)
        for operand, sigma in zip(module.images, (low, high), strict=True):
            set_value(operand.image_name, f"Gauss{sigma}{channel}")
            set_value(operand.factor, 2.0)
    b.add("EnhanceEdges", image_name=channel, output_image_name="Sobel" + channel, method="Sobel", direction="All")
    b.add("EnhanceOrSuppressFeatures", x_name=channel, y_name="Tubeness" + channel, method="Enhance",
          enhance_method="Neurites", neurite_choice="Tubeness", smoothing=2.0, wants_rescale=False)
    b.add("EnhanceOrSuppressFeatures", x_name=channel, y_name="Tophat" + channel, method="Enhance",
          enhance_method="Speckles", object_size=10, speckle_accuracy="Fast")
    for name, source in (("Edges", "Sobel"), ("Tubes", "Tubeness"), ("Speckles", "Tophat")):
        module = b.add("ImageMath", "The root spreads small values over more of the 256 grey levels of texture.",
                       operation="None", exponent=0.5, output_image_name=name + channel)
        set_value(module.images[0].image_name, source + channel)
    b.add("Resize", "A quarter of the size, smoothed before: patterns larger than cells.",
          x_name=f"Gauss4{channel}", y_name="Small" + channel, size_method="Resize by a fraction or multiple of the "
          "original size", resizing_factor_x=0.25, resizing_factor_y=0.25, interpolation="Bilinear")
    return (*BANDS, "Edges", "Tubes", "Speckles", "Small")


def main():
    logging.disable(logging.WARNING)
    fill_modules()
    logging.disable(logging.NOTSET)
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    for grow in (analysis, translocation, illumination, whole_field, whole_field_two):
        b = Builder()
        grow(b)
        out = folder / f"{grow.__name__}.cppipe"
        with out.open("w", encoding="utf-8") as handle:
            b.pipeline.dump(handle, save_image_plane_details=False)
        print(f"wrote {out} ({b.count} modules)")


if __name__ == "__main__":
    main()
