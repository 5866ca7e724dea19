"""Files that lie about their size, or unfold to gigabytes: to be refused by their headers, or read in little room."""

import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tests.small_files import GRAY, by_pillow, by_tifffile, npz, small_files, tar
from tests.tiffs import CODES, Form, assembled, write

SIDES = ((30_000, 30_000), (65_535, 65_535), (2**31 - 1, 1), (1, 2**31 - 1), (2**31 - 1, 2**31 - 1), (0, 5))
MEGABYTE = 2**20
GIGABYTES = 2  # of zeros that the large ones unfold to


def bombs(large: bool = True) -> Iterator[tuple[str, bytes]]:
    """(name, content); `large`: those too that take seconds to unfold."""
    for number, (width, height) in enumerate(SIDES):
        for name, content in sizes(width, height):
            yield f"size-{number}-{name}", content
    yield from tags()
    yield from unfolding(64)
    yield from archives()
    if large:
        yield from unfolding(GIGABYTES * 1024)
        yield from just_allowed()


def sizes(width: int, height: int) -> Iterator[tuple[str, bytes]]:
    """Small files under a header that promises these sides."""
    for bits, kind in ((8, 0), (8, 2), (8, 3), (8, 6), (16, 0), (16, 2), (1, 0)):
        yield f"{bits}-{kind}.png", png(width, height, bits, kind, zlib.compress(bytes(1000)))
    files = small_files()
    for name in ("gray.jpg", "rgb.jpg", "progressive.jpg", "cmyk.jpg"):
        content = files[name]
        at = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2")) + 5
        yield name, content[:at] + struct.pack(">HH", height & 0xFFFF, width & 0xFFFF) + content[at + 4 :]
    gif, small = files["palette.gif"], struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
    frame = gif.index(b",\0\0\0\0") + 5
    yield "screen.gif", gif[:6] + small + gif[10:]
    yield "frame.gif", gif[:frame] + small + gif[frame + 4 :]
    for name in ("rgb.bmp", "palette.bmp", "rgba.bmp", "bits.bmp"):
        bmp = files[name]
        yield name, bmp[:18] + struct.pack("<ii", width, -height if name == "rgb.bmp" else height) + bmp[26:]
    for name in ("alpha.webp", "moving.webp"):
        webp = files[name]
        canvas = b"".join(max(0, side - 1).to_bytes(4, "little")[:3] for side in (width, height))
        yield name, webp[:24] + canvas + webp[30:]
    lossless = files["lossless.webp"]
    yield (
        "lossless.webp",
        lossless[:21] + struct.pack("<I", (width - 1 & 16383) | (height - 1 & 16383) << 14) + lossless[25:],
    )
    lossy = files["lossy.webp"]
    yield "lossy.webp", lossy[:26] + struct.pack("<HH", width & 16383, height & 16383) + lossy[30:]
    for mark, top in ((b"P5", 255), (b"P6", 255), (b"P5", 65535), (b"P2", 255), (b"P2", 4095), (b"P3", 65535)):
        yield f"{mark.decode()}-{top}.ppm", b"%s %d %d %d\n" % (mark, width, height, top) + b"1 " * 500
    yield "P4.pbm", b"P4 %d %d\n" % (width, height) + bytes(1000)
    for name in ("none", "lzw", "deflate", "packbits", "lzma", "fax", "jpeg", "zstd"):
        common = {258: ("H", (8,)), 259: ("H", (CODES[name],)), 262: ("H", (1,)), 277: ("H", (1,))}
        strip = {256: ("I", (width,)), 257: ("I", (height,)), 273: ("I", (8,)), 278: ("I", (height,)),
                 279: ("I", (1000,))}  # fmt: skip
        tile = {256: ("I", (24,)), 257: ("I", (20,)), 322: ("I", (width,)), 323: ("I", (height,)), 324: ("I", (8,)),
                325: ("I", (1000,))}  # fmt: skip
        yield f"{name}.tif", assembled(bytes(1000), common | strip, "<")
        yield f"{name}-tiles.tif", assembled(bytes(1000), common | tile, "<")


def tags() -> Iterator[tuple[str, bytes]]:
    """TIFF whose other tags lie."""
    plain = write(GRAY[..., None], Form(rows=20))
    for tag, kind, values in (
        (277, "H", (65535,)), (258, "H", (65535,)), (278, "I", (0,)), (278, "I", (2**32 - 1,)),
        (279, "I", (2**32 - 1,)), (273, "I", (2**32 - 1,)), (284, "H", (2,)), (338, "H", (2,) * 60000),
        (339, "H", (9,)), (317, "H", (3,)), (262, "H", (3,)), (262, "H", (6,)), (530, "H", (0, 0)), (266, "H", (2,)),
        (32997, "I", (2**32 - 1,)),
    ):  # fmt: skip
        held: dict[int, tuple[str, tuple[int, ...]]] = {
            256: ("I", (24,)), 257: ("I", (20,)), 258: ("H", (8,)), 259: ("H", (1,)), 262: ("H", (1,)),
            273: ("I", (8,)), 277: ("H", (1,)), 278: ("I", (20,)), 279: ("I", (480,)),
        }  # fmt: skip
        yield f"tag-{tag}-{values[0]}.tif", assembled(GRAY.tobytes(), held | {tag: (kind, values)}, "<")
    loop = plain[:-8].ljust(len(plain), b"\0")
    start = int.from_bytes(plain[4:8], "little")
    count = int.from_bytes(plain[start : start + 2], "little")
    end = start + 2 + 12 * count
    yield "loop.tif", loop[:end] + struct.pack("<I", start) + loop[end + 4 :]
    for name, options in (("imagej", {"imagej": True}), ("shaped", {})):
        pages = by_tifffile(np.zeros((3, 8, 8), np.uint8), **options)
        for before, after in ((b"images=3", b"images=9"), (b"slices=3", b"slices=9"), (b"[3, 8, 8]", b"[9, 9, 9]")):
            yield f"{name}-{before[:6].decode()}.tif", pages.replace(before, after)
    ome = by_tifffile(np.zeros((3, 8, 8), np.uint8), ome=True)
    yield "ome-size.tif", ome.replace(b'SizeX="8"', b'SizeX="9999999999999"')
    entities = "".join(f'<!ENTITY a{i + 1} "{f"&a{i};" * 10}">' for i in range(12))
    xml = f'<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a0 "lol">{entities}]><OME>&a12;</OME>'
    yield "laughs.tif", by_tifffile(GRAY, description=xml, metadata=None)


def unfolding(megabytes: int) -> Iterator[tuple[str, bytes]]:
    """Small files with that many megabytes of zeros in them, under small sides."""
    deflated, size = zeros(megabytes), f"{megabytes}-MB"
    yield f"{size}.png", png(24, 20, 8, 0, deflated)
    yield f"{size}-deep.png", png(24, 20, 16, 2, deflated)
    for kind, body in (
        (b"zTXt", b"a\0\0" + deflated),
        (b"iCCP", b"a\0\0" + deflated),
        (b"iTXt", b"a\0\1\0\0\0" + deflated),
    ):
        yield f"{size}-{kind.decode()}.png", png(24, 20, 8, 0, zlib.compress(bytes(25 * 20)), (kind, body))
    for compression, data in (
        ("deflate", deflated),
        ("lzma", lzma.compress(bytes(32 * MEGABYTE), preset=0)),
    ):
        yield f"{size}-{compression}.tif", square(Form(compression=compression), 20, 1, data)
    yield f"{size}-member.tar.gz", gzipped(tar_header("0.png", megabytes * MEGABYTE), megabytes)
    yield f"{size}-label.tar.gz", gzipped(tar_header("0.cls", megabytes * MEGABYTE), megabytes)
    yield f"{size}-name.tar.gz", gzipped(tar_header("x", megabytes * MEGABYTE, tarfile.GNUTYPE_LONGNAME), megabytes)
    yield f"{size}-pax.tar.gz", gzipped(tar_header("x", megabytes * MEGABYTE, tarfile.XHDTYPE), megabytes)
    yield f"{size}-padding.tar.gz", gzipped(tar_header("0.png", 0), megabytes)
    shapes = {
        "images": (megabytes * 256, 64, 64), "one": (1, megabytes * 1024, 1024),
        "pixels": (megabytes * MEGABYTE, 1, 1), "columns": (megabytes * 256, 64, 64),
    }  # fmt: skip
    for name, shape in shapes.items():
        yield f"{size}-{name}.npz", zipped(npy_header(shape, name == "columns"), megabytes)
    header = b"\x93NUMPY\x02\0" + struct.pack("<I", 2**32 - 1)
    yield f"{size}-header.npz", zipped(header, megabytes)
    labels = {"labels.npy": npy_header((megabytes * MEGABYTE,), False)}
    yield f"{size}-labels.npz", zipped(npy_header((2, 4, 4), False), 0, labels, megabytes)


def archives() -> Iterator[tuple[str, bytes]]:
    """Archives whose sizes lie."""
    picture = by_pillow(GRAY, "PNG")
    for size in (2**33 - 1, 2**31, 513):
        yield f"size-{size}.tar", tar_header("0.png", size) + picture.ljust(1024, b"\0")
        yield f"name-{size}.tar", tar_header("x", size, tarfile.GNUTYPE_LONGNAME) + bytes(2048)
    yield "many.tar.gz", gzip.compress(tar({f"{i}.png": bytes(4 * MEGABYTE) for i in range(20)}), 1)
    whole = npz(images=np.zeros((3, 8, 8), np.uint8))
    central = whole.rindex(b"PK\x01\x02")
    for at in (central + 20, central + 24):
        for value in (0, 1, 2**31, 2**32 - 1):
            yield f"zip-{at - central}-{value}.npz", whole[:at] + struct.pack("<I", value) + whole[at + 4 :]
    yield "half.npz", whole[: len(whole) // 2]


def just_allowed() -> Iterator[tuple[str, bytes]]:
    """Honest files a little under 512 MB of pixels, nothing but zeros."""
    for side, bits, kind, bytes_each in ((22_000, 8, 0, 1), (13_000, 8, 2, 3), (15_500, 16, 0, 2), (9_000, 16, 2, 6)):
        data = zeros(side * (side * bytes_each + 1) // MEGABYTE + 1)
        yield f"allowed-{bits}-{kind}.png", png(side, side, bits, kind, data)
    plain = Form(compression="deflate")
    for name, form, side, samples in (
        ("gray", plain, 22_000, 1),
        ("white", replace(plain, photometric=0), 22_000, 1),
        ("bits", replace(plain, photometric=0, bits=1), 22_000, 1),
        ("twelve", replace(plain, bits=12), 15_500, 1),
        ("cmyk", replace(plain, photometric=5), 11_000, 4),
        ("double", replace(plain, bits=64, kind="f"), 8_000, 1),
        ("float", replace(plain, bits=32, kind="f", predictor=3), 11_000, 1),
        ("integers", replace(plain, bits=32, predictor=2), 11_000, 1),
        ("alpha", replace(plain, photometric=2, extra=(2,)), 11_000, 4),
    ):
        row = -(-side * samples * form.bits // 8)
        data = zeros(side * row // MEGABYTE + 1)
        yield f"allowed-{name}.tif", square(form, side, samples, data)


def square(form: Form, side: int, samples: int, data: bytes) -> bytes:
    """A TIFF of one strip."""
    kind, code = {"u": 1, "f": 3}[form.kind], CODES[form.compression]
    tags: dict[int, tuple[str, tuple[int, ...]]] = {
        256: ("I", (side,)),
        257: ("I", (side,)),
        258: ("H", (form.bits,) * samples),
        259: ("H", (code,)),
        262: ("H", (form.photometric,)),
        273: ("I", (8,)),
        277: ("H", (samples,)),
        278: ("I", (side,)),
        279: ("I", (len(data),)),
        317: ("H", (form.predictor,)),
        339: ("H", (kind,) * samples),
    }
    return assembled(data, tags | ({338: ("H", form.extra)} if form.extra else {}), "<")


def png(width: int, height: int, bits: int, kind: int, data: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks, every checksum right."""
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    palette = [(b"PLTE", bytes(768))] if kind == 3 else []
    chunks = [(b"IHDR", header), *palette, *more, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def zeros(megabytes: int, raw: bool = False) -> bytes:
    """Zeros under Deflate, made of one block again and again; the checksum at the end is left out where raw."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packer.compress(b"")
    block = packer.compress(bytes(MEGABYTE)) + packer.flush(zlib.Z_FULL_FLUSH)
    body = block * megabytes + b"\x03\0"  # an empty last block
    a = 1
    b = megabytes * MEGABYTE % 65521  # Adler-32 of zeros
    return body if raw else b"\x78\x9c" + body + struct.pack(">I", b << 16 | a)


def gzipped(front: bytes, megabytes: int) -> bytes:
    """gzip of some bytes and zeros behind them; its checksum is wrong, which is seen at the end."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = packer.compress(front) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + head + zeros(megabytes, raw=True) + bytes(8)


def tar_header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    header = tarfile.TarInfo(name)
    header.size, header.type = size, kind
    return header.tobuf(tarfile.GNU_FORMAT)


def npy_header(shape: tuple[int, ...], by_columns: bool) -> bytes:
    buffer = io.BytesIO()
    described = {"descr": "|u1", "fortran_order": by_columns, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


def zipped(header: bytes, megabytes: int, more: dict[str, bytes] | None = None, beside: int = 0) -> bytes:
    """A zip of images.npy, zeros behind its header, and others alike: sizes are right, checksums are not."""
    buffer = io.BytesIO()
    members = [("images.npy", header, megabytes), *((name, front, beside) for name, front in (more or {}).items())]
    if not megabytes:
        members[0] = ("images.npy", header + bytes(32), 0)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, front, count in members:
            packer = zlib.compressobj(9, zlib.DEFLATED, -15)
            content = packer.compress(front) + packer.flush(zlib.Z_FULL_FLUSH) + zeros(count, raw=True)
            archive.writestr(name, b"")
            info = archive.getinfo(name)
            start = info.header_offset
            buffer.seek(start)
            info.CRC = zlib.crc32(front) if not count else 1
            info.compress_size, info.file_size = len(content), len(front) + count * MEGABYTE
            buffer.write(info.FileHeader(zip64=False) + content)
            archive.start_dir = buffer.tell()
    return buffer.getvalue()
