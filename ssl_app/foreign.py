"""What a file is by its first bytes, where something else was expected: a pointer, a web page, another format."""

from ssl_app.errors import Fix

TO_PNG = Fix("convert it to PNG or TIFF")
DOWNLOAD = Fix("download the file itself")
LFS = b"version https://git-lfs.github.com/spec"
FTYP = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1", b"msf1"), "a HEIC picture"),
    b"avif": "an AVIF picture",
    b"avis": "an AVIF picture",
}
STARTS: dict[bytes, tuple[str, Fix]] = {
    LFS: ("a pointer of Git LFS", Fix("run git lfs pull")),
    b"/annex/objects/": ("a pointer of git-annex", Fix("run git annex get")),
    b"\0\0\0\x0cjP  ": ("a JPEG 2000 picture", TO_PNG),
    b"\xff\x4f\xff\x51": ("a JPEG 2000 picture", TO_PNG),
    b"\0\0\0\x0cJXL ": ("a JPEG XL picture", TO_PNG),
    b"\xff\x0a": ("a JPEG XL picture", TO_PNG),
    b"8BPS": ("a Photoshop file", TO_PNG),
    b"%PDF": ("a PDF document", Fix("write its pages as PNG")),
    b"\x89HDF": ("an HDF5 file, as of Keras or MATLAB", Fix("write what it holds in another format")),
    b"SIMPLE  =": ("a FITS file", TO_PNG),
    b"GGUF": ("a GGUF file", Fix("write it as safetensors")),
    b"PK\x03\x04": ("a ZIP archive", Fix("unpack it")),
    b"Rar!": ("a RAR archive", Fix("unpack it")),
    b"7z\xbc\xaf": ("a 7z archive", Fix("unpack it")),
    b"\x1f\x8b": ("compressed by gzip", Fix("unpack it")),
}


def foreign(start: bytes) -> tuple[str, Fix] | None:
    """What a file is, and what to do, by its first 64 bytes or more; None for what is not known here."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page, as a server answers in place of a file", DOWNLOAD
    if start[4:8] == b"ftyp" and start[8:12] in FTYP:
        return FTYP[start[8:12]], TO_PNG
    return next((found for mark, found in STARTS.items() if start.startswith(mark)), None)
