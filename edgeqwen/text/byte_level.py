"""The alphabet of byte-level BPE: one printable character for each of the 256 bytes.

Source: the vocabulary format of GPT-2. Printable Latin-1 characters stand for themselves; the
bytes that have none take the characters from U+0100 on, in order.
"""


def _alphabet() -> dict[int, str]:
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)}
    printable |= set(range(ord("®"), ord("ÿ") + 1))
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {byte: chr(byte) for byte in printable}
    alphabet |= {byte: chr(0x100 + i) for i, byte in enumerate(others)}
    return alphabet


CHARACTER_OF_BYTE = _alphabet()
BYTE_OF_CHARACTER = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}


def bytes_of(token: str) -> bytes:
    """Returns the bytes that a token stands for; a token outside the alphabet is its own UTF-8."""
    try:
        return bytes(map(BYTE_OF_CHARACTER.__getitem__, token))
    except KeyError:
        return token.encode()
