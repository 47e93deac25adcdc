"""Says what a file looks like that isn't what it was taken for."""

_STARTS = (
    (b"GGUF", "a GGUF file"),
    (b"version https://git-lfs", "a Git LFS pointer, not the model itself; run `git lfs pull`"),
    (b"PK\x03\x04", "a zip archive, perhaps a PyTorch checkpoint; safetensors are needed"),
    (b"\x80\x02", "a pickled PyTorch checkpoint; safetensors are needed"),
    (b"lmgg", "an old GGML file, from before GGUF; convert the original checkpoint again"),
    (b"fmgg", "an old GGML file, from before GGUF; convert the original checkpoint again"),
    (b"tjgg", "an old GGML file, from before GGUF; convert the original checkpoint again"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it first"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"\x89HDF\r\n", "an HDF5 file"),
    (b"\x93NUMPY", "a numpy array"),
    (b"#!", "a script"),
)
_PAGES = (b"<!doctype html", b"<html", b"<?xml")


def describe_file(head: bytes) -> str:
    """Returns in words what a file that starts with these bytes (32 or more) looks like."""
    for start, words in _STARTS:
        if head.startswith(start):
            return words
    if not any(head):
        return "nothing but zero bytes, perhaps an unfinished download"
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "a safetensors file; convert its folder with `edgeqwen quantize`"
    text = head.lstrip().lower()
    if text.startswith(_PAGES):
        return "a web page, perhaps an error message in place of the download"
    if text.startswith((b"{", b"[")):
        return "JSON"
    if all(byte >= 32 or byte in b"\t\r\n" for byte in head) and head.isascii():
        return "plain text"
    return f"no known format (it starts with {head[:4]!r})"
