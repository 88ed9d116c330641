"""Colour profiles that the data tests make themselves (ICC.1, version 2)."""

import struct

RED, GREEN, BLUE = (0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)  # of sRGB, for D50


def fixed(*values: float) -> bytes:
    """Numbers of type s15Fixed16."""
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + fixed(*values)


def gamma(power: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(power * 256)) + b"\0\0"


def text(said: str) -> bytes:
    data = said.encode() + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(data)) + data + bytes(78)


def profile(space: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr", connection: bytes = b"XYZ ") -> bytes:
    """A profile of a colour space (`RGB `, `GRAY`, `CMYK`)."""
    common = {b"desc": text("made"), b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz(0.9642, 1.0, 0.8249)}
    head, body = struct.pack(">I", len(common | tags)), b""
    start = 128 + 4 + 12 * len(common | tags)
    for name, value in (common | tags).items():
        head += name + struct.pack(">II", start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    size = 128 + len(head) + len(body)
    first = struct.pack(">I4sI4s4s4s", size, b"\0" * 4, 0x02400000, kind, space, connection)
    date = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    return first + date + b"acsp" + bytes(28) + fixed(0.9642, 1.0, 0.8249) + bytes(48) + head + body


def rgb(
    red: tuple[float, ...] = RED,
    green: tuple[float, ...] = GREEN,
    blue: tuple[float, ...] = BLUE,
    power: float = 2.2,
) -> bytes:
    """Of a screen whose primaries have these XYZ."""
    colours = {b"rXYZ": xyz(*red), b"gXYZ": xyz(*green), b"bXYZ": xyz(*blue)}
    return profile(b"RGB ", colours | {name: gamma(power) for name in (b"rTRC", b"gTRC", b"bTRC")})


def grey(power: float) -> bytes:
    return profile(b"GRAY", {b"kTRC": gamma(power)})


def inks(lightness: int) -> bytes:
    """Of a press whose every mixture is a grey of this lightness, 0 to 255 for 0 to 100."""
    ramp = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += ramp * 4 + bytes([lightness, 128, 128]) * 16 + ramp * 3
    return profile(b"CMYK", {b"A2B0": table}, kind=b"prtr", connection=b"Lab ")
