"""DICOM files, whatever they are called, in modality units such as Hounsfield's; the patient is the group.

A file is one image, or several frames: `scan.dcm#3`. Values are rescaled by slope and intercept (PS3.3 C.11.1), and
MONOCHROME1 is inverted (C.7.6.3.1.2). Pixels of PixelPaddingValue (C.7.5.1.1.2) hold nothing, as those of nodata.
Masks, doses and objects without pixels are counted and left out; so is color beside gray.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.files import Files
from ssl_app.data.images import Unreadable
from ssl_app.data.members import ONE, Listed, Look, Read, Size, Window
from ssl_app.data.sources.base import UNUSED, Columns, only_in_manifests
from ssl_app.errors import DataError, Notice, nearest

ENDINGS = (".dcm", ".dicom", ".ima")
GROUPS = {"patient": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID"}
GRAY = ("MONOCHROME1", "MONOCHROME2")
NO_IMAGES = {
    "1.2.840.10008.1.3.10": "DICOMDIR (an index)",
    "1.2.840.10008.5.1.4.1.1.66.4": "Segmentation (a mask)",
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation (a mask)",
    "1.2.840.10008.5.1.4.1.1.481.2": "RT Dose (no picture)",
}
PADDING, PADDING_LIMIT = "PixelPaddingValue", "PixelPaddingRangeLimit"
HEADER = (
    "SOPClassUID", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber", "ImagePositionPatient",
    "ImageOrientationPatient", "PhotometricInterpretation", "Rows", "Columns", "NumberOfFrames", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", PADDING, PADDING_LIMIT, "RescaleSlope", "RescaleIntercept",
    "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
PADDED = "pixels of PixelPaddingValue hold nothing, and take their image's mean"
NEEDED = ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation")  # of all that has pixels


class Dicom(Files):
    """Gray images, at the bits they store; the set is of one type, the narrowest that all of it fits in."""

    kind = "DICOM"
    packages = ("pydicom",)
    group, group_from, groups_instead = "patient", "PatientID", "study, series or none"
    value_units = "modality"

    @classmethod
    def recognizes(cls, name: str, head: bytes) -> bool:
        """By DICOM's mark; files of older programs have an ending alone."""
        return head[128:132] == b"DICM" or name.lower().endswith(ENDINGS)

    @classmethod
    def look(cls, path: Path, columns: Columns) -> Look:
        """One image, or a frame each; the group, and the place in its series."""
        from pydicom.datadict import tag_for_keyword

        labeled = columns.label if columns.label and tag_for_keyword(columns.label) else None
        header = read_header(path, (*HEADER, *([labeled] if labeled else [])))
        reason = no_image(header)
        if reason is not None:
            return Look(left_out=reason)
        frames = frames_of(header, path)
        photometric = str(header.PhotometricInterpretation)
        alike = frames if "PerFrameFunctionalGroupsSequence" not in header else 1
        scales = [Scale.of(header, frame) for frame in range(0, frames, alike)]
        padded = (PADDED,) if photometric in GRAY and padding_of(header) is not None else ()
        group, remark = group_of(header, GROUPS.get(columns.group or "patient", "PatientID"))
        return Look(
            images=ONE if frames == 1 else tuple(map(str, range(frames))),
            group=group,
            owner=group_of(header, "PatientID")[0],
            label=None if labeled is None else str(header.get(labeled) or "").strip() or None,
            place=place_of(header),
            dtype=dtype_of(header, scales),
            largest=size_of(header),
            windows=tuple(scale.window for scale in scales for _ in range(alike)),
            spare=None if photometric in GRAY else f"{photometric} (color)",
            remarks=(*remark, *padded),
        )

    @classmethod
    @contextmanager
    def opened(cls, path: Path, columns: Columns, max_image_mb: int) -> Iterator[Read]:
        """Frames in modality units; the file is read once, a frame decoded at a time."""
        dataset = read_dataset(path)
        yield lambda name: picture(dataset, int(name or 0))

    def refuse_columns(self, data: str, columns: Columns) -> None:
        """The group is the patient, study or series; the label may be an attribute, such as Modality."""
        only_in_manifests(data, Columns(split=columns.split), "the DICOM data")
        if columns.group not in {None, UNUSED, *GROUPS}:
            raise DataError(f"DICOM files have no group '{columns.group}'{nearest(str(columns.group), GROUPS)}")

    def set_groups(self, listed: Sequence[Listed], parents: list[int], columns: Columns) -> None:
        """The patient, unless the study or the series is requested."""
        super().set_groups(listed, parents, columns)
        if self.groups is not None and columns.group is not None:
            self.columns = replace(self.columns, group=columns.group, group_from=GROUPS[columns.group])

    def set_labels(self, listed: Sequence[Listed], parents: list[int], columns: Columns) -> list[Notice]:
        """Folders, unless an attribute is requested. Raises DataError where there is none of that name."""
        from pydicom.datadict import tag_for_keyword

        if columns.label not in {None, UNUSED} and tag_for_keyword(str(columns.label)) is None:
            raise DataError(f"DICOM has no attribute '{columns.label}'", expected="one such as Modality")
        return super().set_labels(listed, parents, columns)


def quiet() -> None:
    """Keep pydicom's remarks on files that bend the standard from the user: what cannot be read has its reason."""
    warnings.filterwarnings("ignore", module=r"pydicom\b")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)


def read_header(path: Path, keywords: Sequence[str]) -> Any:
    """The attributes of these keywords; pixels are not read. Raises Unreadable where it is no DICOM."""
    import pydicom

    quiet()
    header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(keywords))
    if not header.file_meta and "SOPClassUID" not in header and "Rows" not in header:
        raise Unreadable("it is no DICOM file, or its header is damaged")
    return header


def read_dataset(path: Path) -> Any:
    """The whole file."""
    import pydicom
    from pydicom.uid import ImplicitVRLittleEndian

    quiet()
    dataset = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:  # of a file without a preamble
        little, implicit = dataset.original_encoding[1], dataset.original_encoding[0]
        explicit = "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2"
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def no_image(header: Any) -> str | None:
    """Why an object is no image: what it is instead. Raises Unreadable for an image without what all images have."""
    from pydicom.uid import UID

    uid: UID = UID(str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or ""))
    if uid in NO_IMAGES:
        return NO_IMAGES[uid]
    if all(header.get(keyword) for keyword in NEEDED):
        return None
    if header.get("BitsAllocated") or header.get("PhotometricInterpretation"):  # of pixels alone: it is damaged
        raise Unreadable(f"its header has no {', '.join(word for word in NEEDED if not header.get(word))}")
    name = uid.name.removesuffix(" Storage") if uid.name != uid else "object of unknown class"
    return f"{name} (no pixels)"


def frames_of(header: Any, path: Path) -> int:
    """How many images the file holds. Raises Unreadable for more than it has room for."""
    frames, size = int(header.get("NumberOfFrames") or 1), path.stat().st_size
    if not 1 <= frames <= size:
        raise Unreadable(f"the header counts {frames} frames in a file of {size} bytes")
    return frames


def size_of(header: Any) -> Size:
    """Shape of one image, and bytes of a value."""
    samples = 1 if str(header.PhotometricInterpretation) in GRAY else 3
    return (int(header.Rows), int(header.Columns), samples), max(1, int(header.BitsAllocated) // 8)


def group_of(header: Any, keyword: str) -> tuple[str | None, tuple[str, ...]]:
    """The group by this attribute, and a remark where it is blank: the study then stands for the patient."""
    named = str(header.get(keyword) or "").strip()
    if named:
        return named, ()
    study = str(header.get("StudyInstanceUID") or "").strip()
    if keyword == "PatientID" and study:
        return study, ("PatientID is blank; StudyInstanceUID is the group",)
    return None, (f"{keyword} is blank; the file is a group of its own",)


def place_of(header: Any) -> tuple[Any, ...]:
    """Patient, study and series, then the number in the series and the position along its normal (mm)."""
    texts = [str(header.get(keyword) or "").strip() for keyword in GROUPS.values()]
    try:
        number = int(header.get("InstanceNumber") or 0)
    except (TypeError, ValueError):
        number = 0
    try:
        turns = np.array(header.ImageOrientationPatient, dtype=float).reshape(2, 3)
        position = float(np.dot(np.cross(*turns), np.array(header.ImagePositionPatient, dtype=float)))
    except (AttributeError, TypeError, ValueError):
        position = 0.0
    return (*texts, number, position if np.isfinite(position) else 0.0)


@dataclass(frozen=True)
class Scale:
    """From stored values to modality units, and the window that a file asks for."""

    slope: float
    intercept: float
    mirror: float | None  # MONOCHROME1: the sum of the lowest and highest value, that each is taken from
    window: Window | None  # in modality units, after the inversion

    @classmethod
    def of(cls, header: Any, frame: int) -> "Scale":
        """The scale of a frame."""
        rescale = functional(header, frame, "PixelValueTransformationSequence")
        slope, intercept = (float(number(rescale, key, 0)) for key in ("RescaleSlope", "RescaleIntercept"))
        if number(rescale, "RescaleSlope", None) is None or slope == 0:
            slope = 1.0
        mirror = None
        if header.get("PhotometricInterpretation") == "MONOCHROME1":
            lowest, highest = stored_range(header)
            mirror = slope * (lowest + highest) + 2 * intercept
        return cls(slope, intercept, mirror, window_of(functional(header, frame, "FrameVOILUTSequence"), mirror))

    @property
    def identical(self) -> bool:
        """Whether stored values are the modality's."""
        return self.slope == 1 and self.intercept == 0


def number(item: Any, keyword: str, default: Any) -> Any:
    """A number of the header; of several the first."""
    value = item.get(keyword)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if len(value) else None
    return default if value in (None, "") else value


def functional(header: Any, frame: int, macro: str) -> Any:
    """The item that holds a frame's attributes: its functional group, the shared one, or the header itself."""
    for groups, place in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        items = header.get(groups) or []
        if place < len(items) and items[place].get(macro):
            return items[place][macro][0]
    return header


def window_of(item: Any, mirror: float | None) -> Window | None:
    """Low and high of the file's first window (PS3.3 C.11.2.1.2), or None."""
    center, width = number(item, "WindowCenter", None), number(item, "WindowWidth", None)
    if center is None or width is None or float(width) < 1:
        return None
    center, width = float(center), float(width)
    if str(item.get("VOILUTFunction") or "LINEAR") == "LINEAR" and width > 1:
        center, width = center - 0.5, width - 1
    low, high = center - width / 2, center + width / 2
    return (low, high) if mirror is None else (mirror - high, mirror - low)


def stored_range(header: Any) -> Window:
    """The lowest and the highest value that the stored bits can hold."""
    bits = int(header.get("BitsStored") or header.BitsAllocated)
    signed = bool(header.get("PixelRepresentation"))
    return (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)


def dtype_of(header: Any, scales: Sequence[Scale]) -> str:
    """The narrowest type that holds all that such a header allows: whether values are negative, it does not say."""
    plain = not header.get("PixelRepresentation") and "ModalityLUTSequence" not in header
    plain = plain and padding_of(header) is None  # what holds nothing is no integer
    if not plain or not all(scale.identical for scale in scales) or header.BitsAllocated > 16:
        return "float32"
    return "uint8" if int(header.get("BitsStored") or header.BitsAllocated) <= 8 else "uint16"


def picture(dataset: Any, frame: int) -> NDArray[Any]:
    """A frame, (H, W) in modality units or (H, W, 3) in RGB. Raises whatever its decoder does."""
    from pydicom.pixels import apply_color_lut, pixel_array
    from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes

    quiet()
    several = int(dataset.get("NumberOfFrames") or 1) > 1
    photometric, syntax = str(dataset.PhotometricInterpretation), dataset.file_meta.TransferSyntaxUID
    how = {"index": frame if several else 0, "raw": photometric in GRAY}
    own = photometric in GRAY and syntax not in (*JPEG2000TransferSyntaxes, *JPEGLSTransferSyntaxes)
    if own:
        how["correct_unused_bits"] = False  # pydicom takes the lowest bits, wherever the highest one is
    refuse_other_sides(dataset, how["index"])
    try:
        array: NDArray[Any] = pixel_array(dataset, **how)
    except RuntimeError as error:  # from the decoders of compressed pixels
        raise Unreadable(f"compressed as {syntax.name}, cannot be decoded ({error})") from error
    if photometric not in GRAY:
        return np.asarray(apply_color_lut(array, dataset)) if photometric == "PALETTE COLOR" else array
    stored = stored_bits(array, dataset) if own else array
    values = rescaled(stored, dataset, Scale.of(dataset, frame))
    empty = padded(array, stored, dataset)
    return values if empty is None else np.where(empty, np.nan, values)


def refuse_other_sides(dataset: Any, frame: int) -> None:
    """Raise Unreadable where compressed pixels are of other sides than the header says: they may be gigabytes."""
    from pydicom.encaps import get_frame

    try:
        if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            return
        frames = int(dataset.get("NumberOfFrames") or 1)
        sides = compressed_sides(get_frame(dataset.PixelData, frame, number_of_frames=frames))
    except Exception:  # of damaged pixels the decoder says more
        return
    if sides not in (None, (int(dataset.Rows), int(dataset.Columns))):
        raise Unreadable(
            f"its pixels are {sides[1]} x {sides[0]}, its header says {dataset.Columns} x {dataset.Rows}"
        )


def compressed_sides(stream: bytes) -> tuple[int, int] | None:
    """Height and width by the header of a stream of JPEG, JPEG-LS or JPEG 2000; None where it says none."""
    if stream[:4] == b"\xff\x4f\xff\x51":  # SIZ (ISO 15444-1, A.5.1)
        right, low, left, top = (int.from_bytes(stream[at : at + 4], "big") for at in (8, 12, 16, 20))
        return low - top, right - left
    at = 2
    while stream[:2] == b"\xff\xd8" and at + 9 < len(stream) and stream[at] == 0xFF:
        mark = stream[at + 1]
        if mark == 0xF7 or (0xC0 <= mark <= 0xCF and mark not in (0xC4, 0xC8, 0xCC)):  # a frame (ISO 10918-1, B.2.2)
            height, width = (int.from_bytes(stream[at + k : at + k + 2], "big") for k in (5, 7))
            return (height, width) if height else None
        at += 1 if mark == 0xFF else 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None


def padding_of(header: Any) -> Window | None:
    """The lowest and highest stored value of pixels that hold nothing, or None."""
    value = number(header, PADDING, None)
    if not isinstance(value, int):
        return None
    limit = number(header, PADDING_LIMIT, value)
    if not isinstance(limit, int):
        limit = value
    return min(value, limit), max(value, limit)


def padded(array: NDArray[Any], stored: NDArray[Any], dataset: Any) -> NDArray[np.bool_] | None:
    """(H, W) where a pixel is padding; None without any. `array`: with the bits above those stored, too.

    Signed values are compared as they are stored; of unsigned ones padding may lie above all that is stored.
    """
    found = padding_of(dataset)
    if found is None or array.dtype.kind == "f":
        return None
    low, high = (int(end) for end in found)
    if array.dtype.kind == "i":
        bits = int(dataset.get("BitsStored") or 8 * array.dtype.itemsize)
        low, high = ((end + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) for end in (low, high))
        array = stored
    else:
        low, high = (end % 2 ** (8 * array.dtype.itemsize) for end in (low, high))
    empty = (array >= min(low, high)) & (array <= max(low, high))
    return empty if empty.any() else None


def stored_bits(array: NDArray[Any], dataset: Any) -> NDArray[Any]:
    """The values without the bits above and below those stored, where older files keep overlays; signs extended."""
    allocated = 8 * array.dtype.itemsize
    bits = int(dataset.get("BitsStored") or allocated)
    if array.dtype.kind == "f" or bits >= allocated:
        return array
    shift = max(int(dataset.get("HighBit", bits - 1)) + 1 - bits, 0)
    kept: NDArray[np.int64] = array.astype(np.int64) >> shift & (2**bits - 1)
    if array.dtype.kind == "i":
        kept = (kept ^ 2 ** (bits - 1)) - 2 ** (bits - 1)
    return np.asarray(kept.astype(array.dtype))


def rescaled(array: NDArray[Any], dataset: Any, scale: Scale) -> NDArray[Any]:
    """Stored values in modality units, bright where the body is."""
    from pydicom.pixels import apply_modality_lut

    if dataset.get("ModalityLUTSequence"):
        values = np.asarray(apply_modality_lut(array, dataset), np.float64)
        bits = int(dataset.ModalityLUTSequence[0].LUTDescriptor[2])
        return values if scale.mirror is None else 2.0**bits - 1 - values
    if scale.identical:
        return array if scale.mirror is None else (scale.mirror - array).astype(array.dtype)
    values = (
        array.astype(np.float64) * scale.slope + scale.intercept
    )  # in float64: 16 bits and a slope do not fit in less
    return values if scale.mirror is None else scale.mirror - values
