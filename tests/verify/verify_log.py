#!/usr/bin/env python3
"""Checks an exported Bailiwick log without any of Bailiwick's code: Python's standard library alone.

    verify_log.py FILE --key KEY [--older NOTE]...

FILE   an export in JSON Lines (`-` for standard input)
--key  the server's verifier key, from a source that you trust; without it the file is only shown to
       agree with itself
--older a checkpoint that you kept: the log must continue it

Exit code 0: the log is whole. 1: it is not, and the first problem is named. 2: wrong usage.
The forms are described in docs/audit.md.
"""

import argparse
import base64
import hashlib
import json
import re
import sys

LINE_BYTES = 1024 * 1024
NOTE_BYTES = 128 * 1024
# Of lists and objects within each other, and a value within the innermost.
DEPTH = 128
EVENT_KEYS = set(
    "seq at actor credential address request action resource space agent phase verdict intent detail leaf_hash".split()
)


class Problem(Exception):
    """The first thing that is wrong: one word for programs, one sentence for people."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


# --- RFC 8785: canonical JSON -------------------------------------------------------------------


def number(value):
    """A number as JavaScript writes it: every number is a double."""
    value = float(value)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("not a JSON number")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    # Python's repr gives the same shortest digits; only where the point goes differs.
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        return sign + digits + "0" * (point - count)
    if 0 < point <= 21:
        return sign + digits[:point] + "." + digits[point:]
    if -6 < point <= 0:
        return sign + "0." + "0" * -point + digits
    fraction = "." + digits[1:] if count > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{'+' if point > 0 else '-'}{abs(point - 1)}"


def canonical_text(value, depth=1):
    if depth > DEPTH:
        raise ValueError("nested too deeply")
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + ",".join(canonical_text(item, depth + 1) for item in value) + "]"
    # By UTF-16 code units; surrogatepass lets a broken text fail below, where all texts are encoded.
    keys = sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))
    return "{" + ",".join(canonical_text(key) + ":" + canonical_text(value[key], depth + 1) for key in keys) + "}"


def canonical(value):
    return canonical_text(value).encode("utf-8")


# --- RFC 6962: the tree -------------------------------------------------------------------------


def sha256(data):
    return hashlib.sha256(data).digest()


class Tree:
    """The roots of the perfect subtrees at the right edge, largest first."""

    def __init__(self):
        self.size = 0
        self.edge = []

    def append(self, leaf_hash):
        node, size = leaf_hash, self.size
        while size & 1:
            node = sha256(b"\x01" + self.edge.pop() + node)
            size >>= 1
        self.edge.append(node)
        self.size += 1

    def root(self):
        if not self.edge:
            return sha256(b"")
        root = self.edge[-1]
        for left in reversed(self.edge[:-1]):
            root = sha256(b"\x01" + left + root)
        return root


# --- RFC 8032: Ed25519 --------------------------------------------------------------------------

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)
# Points are (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z.
NEUTRAL = (0, 1, 1, 0)


def add(p, q):
    a = (p[1] - p[0]) * (q[1] - q[0]) % P
    b = (p[1] + p[0]) * (q[1] + q[0]) % P
    c = 2 * p[3] * q[3] * D % P
    d = 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def multiply(scalar, point):
    product = NEUTRAL
    while scalar:
        if scalar & 1:
            product = add(product, point)
        point = add(point, point)
        scalar >>= 1
    return product


def same(p, q):
    return (p[0] * q[2] - q[0] * p[2]) % P == 0 and (p[1] * q[2] - q[1] * p[2]) % P == 0


def decompress(data):
    """The point of 32 bytes in their one spelling, or None."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def has_small_order(point):
    return same(multiply(8, point), NEUTRAL)


BASE = decompress((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def ed25519_holds(public, message, signature):
    if len(signature) != 64:
        return False
    key, r = decompress(public), decompress(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if key is None or r is None or s >= ORDER or has_small_order(key) or has_small_order(r):
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % ORDER
    return same(multiply(s, BASE), add(r, multiply(challenge, key)))


# --- C2SP signed-note and tlog-checkpoint -------------------------------------------------------


def unbase64(text):
    """Bytes of base64 in its one spelling, or None."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        return None
    return data if base64.b64encode(data).decode() == text else None


def is_name(name):
    bad = any(c.isspace() or c == "+" or c < " " or "\x7f" <= c <= "\x9f" for c in name)
    return not bad and 1 <= len(name.encode("utf-8", "surrogatepass")) <= 255


def decimal(text):
    return int(text) if re.fullmatch(r"0|[1-9][0-9]{0,19}", text) and int(text) < 2**64 else None


class Key:
    """A verifier key: NAME+ID+BASE64."""

    def __init__(self, text):
        parts = text.split("+", 2)
        if len(parts) != 3:
            raise ValueError("expected NAME+8 hexadecimal digits+base64")
        self.text, self.name, given, data = text, parts[0], parts[1], unbase64(parts[2])
        if not is_name(self.name) or data is None or len(data) != 33 or data[0] != 1:
            raise ValueError("not a name and an Ed25519 key (algorithm 1)")
        self.public = data[1:]
        self.id = sha256(self.name.encode() + b"\n\x01" + self.public)[:4]
        if self.id.hex() != given:
            raise ValueError("damaged: its id does not fit its name and its bytes")
        point = decompress(self.public)
        if point is None or has_small_order(point):
            raise ValueError("no usable Ed25519 key")


def open_note(note, key):
    """What a signed checkpoint says, if the key signed it; whoever wrote it, if the key is None."""
    if len(note.encode("utf-8", "surrogatepass")) > NOTE_BYTES or re.search(r"[\x00-\x09\x0b-\x1f]", note):
        raise Problem("checkpoint", "not a signed note: too long, or with control characters")
    text, empty, below = note.rpartition("\n\n")
    if not empty or not below.endswith("\n"):
        raise Problem("checkpoint", "not a signed note: no signatures below an empty line")
    text += "\n"
    lines = below[:-1].split("\n")
    if len(lines) > 100:
        raise Problem("checkpoint", "not a signed note: more than 100 signatures")
    signatures = []
    for line in lines:
        parts = line.split(" ", 2)
        data = unbase64(parts[2]) if len(parts) == 3 and parts[0] == "\u2014" and is_name(parts[1]) else None
        if data is None or len(data) < 5:
            raise Problem("checkpoint", "not a signed note: a signature line is malformed")
        signatures.append((parts[1], data[:4], data[4:]))
    if key:
        ours = [signature for name, id, signature in signatures if (name, id) == (key.name, key.id)]
        if not all(ed25519_holds(key.public, text.encode(), signature) for signature in ours):
            raise Problem("signature", f"the signature by the key {key.name} is false")
        if not ours:
            raise Problem("unsigned", f"the checkpoint is not signed by the key {key.name}")

    origin, *rest = text[:-1].split("\n")
    size = decimal(rest[0]) if rest else None
    root = unbase64(rest[1]) if len(rest) > 1 else None
    extensions = rest[2:]
    times = [decimal(line[5:]) for line in extensions if line.startswith("time ")]
    if not origin or size is None or root is None or len(root) != 32 or "" in extensions or len(extensions) > 16:
        raise Problem("checkpoint", "not a checkpoint: expected origin, size, root, and lines that are not empty")
    if len(times) > 1 or any(time is None or time >= 2**63 for time in times):
        raise Problem("checkpoint", "not a checkpoint: its time is not one number of microseconds")
    if key and (not origin.startswith(key.name + "/") or origin == key.name + "/"):
        raise Problem("origin", f"the checkpoint's origin {origin} does not belong to the key {key.name}")
    return {"origin": origin, "size": size, "root": root, "time": times[0] if times else None}


# --- The log ------------------------------------------------------------------------------------


def is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64


class Lines:
    def __init__(self, file):
        self.file, self.number = file, 0

    def form(self, what):
        return Problem("form", f"line {self.number}: {what}")

    def next(self):
        """The next line as an object that has been read in its one spelling."""
        data = self.file.readline(LINE_BYTES)
        if not data:
            raise Problem("cut", f"the file was cut: it ends at line {self.number}, before its footer")
        self.number += 1
        if not data.endswith(b"\n"):
            if len(data) == LINE_BYTES:
                raise self.form("longer than 1 MiB")
            raise Problem("cut", f"the file was cut: it ends at line {self.number}, before its footer")
        try:
            value = json.loads(data[:-1].decode("utf-8"))
            spelled = canonical(value)
        except (ValueError, OverflowError, RecursionError):
            raise self.form("not JSON") from None
        if spelled != data[:-1] or not isinstance(value, dict):
            raise self.form("not an object in the canonical form of RFC 8785")
        return value

    def check(self, value, keys, well_typed):
        if set(value) != set(keys) or not well_typed():
            raise self.form("not the fields that it must have")

    def leaf_hash(self, value):
        if not re.fullmatch(r"[0-9a-f]{64}", value["leaf_hash"]):
            raise self.form("its leaf hash is not 64 lower-case hexadecimal digits")
        return bytes.fromhex(value["leaf_hash"])


def is_micros(value):
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def is_event(value):
    texts = "actor credential address action resource phase verdict leaf_hash".split()
    return (
        is_count(value["seq"])
        and is_micros(value["at"])
        and all(isinstance(value[key], str) for key in texts)
        and all(value[key] is None or isinstance(value[key], str) for key in ("request", "space", "agent"))
        and (value["intent"] is None or is_count(value["intent"]))
        and isinstance(value["detail"], dict)
    )


def computed_hash(event, log):
    leaf = {key: value for key, value in event.items() if key not in ("detail", "leaf_hash")}
    leaf |= {"v": 1, "log": log, "detail_sha256": sha256(canonical(event["detail"])).hex()}
    return sha256(b"\x00" + canonical(leaf))


def states_boundary(event):
    """The number below which an event retires others; 0 if it retires none."""
    done = (event["action"], event["phase"], event["verdict"]) == ("audit.retire", "act", "OK")
    below = event["detail"].get("below")
    return below if done and is_count(below) else 0


def verify(file, key, older):
    lines = Lines(file)
    header = lines.next()
    texts = ("log", "origin", "key", "checkpoint")
    counts = ("bailiwick_log", "first", "retired")
    lines.check(
        header,
        texts + counts,
        lambda: all(isinstance(header[k], str) for k in texts) and all(is_count(header[k]) for k in counts),
    )
    if header["bailiwick_log"] != 1:
        raise lines.form("a form of another version: use a newer verifier")
    if header["first"] != 0:
        raise lines.form("the file does not begin at event 0")
    try:
        own = Key(header["key"])
    except ValueError:
        raise lines.form("its key is no verifier key") from None
    checkpoint = open_note(header["checkpoint"], key or own)
    open_note(header["checkpoint"], own)
    log, origin = header["log"], header["origin"]
    if origin != checkpoint["origin"] or origin != f"{own.name}/{log}":
        raise lines.form("log, origin, key and checkpoint do not name the same log")
    for then in older:
        if then["origin"] != origin:
            raise Problem("other-log", f"the older checkpoint is of the log {then['origin']}, this is {origin}")
        if then["size"] > checkpoint["size"]:
            raise Problem("shrunk", f"the log has {checkpoint['size']} events, an older checkpoint {then['size']}")

    tree, retired, stated = Tree(), 0, 0

    def compare():
        for then in older:
            if then["size"] == tree.size and then["root"] != tree.root():
                raise Problem("fork", f"the first {tree.size} events do not give the root that was signed before")

    compare()
    while True:
        line = lines.next()
        if "end" in line:
            lines.check(line, ("end", "events"), lambda: line["end"] is True and is_count(line["events"]))
            break
        if "retired" in line:
            lines.check(
                line,
                ("seq", "leaf_hash", "retired"),
                lambda: line["retired"] is True and is_count(line["seq"]) and isinstance(line["leaf_hash"], str),
            )
        else:
            lines.check(line, EVENT_KEYS, lambda: is_event(line))
        stored, seq = lines.leaf_hash(line), line["seq"]
        if seq != tree.size:
            raise Problem("gap", f"event {tree.size} is missing: found {seq} in its place")
        if "retired" in line:
            if retired != seq:
                raise Problem("retired-late", f"event {seq} was erased, but an older one was kept")
            retired += 1
        else:
            if computed_hash(line, log) != stored:
                raise Problem("changed", f"event {seq} was changed: its fields do not give its leaf hash")
            stated = max(stated, states_boundary(line))
        tree.append(stored)
        compare()
    if line["events"] != tree.size:
        raise lines.form("the footer counts other events than the file has")
    if file.read(1):
        raise lines.form("something stands after the footer")
    if tree.size != checkpoint["size"]:
        raise Problem("length", f"the checkpoint says {checkpoint['size']} events, the log holds {tree.size}")
    if tree.root() != checkpoint["root"]:
        raise Problem("root", f"the events do not give the checkpoint's root {checkpoint['root'].hex()}")
    if retired > stated:
        raise Problem("retired", f"event {stated} was erased without a record: no later `audit.retire` covers it")
    if retired != header["retired"]:
        raise Problem("form", "line 1: the header counts other retired events than the file has")

    time = checkpoint["time"]
    print(f"whole: {tree.size} events of {origin}")
    print(f"root: {tree.root().hex()}")
    print(f"retired: {retired}")
    print(f"signed at: {'not stated' if time is None else f'{time} microseconds since 1970'}")
    print(f"signature: {key.text if key else 'unverified key'}")
    print(f"older checkpoints: {len(older)}")


def main():
    parser = argparse.ArgumentParser(description="Checks an exported Bailiwick log.")
    parser.add_argument("file", metavar="FILE", help="an export in JSON Lines, or - for standard input")
    parser.add_argument("--key", metavar="KEY", help="the server's verifier key, from a source that you trust")
    parser.add_argument("--older", metavar="NOTE", action="append", default=[], help="a checkpoint that you kept")
    options = parser.parse_args()
    try:
        key = Key(options.key) if options.key is not None else None
    except ValueError as error:
        parser.error(f"--key: {error}")
    try:
        notes = [open(path, "rb").read(NOTE_BYTES + 1).decode("utf-8") for path in options.older]
        file = sys.stdin.buffer if options.file == "-" else open(options.file, "rb")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    try:
        verify(file, key, [open_note(note, key) for note in notes])
    except Problem as problem:
        print(f"problem: {problem.code}\n{problem}")
        return 1
    except OSError as error:
        print(f"problem: read\n{error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
