#!/usr/bin/env python3
"""A reader of shmts segments and archives, written from FORMAT.md alone.

    reference.py FILE          what the segment says, in the text of vectors/README.md
    reference.py TIER.tier     what an archive's tier says, in the same way; what it passes over, on stderr
    reference.py DIRECTORY     all tiers of an archive
    reference.py --live STORE  the segments of a store, and which of them have a living writer

Python 3.9 or later, the standard library, Linux. Exit status 0; 1 when a segment or
archive is refused, with the reason on stderr; 2 for wrong usage and errors of the system.
"""
import fcntl
import hashlib
import math
import mmap
import os
import stat
import struct
import sys
import zlib

MAGIC = b"SHMTS\r\n\x1a"
M64 = (1 << 64) - 1
UNSET_F64, UNSET_I64 = 0xFFF800756E736574, 1 << 63
F_OFD_GETLK = 36


class Structure:
    """Fields of FORMAT.md's tables, in their order; what is reserved is an x in the format."""

    def __init__(self, form, names):
        self.struct, self.names = struct.Struct("<" + form), names.split()

    def at(self, b, offset=0):
        return dict(zip(self.names, self.struct.unpack_from(b, offset)))


SUPERBLOCK = Structure("8sHHIIIQ16s16s16sqqQIIQIIIIQ32s16s64x", "magic major minor header_size compat incompat total_size segment_id group_id boot_id "
                       "birth_unix birth_mono birth_error pid uid pid_ns flags group_index section_count section_offset checksum writer shadow_of")
SECTION = Structure("IIQQI4x", "type count offset length element")
TABLE = Structure("16sIIIIIIQQI4x", "name tiers lanes row_cells lane_cells shared_cells lane_stride lanes_offset shared_offset capacity")
TIER = Structure("QIIQ8x", "step rows stride offset")
CONTROL = Structure("IIqQIIQQQqQQQ", "state epoch heartbeat ticks series_used heap_used dropped_series overflow_threads rejected_records "
                    "clock_offset fork_losses exemplars exemplars_dropped")
TABLE_CONTROL = Structure("QIII4x4QQ", "open_row row_used lane_used shared_used head0 head1 head2 head3 changes")
SERIES = Structure("IBBbBHHHHIIIIIHhqQQ", "state kind number scale flags table name_length unit_length help_length strings labels_length row_cell "
                   "lane_cell shared_cell buckets bucket_min born_unix born_row retired_row")
ROW = Structure("QQqqqQIHHQ", "seq row_no t_begin t t_mono base_row cells epoch flags checksum")
EXEMPLAR = Structure("QQIIQq16s8s", "seq check series generation value t trace_id span_id")

# 4.2: type -> element size, lies in the header
SECTIONS = {1: (640, False), 2: (256, True), 3: (1, True), 4: (64, False), 5: (1, False), 6: (8, False), 7: (8, False), 8: (64, False)}
CONTROL_S, TABLES_S, SOURCE_S, SERIES_S, HEAP_S, LANES_S, ROWS_S, EXEMPLARS_S = range(1, 9)

U64, I64, F64 = 1, 2, 3
NUMBERS = {U64: "u64", I64: "i64", F64: "f64"}
COUNTER, UPDOWN, GAUGE, STAT, HISTOGRAM = 1, 2, 3, 4, 5
KINDS = {COUNTER: ("counter", (U64, F64)), UPDOWN: ("updown", (I64,)), GAUGE: ("gauge", (F64, I64)),
         STAT: ("stat", (F64,)), HISTOGRAM: ("histogram", (F64, U64))}  # 6.2


class Refuse(Exception):
    """The segment is not read."""


class Broken(Exception):
    """A pair list is broken, 6.4."""


def want(ok, where, rule, got):
    if not ok:
        raise Refuse("%s: want %s, got %s" % (where, rule, got))


def checksum(seed, words):
    """8.3"""
    def rotl(x, n):
        return (x << n | x >> 64 - n) & M64
    p = 0x9E3779B185EBCA87
    a = [p, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, seed]
    for i, w in enumerate(words):
        a[i % 4] = rotl(a[i % 4] ^ w, 29) * p & M64
    h = (rotl(a[0], 1) + rotl(a[1], 7) + rotl(a[2], 12) + rotl(a[3], 18)) & M64
    h = (h ^ h >> 33) * 0xC2B2AE3D27D4EB4F & M64
    h = (h ^ h >> 29) * 0x165667B19E3779F9 & M64
    return h ^ h >> 32


def words(b):
    return list(struct.unpack("<%dQ" % (len(b) // 8), b))


def float_of(bits):
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


def bits_of(f):
    return struct.unpack("<Q", struct.pack("<d", f))[0]


def utf8(*parts):
    try:
        [p.decode("utf-8") for p in parts]
    except UnicodeDecodeError:
        raise Broken("UTF-8") from None


def cut_pairs(b):
    """6.4: the pair list at the front of b, and what follows it."""
    def take(n):
        nonlocal b
        if len(b) < n:
            raise Broken("list inside its bytes")
        head, b = b[:n], b[n:]
        return head
    count, = struct.unpack("<H", take(2))
    pairs, before = [], b""
    for _ in range(count):
        name_length, value_length = struct.unpack("<HH", take(4))
        name, value = take(name_length), take(value_length)
        utf8(name, value)
        if count > 64 or name_length > 255 or value_length > 1023 or name <= before:  # an empty name is never above
            raise Broken("at most 64 pairs, names of 1 to 255 bytes in byte order, each once, values of at most 1023 bytes")
        before = name
        if value:
            pairs.append((name, value))
    return pairs, b


def well_shaped(s):
    """What 6.1 says of a descriptor's fields that stand for themselves."""
    if s["number"] not in KINDS.get(s["kind"], (0, ()))[1]:
        return False
    if s["kind"] == HISTOGRAM:
        shaped = 0 <= s["scale"] <= 6 and 1 <= s["buckets"] <= 2048 and s["bucket_min"] >= -1022 << s["scale"]
    else:
        shaped = s["scale"] == s["buckets"] == s["bucket_min"] == 0
    return shaped and 1 <= s["name_length"] <= 255 and s["unit_length"] <= 63 and s["help_length"] <= 1023 and 2 <= s["labels_length"] <= 65535


def strings_length(s):
    return s["name_length"] + s["unit_length"] + s["help_length"] + s["labels_length"]


def cut_strings(s, b):
    """6.1: name, unit, help and labels, which fill b."""
    a, u = s["name_length"], s["name_length"] + s["unit_length"]
    h = u + s["help_length"]
    s["name"], s["unit"], s["help"] = b[:a], b[a:u], b[u:h]
    utf8(b[:a], b[a:u], b[u:h])
    s["labels"], rest = cut_pairs(b[h:])
    if rest:
        raise Broken("want labels_length %d" % (s["labels_length"] - len(rest)))


class Segment:
    """A segment's file, read with pread: every look is at a private copy."""

    def __init__(self, fd):
        self.fd = fd
        self.size = os.fstat(fd).st_size
        self.parse_superblock()
        self.parse_sections()
        self.tables = [self.parse_table(i) for i in range(self.section[TABLES_S]["count"])]
        self.parse_source()

    def read(self, offset, n):
        b = os.pread(self.fd, n, offset)
        if len(b) != n:
            raise Refuse("superblock: want total_size %d, the file's size, got less" % self.size)
        return b

    def parse_superblock(self):
        where = "superblock"
        want(self.size >= 256, where, "256 bytes", self.size)
        vars(self).update(SUPERBLOCK.at(self.read(0, 256)))
        want(self.magic == MAGIC, where, "magic %r" % MAGIC, self.magic)
        want(self.major == 1, where, "major 1", self.major)
        want(self.incompat == 0, where, "no incompat features", hex(self.incompat))
        want(self.header_size % 64 == 0 and 256 <= self.header_size <= min(65536, self.size), where, "header_size a multiple of 64, "
             "256 to 65536, inside the file", self.header_size)
        self.header = self.read(0, self.header_size)
        w = words(self.header)
        w[0x88 // 8] = 0
        want(checksum(0x53, w) == self.checksum, where, "checksum %#x" % checksum(0x53, w), hex(self.checksum))
        want(self.total_size % 4096 == 0 and self.header_size <= self.total_size <= 1 << 30, where,
             "total_size a multiple of 4096, at most 2^30", self.total_size)
        want(self.total_size == self.size, where, "total_size %d, the file's size" % self.size, self.total_size)
        want(1 <= self.section_count <= 64, where, "section_count 1 to 64", self.section_count)
        want(self.section_offset == 256, where, "section_offset 256", self.section_offset)
        want(256 + 32 * self.section_count <= self.header_size, "section table", "sections inside the header", "past it")

    def parse_sections(self):
        """4.2"""
        self.section = {}
        for i in range(self.section_count):
            new = SECTION.at(self.header, 256 + 32 * i)
            kind, offset, length, element = new["type"], new["offset"], new["length"], new["element"]
            if kind not in SECTIONS:
                continue
            where = "section table %d" % i
            size, in_header = SECTIONS[kind]
            first, end = (256 + 32 * self.section_count, self.header_size) if in_header else (self.header_size, self.total_size)
            want(offset % 64 == 0 and first <= offset <= end, where, "offset a multiple of 64, %d to %d" % (first, end), offset)
            want(length <= end - offset, where, "length at most %d" % (end - offset), length)
            want(element == size or size >= 64 and element > size and element % 64 == 0, where, "element_size %d" % size, element)
            want(length == new["count"] * element, where, "length count x element_size", length)
            want(kind not in self.section, where, "section type %d once" % kind, "twice")
            for s in self.section.values():
                want(max(offset, s["offset"]) >= min(offset + length, s["offset"] + s["length"]), where, "no overlap", offset)
            self.section[kind] = new
        for kind in range(CONTROL_S, EXEMPLARS_S):
            want(kind in self.section, "section table", "a section of type %d" % kind, "none")
        slots = self.section[EXEMPLARS_S]["count"] if EXEMPLARS_S in self.section else 2
        want(2 <= slots <= 4096 and slots & slots - 1 == 0, "section table", "a power of two of exemplars, 2 to 4096", slots)
        for kind, least, most, rule in ((CONTROL_S, 1, 1, "one control block"), (SERIES_S, 0, 1 << 20, "at most 1048576 series"),
                                        (TABLES_S, 1, 8, "1 to 8 tables")):
            want(least <= self.section[kind]["count"] <= most, "section table", rule, self.section[kind]["count"])

    def inside(self, kind, offset, n):
        s = self.section[kind]
        return offset % 64 == 0 and s["offset"] <= offset and offset + n <= s["offset"] + s["length"]

    def parse_table(self, number):
        """4.3"""
        at = self.section[TABLES_S]["offset"] + number * self.section[TABLES_S]["element"]
        t = TABLE.at(self.header, at)
        where, stride = "table %d" % number, t["lane_stride"]
        want((0 if self.flags & 1 else 1) <= t["tiers"] <= 4, where, "1 to 4 tiers (0 when sampled)", t["tiers"])
        want(1 <= t["lanes"] <= 64, where, "1 to 64 lanes", t["lanes"])
        want(1 <= t["row_cells"] <= 1 << 20, where, "1 to 1048576 row_cells", t["row_cells"])
        want(1 <= t["lane_cells"] <= 1 << 20, where, "1 to 1048576 lane_cells", t["lane_cells"])
        want(t["shared_cells"] <= 1 << 20, where, "at most 1048576 shared_cells", t["shared_cells"])
        want(stride % 64 == 0 and stride % 4096 != 0 and stride >= 8 * t["lane_cells"], where,
             "lane_stride a multiple of 64, not of 4096, at least %d" % (8 * t["lane_cells"]), stride)
        want(self.inside(LANES_S, t["lanes_offset"], (t["lanes"] + 1) * stride), where, "lanes inside section lanes", t["lanes_offset"])
        want(self.inside(LANES_S, t["shared_offset"], 8 * t["shared_cells"]), where, "shared lane inside section lanes", t["shared_offset"])
        t["tier"] = []
        for j in range(t["tiers"]):
            tier = TIER.at(self.header, at + 0x40 + 32 * j)
            where, step, stride = "table %d, tier %d" % (number, j), tier["step"], tier["stride"]
            before = t["tier"][j - 1]["step"] if j else 1
            want(10 ** 8 <= step <= 36 * 10 ** 11, where, "step 100000000 to 3600000000000 ns", step)
            want(step > before and step % before == 0, where, "step a multiple of the tier before (%d)" % before, step)
            want(2 <= tier["rows"] <= 65536, where, "2 to 65536 rows", tier["rows"])
            want(stride % 64 == 0 and stride >= 64 + 8 * t["row_cells"], where,
                 "row_stride a multiple of 64, at least %d" % (64 + 8 * t["row_cells"]), stride)
            want(self.inside(ROWS_S, tier["offset"], tier["rows"] * stride), where, "ring inside section rows", tier["offset"])
            t["tier"].append(tier)
        return t

    def parse_source(self):
        """4.4"""
        s = self.section[SOURCE_S]
        try:
            self.labels, rest = cut_pairs(self.header[s["offset"]:s["offset"] + s["length"]])
            self.attributes, _ = cut_pairs(rest)
        except Broken as e:
            raise Refuse("source: want two pair lists: %s" % e) from None
        for name in (b"job", b"instance"):
            want(name in dict(self.labels), "source", "a label %s" % name.decode(), "none")

    def control(self):
        """5, clamped"""
        at = self.section[CONTROL_S]["offset"]
        b = self.read(at, 640)
        c = CONTROL.at(b)
        c["state"] = 2 if c["state"] == 2 else 1
        c["series_used"] = min(c["series_used"], self.section[SERIES_S]["count"])
        c["heap_used"] = min(c["heap_used"], self.section[HEAP_S]["length"])
        c["table"] = [TABLE_CONTROL.at(b, 0x80 + 64 * i) for i in range(8)]
        return c

    def series(self, used):
        """6.1, 10.2: descriptors with their strings, and (index, reason) of those skipped."""
        good, skipped = [], []
        for i in range(used):
            at = self.section[SERIES_S]["offset"] + i * self.section[SERIES_S]["element"]
            for _ in range(3):
                desc = self.read(at, 64)
                s, reason = self.parse_series(i, desc)
                if self.read(at, 4) == desc[:4]:
                    break
            else:
                s, reason = None, "state"
            if reason:
                skipped.append((i, reason))
            elif s:
                good.append(s)
        return good, skipped

    def parse_series(self, index, desc):
        s = dict(SERIES.at(desc), index=index)
        life = s["state"] & 0xFF
        if life > 3:
            return None, "state"
        if life < 2:
            return None, None
        if s["table"] >= len(self.tables) or not well_shaped(s):
            return None, "descriptor"
        t, buckets = self.tables[s["table"]], s["buckets"]
        row, lane, shared = s["cells"] = {COUNTER: (1, 1, 0), UPDOWN: (1, 1, 0), GAUGE: (1, 0, 1), STAT: (5, 8, 1),
                                          HISTOGRAM: (buckets + 3, buckets + 3, 0)}[s["kind"]]
        if not (s["strings"] + strings_length(s) <= self.section[HEAP_S]["length"]
                and s["row_cell"] + row <= t["row_cells"]
                and (not lane or s["lane_cell"] + lane <= t["lane_cells"])
                and (not shared or s["shared_cell"] + shared <= t["shared_cells"])):
            return None, "descriptor"
        try:
            cut_strings(s, self.read(self.section[HEAP_S]["offset"] + s["strings"], strings_length(s)))
        except Broken:
            return None, "strings"
        return s, None

    def rows(self, table, tier):
        """8.2: the valid rows of a ring in order, and (slot, reason) of those skipped."""
        t, ring = self.tables[table], self.tables[table]["tier"][tier]
        good, skipped = [], []
        for slot in range(ring["rows"]):
            b = self.read(ring["offset"] + slot * ring["stride"], 64 + 8 * t["row_cells"])
            r = ROW.at(b)
            if r["row_no"] == 0:
                continue
            if r["row_no"] % ring["rows"] != slot:
                skipped.append((slot, "number"))
            elif r["cells"] > t["row_cells"]:
                skipped.append((slot, "cells"))
            else:
                w = words(b[:64 + 8 * r["cells"]])
                if checksum(table * 256 + tier, words(self.segment_id) + w[1:7] + w[8:]) != r["checksum"]:
                    skipped.append((slot, "checksum"))
                else:
                    good.append((r, w[8:]))
        return sorted(good, key=lambda g: g[0]["row_no"]), skipped

    def exemplars(self, given, series):
        """8.4: the valid exemplars in order, and (slot, reason) of those skipped."""
        ring, good, skipped = self.section[EXEMPLARS_S], [], []
        may = {(s["index"], s["generation"]) for s in series if s["kind"] in (COUNTER, HISTOGRAM)}
        for slot in range(ring["count"]):
            b = self.read(ring["offset"] + slot * ring["element"], 64)
            x, w = EXEMPLAR.at(b), words(b)
            n = x["number"] = x["seq"] >> 1
            if x["seq"] == 0:
                continue
            if n == 0 or (n - 1) % ring["count"] != slot or not given - ring["count"] < n <= given:
                skipped.append((slot, "number"))
            elif x["seq"] & 1:
                skipped.append((slot, "writing"))
            elif checksum(0x10000, words(self.segment_id) + [n] + w[2:]) != x["check"]:
                skipped.append((slot, "check"))
            elif (x["series"], x["generation"]) not in may:
                skipped.append((slot, "series"))
            elif not any(x["trace_id"]):
                skipped.append((slot, "trace"))
            else:
                good.append(x)
        return sorted(good, key=lambda x: x["number"]), skipped

    def live(self, s, open_row):
        """7: a series' live cells, as a row would hold them."""
        t = self.tables[s["table"]]
        lanes = [words(self.read(t["lanes_offset"] + k * t["lane_stride"] + 8 * s["lane_cell"], 8 * s["cells"][1]))
                 for k in range(t["lanes"] + 1)]
        shared = words(self.read(t["shared_offset"] + 8 * s["shared_cell"], 8 * s["cells"][2]))

        def integer(cell):
            return sum(lane[cell] for lane in lanes) & M64

        def real(cell):
            total = float_of(lanes[0][cell])
            for lane in lanes[1:]:
                total += float_of(lane[cell])
            return bits_of(total)
        additive = real if s["number"] == F64 else integer
        if s["kind"] in (COUNTER, UPDOWN):
            return [additive(0)]
        if s["kind"] == GAUGE:
            return shared
        if s["kind"] == HISTOGRAM:
            return [additive(0)] + [integer(c) for c in range(1, s["buckets"] + 3)]
        at = 2 + 3 * (open_row % 2)
        windows = [lane[at + 1:at + 3] for lane in lanes if lane[at] == open_row]
        low = [float_of(w[0]) for w in windows if not math.isnan(float_of(w[0]))]
        high = [float_of(w[1]) for w in windows if not math.isnan(float_of(w[1]))]
        return [integer(0), real(1), shared[0], bits_of(min(low)) if low else UNSET_F64, bits_of(max(high)) if high else UNSET_F64]


def text(b):
    return '"%s"' % "".join(chr(c) if 0x20 <= c < 0x7F and c not in b'"\\' else "\\x%02x" % c for c in b)


def pairs_text(pairs):
    return ",".join("%s=%s" % (text(n), text(v)) for n, v in pairs)


def number_text(number, bits, may_be_unset=False):
    if may_be_unset and bits == {F64: UNSET_F64, I64: UNSET_I64}.get(number):
        return "unset"
    if number == U64:
        return str(bits)
    if number == I64:
        return str(bits - (bits >> 63 << 64))
    f = float_of(bits)
    return "nan:%016x" % bits if math.isnan(f) else "%.17g" % f


def value_text(s, cells):
    if s["kind"] in (COUNTER, UPDOWN, GAUGE):
        return number_text(s["number"], cells[0], s["kind"] == GAUGE)
    if s["kind"] == STAT:
        return "count=%d sum=%s last=%s min=%s max=%s" % (cells[0], number_text(F64, cells[1]), *(number_text(F64, c, True) for c in cells[2:5]))
    n = s["buckets"]
    buckets = ",".join("%d:%d" % (s["bucket_min"] + i, c) for i, c in enumerate(cells[2:2 + n]) if c)
    return "sum=%s zero=%d above=%d buckets=%s" % (number_text(s["number"], cells[0]), cells[1], cells[2 + n], buckets)


def dump(g):
    """The lines of vectors/README.md."""
    c = g.control()
    yield "shmts %d.%d" % (g.major, g.minor)
    yield "size header=%d total=%d" % (g.header_size, g.total_size)
    yield "writer " + text(g.writer.split(b"\0")[0])
    yield "segment " + g.segment_id.hex()
    yield "group %s index=%d" % (g.group_id.hex(), g.group_index)
    yield "boot " + g.boot_id.hex()
    yield "birth unix=%d mono=%d error=%d" % (g.birth_unix, g.birth_mono, g.birth_error)
    yield "process pid=%d uid=%d pid_ns=%d" % (g.pid, g.uid, g.pid_ns)
    yield "flags flags=%d compat=%d" % (g.flags, g.compat)
    if any(g.shadow_of):
        yield "shadow of=" + g.shadow_of.hex()
    yield from ("label " + pairs_text([p]) for p in g.labels)
    yield from ("attribute " + pairs_text([p]) for p in g.attributes)
    for i, t in enumerate(g.tables):
        yield "table %d %s" % (i, text(t["name"].split(b"\0")[0]))
        yield "room %d lanes=%d row_cells=%d lane_cells=%d shared_cells=%d series=%d" % (
            i, t["lanes"], t["row_cells"], t["lane_cells"], t["shared_cells"], t["capacity"])
        for j, r in enumerate(t["tier"]):
            yield "tier %d %d step=%d rows=%d" % (i, j, r["step"], r["rows"])
    yield "control state={state} epoch={epoch} heartbeat={heartbeat} ticks={ticks} clock_offset={clock_offset}".format(**c)
    yield ("lost dropped_series={dropped_series} overflow_threads={overflow_threads} rejected_records={rejected_records} "
           "fork_losses={fork_losses}").format(**c)
    yield "used series={series_used} heap={heap_used}".format(**c)
    for i, t in enumerate(g.tables):
        tc = c["table"][i]
        yield "open %d row=%d heads=%s" % (i, tc["open_row"], ",".join(str(tc["head%d" % j]) for j in range(t["tiers"])))
        used = (min(tc[k + "_used"], t[k + "_cells"]) for k in ("row", "lane", "shared"))
        yield "cells %d row=%d lane=%d shared=%d changes=%d" % (i, *used, tc["changes"])
    series, skipped = g.series(c["series_used"])
    lines = {i: "skip series %d %s" % (i, reason) for i, reason in skipped}
    for s in series:
        s.update(life="live" if s["state"] & 0xFF == 2 else "retired", generation=s["state"] >> 8, kind_name=KINDS[s["kind"]][0],
                 number_name=NUMBERS[s["number"]], labels_text=pairs_text(s["labels"]),
                 name_text=text(s["name"]), unit_text=text(s["unit"]), help_text=text(s["help"]))
        lines[s["index"]] = (
            "series {index} {life} generation={generation} {kind_name} {number_name} {name_text}{{{labels_text}}} unit={unit_text} "
            "help={help_text} flags={flags} table={table} born_unix={born_unix} born_row={born_row} retired_row={retired_row}"
            + (" scale={scale} bucket_min={bucket_min} buckets={buckets}" if s["kind"] == HISTOGRAM else "")).format(**s)
    yield from (lines[i] for i in sorted(lines))
    for i, t in enumerate(g.tables):
        for j in range(t["tiers"]):
            rows, skipped = g.rows(i, j)
            for r, cells in rows:
                yield "row %d %d %d base=%d begin=%d t=%d mono=%d epoch=%d flags=%d cells=%d" % (
                    i, j, r["row_no"], r["base_row"], r["t_begin"], r["t"], r["t_mono"], r["epoch"], r["flags"], r["cells"])
                for s in series:  # 6.1: does the row belong to the series?
                    held = s["born_row"] <= r["base_row"] and (not s["retired_row"] or r["base_row"] < s["retired_row"])
                    if s["table"] == i and held and s["row_cell"] + s["cells"][0] <= r["cells"]:
                        yield "value %d %s" % (s["index"], value_text(s, cells[s["row_cell"]:]))
            yield from ("skip row %d %d slot %d %s" % (i, j, slot, reason) for slot, reason in skipped)
    for s in series:
        if s["life"] == "live":
            yield "live %d %s" % (s["index"], value_text(s, g.live(s, c["table"][s["table"]]["open_row"])))
    if EXEMPLARS_S in g.section:
        yield "exemplars slots=%d given=%d dropped=%d" % (g.section[EXEMPLARS_S]["count"], c["exemplars"], c["exemplars_dropped"])
        good, skipped = g.exemplars(c["exemplars"], series)
        for x in good:
            yield "exemplar %d series=%d value=%s t=%d trace=%s span=%s" % (
                x["number"], x["series"], number_text(F64, x["value"]), x["t"], x["trace_id"].hex(), x["span_id"].hex())
        yield from ("skip exemplar slot %d %s" % s for s in skipped)


class Corrupt(Exception):
    """A column breaks a rule of section 17."""


def rule(ok, what):
    if not ok:
        raise Corrupt(what)


def take(data, pos, n):
    rule(pos + n <= len(data), "want %d bytes, got %d" % (n, len(data) - pos))
    return data[pos:pos + n], pos + n


def take_byte(data, pos):
    b, pos = take(data, pos, 1)
    return b[0], pos


def take_uvarint(data, pos):
    v = 0
    for shift in range(0, 70, 7):
        b, pos = take_byte(data, pos)
        v |= (b & 0x7F) << shift
        if b < 0x80:
            rule(v <= M64, "a varint of more than 64 bits")
            return v, pos
    raise Corrupt("a varint of more than ten bytes")


def unzigzag(z):
    return (z >> 1 ^ -(z & 1)) & M64


def take_zigzag(data, pos):
    z, pos = take_uvarint(data, pos)
    return unzigzag(z), pos


def f64_bits(i, e):
    """The f64 that the i64 i stands for, 17.2."""
    i -= (i >> 63) << 64
    return struct.unpack("<Q", struct.pack("<d", float(i) / float(10 ** e)))[0]


def decode_column(data, pos, n, is_float):
    """17.1 to 17.4: n words, None where absent, and where the column ends."""
    if n == 0:
        return [], pos
    head, pos = take_byte(data, pos)
    presence, codec = head & 3, head >> 2 & 3
    has_base, has_divisor, has_exceptions, has_transform = (head >> b & 1 for b in (4, 5, 6, 7))
    rule(presence != 3 and codec != 3, "a presence or codec of 3")
    if presence == 1:
        rule(head == 1, "a column without values says more")
        return [None] * n, pos
    rule(codec != 0 or not has_divisor | has_exceptions, "a constant with a divisor or exceptions")
    rule(is_float or not has_transform, "integers with a transform")
    present = [True] * n
    if presence == 2:
        bitmap, pos = take(data, pos, (n + 7) // 8)
        bitmap = int.from_bytes(bitmap, "little")
        rule(bitmap != 0 and bitmap >> n == 0, "a bitmap of nothing, or of more than the values")
        present = [bitmap >> i & 1 == 1 for i in range(n)]
    m = sum(present)

    transform, first, base, divisor = 0, 0, 0, 1
    if has_transform:
        transform, pos = take_byte(data, pos)
        rule(transform <= 22 or transform == 255, "an unknown transform")
    if codec == 2:
        first, pos = take_zigzag(data, pos)
    if has_base:
        base, pos = take_zigzag(data, pos)
    if codec == 0:
        words = [base] * m
    else:
        if has_divisor:
            divisor, pos = take_uvarint(data, pos)
            rule(divisor != 0, "a divisor of 0")
        words, pos = decode_frame(data, pos, m - (codec == 2), has_exceptions)
        words = [(base + divisor * x) & M64 for x in words]
        if codec == 2:
            sums = [first]
            for d in words:
                sums.append((sums[-1] + d) & M64)
            words = sums
    if is_float and transform != 255:
        words = [f64_bits(w, transform) for w in words]
    words = iter(words)
    return [next(words) if there else None for there in present], pos


def decode_frame(data, pos, k, has_exceptions):
    """17.3: k integers from width on, before divisor and base."""
    width, pos = take_byte(data, pos)
    rule(width <= 64, "a width of more than 64")
    exceptions = 0
    if has_exceptions:
        exceptions, pos = take_uvarint(data, pos)
        rule(exceptions <= k and width < 64, "more exceptions than integers, or of 64 bits")
    packed, pos = take(data, pos, (k * width + 7) // 8)
    packed = int.from_bytes(packed, "little")
    words = [packed >> i * width & (1 << width) - 1 for i in range(k)]
    position = 0
    for x in range(exceptions):
        further, pos = take_uvarint(data, pos)
        high, pos = take_uvarint(data, pos)
        position += further
        rule((further or x == 0) and position < k, "an exception out of its place")
        rule(high != 0 and high << width <= M64, "high bits of 0, or of more than 64 bits")
        words[position] |= high << width
    return words, pos


class Bits:
    """A stream of bits, the first one of each byte lowest."""

    def __init__(self, data):
        self.number, self.length, self.at = int.from_bytes(data, "little"), 8 * len(data), 0

    def read(self, n):
        rule(self.at + n <= self.length, "a stream that is too short")
        self.at += n
        return self.number >> self.at - n & (1 << n) - 1

    def unary(self, most):
        n = 0
        while n < most and self.read(1):
            n += 1
        return n

    def change(self):
        z = self.unary(255)
        return z >> 1 ^ -(z & 1)

    def below(self, length):
        return 1 << length - 1 | self.read(length - 1) if length else 0


def decode_histogram(data, pos, n, k):
    """17.5: n rows of k counts each, and where they end."""
    rows = [[0] * k for _ in range(n)]
    if n == 0 or k == 0:
        return rows, pos
    coded, pos = take_uvarint(data, pos)
    if coded == 0:
        return rows, pos
    first, pos = take_uvarint(data, pos)
    rule(first + coded <= k, "more buckets than there are")
    length, pos = take_uvarint(data, pos)
    stream, pos = take(data, pos, length)
    bits = Bits(stream)
    count_length = mean_length = rice = 0
    for b in range(first, first + coded):
        count_length += bits.change()
        rule(0 <= count_length <= 64, "a count of more than 64 bits")
        count = rows[0][b] = bits.below(count_length)
        if n == 1:
            continue
        changes = bits.read(1)
        if changes:
            mean_length += bits.change()
            rule(0 <= mean_length <= 62, "an expected difference of more than 62 bits")
            mean = bits.below(mean_length)
            rice += bits.change()
            rule(0 <= rice <= 48, "a parameter of more than 48")
        for row in rows[1:]:
            if changes:
                q = bits.unary(16)
                z = q << rice | bits.read(rice) if q < 16 else bits.below(bits.read(6) + 1)
                count += mean + unzigzag(z) if z <= 2 * mean else z
            row[b] = count = count & M64
    rule(bits.length - bits.at < 8 and bits.number >> bits.at == 0, "more than zeros to the end of a byte")
    return rows, pos


# Part two: the archive.

TIER_MAGIC, BLOCK_MAGIC = b"SHMTA\r\n\x1a", b"SBLK"
TIER_HEADER = Structure("8sHHIIIQ16sq4xI", "magic major minor compat incompat extent_size step archive_id created check")
EXTENT_HEADER = Structure("Qq44xI", "generation opened check")
TRAILER = Structure("IIIIIIqqQQ4xI", "index_offset index_length sources schemas blocks exemplars t_min t_max mark_generation mark_offset check")
BLOCK = Structure("4sHHIIIIQqqII4xI", "magic type flags length body_check first count step t_min t_max runs head check")
SOURCE = Structure("16s16s16sqQIIIII4x", "segment_id group_id boot_id birth_unix inode epoch copy uid flags lists_length")
SOURCE_ROWS = Structure("IHHQQQqq", "source rows flags first_no last_no base_no t_first t_last")
SCHEMA_TEXT = Structure("H2xI16s", "table series name")
SCHEMA_SERIES = Structure("BBbBHHHHh2xI", "kind number scale flags name_length unit_length help_length buckets bucket_min labels_length")
BLOCK_ENTRY = Structure("IIIIqq", "offset length schema sources t_min t_max")
EXEMPLAR_PART = Structure("IIIIQ", "source schema exemplars end last_no")
EXEMPLARS_ENTRY = Structure("IIIIqq", "offset length parts exemplars t_min t_max")
SCHEMA_ENTRY = Structure("16sIII4x", "hash offset table series")

SOURCES_B, SCHEMA_B, ROWS_B, MARK_B, INDEX_B, EXEMPLARS_B = range(1, 7)
FINAL, ESTIMATED, COPIED = 1, 2, 4
ORDINALS = 1 << 20


class Skip(Exception):
    """A block, a run or an index is passed over."""


def need(ok, what):
    if not ok:
        raise Skip(what)


def u32(b, at=0):
    need(at + 4 <= len(b), "more bytes")
    return struct.unpack_from("<I", b, at)[0]


def to_eight(n):
    return (n + 7) // 8 * 8


def cut_source(b):
    """15.2: the source at the front of b, and what follows it."""
    need(len(b) >= 88, "a record of 88 bytes")
    s = SOURCE.at(b)
    n = s["lists_length"]
    need(4 <= n <= 65535 and to_eight(88 + n) <= len(b), "lists_length 4 to 65535, in the block")
    try:
        s["labels"], rest = cut_pairs(b[88:88 + n])
        s["attributes"], rest = cut_pairs(rest)
    except Broken as e:
        raise Skip("pair lists: %s" % e) from None
    need(not rest, "lists_length as long as the lists")
    s["key"] = s["segment_id"], s["epoch"], s["copy"]
    return s, b[to_eight(88 + n):]


def cut_schema(body):
    """15.3"""
    need(len(body) >= 24, "hash and length")
    length = u32(body, 16)
    need(length <= 1 << 28, "text of at most 2^28 bytes")
    stream = zlib.decompressobj(-15)
    try:
        plain = stream.decompress(body[24:], length + 1)
    except zlib.error as e:
        raise Skip("DEFLATE: %s" % e) from None
    need(stream.eof and len(plain) == length, "text of %d bytes" % length)
    need(hashlib.sha256(plain).digest()[:16] == body[:16], "hash of the text")
    need(length >= 24, "text of 24 bytes")
    schema = dict(SCHEMA_TEXT.at(plain), hash=body[:16])
    count, schema["series"], at = schema["series"], [], 24
    need(count <= (length - 24) // 20, "text of %d series" % count)
    for i in range(count):
        need(at + 20 <= length, "text of %d series" % count)
        s = SCHEMA_SERIES.at(plain, at)
        at += 20 + strings_length(s)
        need(at <= length and well_shaped(s), "series %d by the rules of 6.1" % i)
        try:
            cut_strings(s, plain[at - strings_length(s):at])
        except Broken as e:
            raise Skip("series %d by the rules of 6.1: %s" % (i, e)) from None
        shape = "[{scale}:{bucket_min}:{buckets}]".format(**s) if s["kind"] == HISTOGRAM else ""
        s["id"] = "%s %s %s{%s}%s" % (KINDS[s["kind"]][0], NUMBERS[s["number"]], text(s["name"]), pairs_text(s["labels"]), shape)
        schema["series"].append(s)
    need(at == length, "text of %d series, no more" % count)
    return schema


def fields_of(s, folded):
    """16.2: the fields of a series, and their number types."""
    if s["kind"] == GAUGE and folded:
        return [("last", s["number"]), ("min", s["number"]), ("max", s["number"]), ("sum", F64), ("count", U64)]
    if s["kind"] == STAT:
        return [("count", U64), ("sum", F64), ("last", F64), ("min", F64), ("max", F64)]
    return [("histogram" if s["kind"] == HISTOGRAM else "value", s["number"])]


def decode_integers(data, pos, n):
    """A column of integers that are all there."""
    column, pos = decode_column(data, pos, n, False)
    rule(None not in column, "absent values")
    return column, pos


def signed(word):
    return word - (word >> 63 << 64)


def decode_field(s, number, name):
    """How a run of a field is decoded, source by source: to n values, None where absent. A histogram's are (sum, counts)."""
    def field(data, pos, n):
        column, pos = decode_column(data, pos, n, number == F64)
        if name == "histogram":
            rule(n * (s["buckets"] + 3) <= 1 << 23, "more cells than 2^23")
            there = [i for i, word in enumerate(column) if word is not None]
            counts, pos = decode_histogram(data, pos, len(there), s["buckets"] + 2)
            for i, row in zip(there, counts):
                column[i] = column[i], row
        return column, pos
    return field


class Extent:
    """14.3: one use of a part of a tier's file. Its blocks come from its index, or one by one."""

    def __init__(self, tier, slot, header):
        self.tier, self.slot, self.generation = tier, slot, header["generation"]
        self.limit = tier.extent_size - 64
        self.sources, self.schemas, self.blocks, self.exemplars, self.mark = {}, {}, [], [], None
        self.next_source = self.next_schema = 0
        try:
            self.read_index()
            self.sealed = True
        except Skip as e:
            if self.checked(self.limit, self.read(self.limit, 64)):
                self.note(self.limit, "unsealed: want %s" % e)
            self.sealed, self.sources, self.schemas, self.blocks, self.exemplars = False, {}, {}, [], []
            self.scan()

    def note(self, at, what):
        self.tier.archive.notes.append("%s: extent %d: at %d: %s" % (self.tier.name, self.slot, at, what))

    def read(self, offset, n):
        need(offset + n <= self.tier.extent_size, "an offset inside the extent")
        return self.tier.read(4096 + self.slot * self.tier.extent_size + offset, n)

    def check(self, offset, b):
        return self.tier.check(self.generation, offset, b)

    def checked(self, offset, b):
        """The last four of 64 bytes are the check of the others."""
        return self.check(offset, b[:60]) == u32(b, 60)

    def block(self, at):
        """15.1: the header of a valid block, None where there is none."""
        if at + 64 > self.limit:
            return None
        b = self.read(at, 64)
        h = dict(BLOCK.at(b), at=at)
        if h["magic"] != BLOCK_MAGIC or h["length"] % 8 or not 64 <= h["length"] <= self.limit - at or not self.checked(at, b):
            return None
        return h

    def body(self, h):
        b = self.read(h["at"] + 64, h["length"] - 64)
        need(self.check(h["at"] + 64, b) == h["body_check"], "body_check")
        return b

    def scan(self):
        """19.3: an extent without an index."""
        at, gap = 64, None
        while at + 64 <= self.limit:
            h = self.read(at, 4) == BLOCK_MAGIC and self.block(at)
            if not h:
                if gap is None:
                    gap = at
                at += 8
                continue
            if gap is not None:  # what lies behind the last block says nothing: an earlier use left it
                self.note(gap, "no block")
            gap = None
            try:
                self.take(h)
            except Skip as e:
                self.note(at, "block of type %d: want %s" % (h["type"], e))
                if h["type"] == SOURCES_B and h["first"] + h["count"] <= ORDINALS:  # 15.1: what a broken block gave is given to nobody else
                    self.next_source = max(self.next_source, h["first"] + h["count"])
                if h["type"] in (SCHEMA_B, ROWS_B) and h["first"] < ORDINALS:
                    self.next_schema = max(self.next_schema, h["first"] + 1)
                for part in h.get("parts", ()):
                    if part["source"] < ORDINALS:
                        self.next_source = max(self.next_source, part["source"] + 1)
                    if part.get("schema", ORDINALS) < ORDINALS:
                        self.next_schema = max(self.next_schema, part["schema"] + 1)
                if str(e) == "body_check":  # its length says nothing: others may have been written in its place
                    at += 8
                    continue
            at += h["length"]

    def take(self, h):
        """15: what one block says."""
        body, first = self.body(h), h["first"]
        if h["type"] == SOURCES_B:
            need(first + h["count"] <= ORDINALS, "ordinals below 2^20")
            new = []
            for _ in range(h["count"]):
                source, body = cut_source(body)
                new.append(source)
            for ordinal, source in enumerate(new, first):
                if ordinal >= self.next_source:
                    self.sources[ordinal] = source
            self.next_source = max(self.next_source, first + h["count"])
        elif h["type"] == SCHEMA_B:
            schema = cut_schema(body)
            need(len(schema["series"]) == h["count"], "count of series")
            need(first < ORDINALS, "ordinals below 2^20")
            self.tier.archive.schemas[schema["hash"]] = schema
            if first >= self.next_schema:
                self.schemas[first] = schema
                self.next_schema = first + 1
        elif h["type"] == ROWS_B:
            self.cut_head(h)
            need(first in self.schemas, "a schema that a block gave")
            self.fit(h, self.schemas[first])
            self.blocks.append(h)
        elif h["type"] == EXEMPLARS_B:
            self.cut_parts(h)
            for part in h["parts"]:
                need(part["schema"] in self.schemas, "a schema that a block gave")
                need(part["source"] in self.sources, "a source that a block gave")
                part["of"] = self.schemas[part["schema"]]
            self.exemplars.append(h)
        elif h["type"] == MARK_B:
            need(len(body) >= 16, "16 bytes")
            self.mark = struct.unpack_from("<QQ", body)

    def cut_head(self, h):
        """16: source table and run directory."""
        n, size = h["count"], h["head"]
        need(1 <= n <= 1024, "count 1 to 1024")
        need(5 <= h["runs"] <= 1 << 24, "runs 5 to 2^24")
        need(size == 8 + 48 * n + 4 * h["runs"] <= h["length"] - 64, "head of source table and directory, in the block")
        head = self.read(h["at"] + 64, size)
        need(self.check(h["at"] + 68, head[4:]) == u32(head), "check of the head")
        parts = [SOURCE_ROWS.at(head, 8 + 48 * i) for i in range(n)]
        need(all(p["rows"] for p in parts), "rows at least 1")
        ends, before = struct.unpack_from("<%dI" % h["runs"], head, 8 + 48 * n), 0
        for end in ends:
            need(end == before or before + 4 <= end <= h["length"] - 64 - size, "run directory inside the block")
            before = end
        h["parts"], h["ends"] = parts, ends

    def cut_parts(self, h):
        """16.3: the parts of an exemplars block."""
        n, size = h["count"], h["head"]
        need(1 <= n <= 1024, "count 1 to 1024")
        need(size == 8 + 24 * n <= h["length"] - 64, "head of parts, in the block")
        head = self.read(h["at"] + 64, size)
        need(self.check(h["at"] + 68, head[4:]) == u32(head), "check of the head")
        parts, before = [EXEMPLAR_PART.at(head, 8 + 24 * i) for i in range(n)], 0
        need(all(p["exemplars"] for p in parts) and sum(p["exemplars"] for p in parts) == h["runs"] <= 65536, "exemplars at least 1, as many as the header says")
        for p in parts:
            need(before + 4 <= p["end"] <= h["length"] - 64 - size, "end of a part inside the block")
            p["begin"], before = before, p["end"]
        h["parts"] = parts

    def part(self, h, p):
        """16.3: the exemplars of one part, None if it is skipped."""
        n, at = p["exemplars"], h["at"] + 64 + h["head"] + p["begin"]
        try:
            b, columns, pos = self.read(at, p["end"] - p["begin"]), [], 4
            need(self.check(at + 4, b[4:]) == u32(b), "check of the part")
            need(len(b) >= 4 + 24 * n, "ids in the run")
            for is_float in (False, False, False, True):
                column, pos = decode_column(b, pos, n, is_float)
                rule(None not in column, "absent values")
                columns.append(column)
            need(len(b) >= pos + 24 * n, "ids in the run")
            numbers, positions, times, values = columns
            need(all(x < y for x, y in zip([0] + numbers, numbers)) and numbers[-1] == p["last_no"], "numbers that ascend to last_no")
            series = p["of"]["series"]
            need(all(i < len(series) and series[i]["kind"] in (COUNTER, HISTOGRAM) for i in positions), "a counter or histogram of the schema")
            return [{"number": numbers[i], "series": series[positions[i]], "t": signed(times[i]), "value": values[i],
                     "trace_id": b[pos + 24 * i:pos + 24 * i + 16], "span_id": b[pos + 24 * i + 16:pos + 24 * i + 24]} for i in range(n)]
        except (Skip, Corrupt) as e:
            self.note(h["at"], "part of source %d: %s" % (p["source"], e))
            return None

    def fit(self, h, schema):
        """What a rows block refers to is there."""
        h["schema"], h["folded"] = schema, h["flags"] & 1
        h["fields"] = [(s, name, number) for s in schema["series"] for name, number in fields_of(s, h["folded"])]
        need(h["runs"] == 5 + len(h["fields"]), "runs %d for its schema" % (5 + len(h["fields"])))
        for part in h["parts"]:
            need(part["source"] in self.sources, "a source that a block gave")
        need(len({part["source"] for part in h["parts"]}) == h["count"], "each source once")

    def run(self, h, i):
        """16.2: a run, without its check."""
        begin, end = h["ends"][i - 1] if i else 0, h["ends"][i]
        at = h["at"] + 64 + h["head"] + begin
        b = self.read(at, end - begin)
        need(begin == end or self.check(at + 4, b[4:]) == u32(b), "check of run %d" % i)
        return b[4:]

    def columns(self, h, i, decode):
        """A run's columns, source by source: None from the first one on that is corrupt."""
        columns, pos = [], 0
        try:
            data = self.run(h, i)
            for part in h["parts"]:
                column, pos = decode(data, pos, part["rows"])
                columns.append(column)
        except (Skip, Corrupt) as e:
            self.note(h["at"], "run %d, source %d: %s" % (i, len(columns), e))
        return columns + [None] * (len(h["parts"]) - len(columns))

    def numbers(self, h):
        """16.2, run 1: dense where it is empty."""
        if h["ends"][0] < h["ends"][1]:
            return self.columns(h, 1, decode_integers)
        dense = []
        for k, part in enumerate(h["parts"]):
            numbers = range(part["first_no"], part["last_no"] + 1)
            if len(numbers) != part["rows"]:
                self.note(h["at"], "source %d: want dense numbers" % k)
                numbers = None
            dense.append(numbers)
        return dense

    def members(self, h):
        """16.2, run 4."""
        try:
            b = self.run(h, 4)
            if not b:
                return []
            need(4 + 24 * u32(b) <= len(b), "members inside run 4")
            return [struct.unpack_from("<16sII", b, 4 + 24 * i) for i in range(u32(b))]
        except Skip as e:
            self.note(h["at"], str(e))
            return []

    def read_index(self):
        """14.4, 18: what a sealed extent holds."""
        b = self.read(self.limit, 64)
        need(self.checked(self.limit, b), "check of the trailer")
        self.trailer = t = TRAILER.at(b)
        at, n = t["index_offset"], t["index_length"]
        need(at % 8 == 0 and 64 <= at and 64 + 152 <= n and at + n <= self.limit, "index_offset and index_length inside the extent")
        h = self.block(at)
        need(h and h["type"] == INDEX_B and h["length"] == n, "an index where the trailer says")
        need(u32(self.read(at + 64, 4)) == 9, "9 sections")
        self.section = []
        for i in range(9):
            offset, length, check, _ = struct.unpack("<IIII", self.read(at + 64 + 8 + 16 * i, 16))
            need(152 <= offset and offset % 8 == 0 and offset + length <= n - 64, "section %d inside the index" % i)
            data = self.read(at + 64 + offset, length)
            need(self.check(at + 64 + offset, data) == check, "check of section %d" % i)
            self.section.append((at + 64 + offset, data))
        blocks, offsets, schemas = self.section[1][1], self.section[2][1], self.section[4][1]
        exemplars = self.section[8][1]
        need(len(blocks) == 32 * t["blocks"] and len(exemplars) == 32 * t["exemplars"] and len(schemas) == 32 * t["schemas"] and len(offsets) == 8 * t["sources"] + 8, "sections as long as the trailer says")
        self.entries = [BLOCK_ENTRY.at(blocks, i) for i in range(0, len(blocks), 32)]
        self.exemplar_entries = [EXEMPLARS_ENTRY.at(exemplars, i) for i in range(0, len(exemplars), 32)]
        self.schema_entries = [SCHEMA_ENTRY.at(schemas, i) for i in range(0, len(schemas), 32)]
        need(all(e["schema"] < t["schemas"] for e in self.entries), "schema of a block in section 4")
        self.posts, self.last = {}, {}
        sources_at, sources = self.section[3]
        for ordinal in range(t["sources"]):
            begin, check, end, _ = struct.unpack_from("<IIII", offsets, 8 * ordinal)
            need(begin <= end <= len(sources), "source inside section 3")
            data = sources[begin:end]
            need(not data or self.check(sources_at + begin, data) == check, "check of source %d" % ordinal)
            if data:
                self.sources[ordinal], rest = cut_source(data)
                k = u32(rest, 8)
                need(12 + 4 * k <= len(rest), "blocks of a source")
                self.last[ordinal] = struct.unpack_from("<Q", rest)[0]
                self.posts[ordinal] = struct.unpack_from("<%dI" % k, rest, 12)
        if t["mark_generation"]:
            self.mark = t["mark_generation"], t["mark_offset"]
        for e in self.schema_entries:
            if e["offset"]:
                try:
                    h = self.block(e["offset"])
                    need(h and h["type"] == SCHEMA_B, "a schema where the index says")
                    schema = cut_schema(self.body(h))
                    need(schema["hash"] == e["hash"] and len(schema["series"]) == h["count"], "the schema that the index says")
                    self.tier.archive.schemas[schema["hash"]] = schema
                except Skip as reason:
                    self.note(e["offset"], "schema: want %s" % reason)

    def blocks_by_index(self):
        """The rows blocks of a sealed extent, once the schemas of all extents are known."""
        for e in self.entries:
            try:
                h = self.block(e["offset"])
                need(h and h["type"] == ROWS_B and (h["length"], h["first"], h["count"]) == (e["length"], e["schema"], e["sources"]), "a rows block as the index says")
                self.cut_head(h)
                schema = self.tier.archive.schemas.get(self.schema_entries[e["schema"]]["hash"])
                need(schema, "a schema that can be read")
                self.fit(h, schema)
                self.blocks.append(h)
            except Skip as reason:
                self.note(e["offset"], "rows block: want %s" % reason)
        for e in self.exemplar_entries:
            try:
                h = self.block(e["offset"])
                need(h and h["type"] == EXEMPLARS_B and (h["length"], h["count"], h["runs"]) == (e["length"], e["parts"], e["exemplars"]), "an exemplars block as the index says")
                self.cut_parts(h)
                parts, h["parts"] = h["parts"], []
                for p in parts:
                    try:
                        need(p["source"] in self.sources, "a source that the index has")
                        need(p["schema"] < len(self.schema_entries), "a schema that the index has")
                        p["of"] = self.tier.archive.schemas.get(self.schema_entries[p["schema"]]["hash"])
                        need(p["of"], "a schema that can be read")
                        h["parts"].append(p)
                    except Skip as reason:
                        self.note(h["at"], "part: want %s" % reason)
                self.exemplars.append(h)
            except Skip as reason:
                self.note(e["offset"], "exemplars block: want %s" % reason)
        self.compare()

    def compare(self):
        """18: where the index contradicts the blocks, the blocks are right; it is said."""
        other = Extent.__new__(Extent)
        vars(other).update(vars(self), sources={}, schemas={}, blocks=[], exemplars=[], mark=None, next_source=0, next_schema=0, note=lambda at, what: None)
        other.limit = self.trailer["index_offset"]
        other.scan()
        ids, pairs, keys = [], {}, set()
        for ordinal, s in sorted(other.sources.items()):
            if self.sources.get(ordinal) != s:
                self.note(self.limit, "index: source %d: contradicts its block" % ordinal)
            ids.append((s["segment_id"], ordinal))
            keys.add(s["segment_id"])
            for name, value in s["labels"]:
                pairs.setdefault((name, value), []).append(ordinal)
                keys.add(name + b"\0" + value)
        filled = len(other.sources) == len(self.sources)  # else a block is broken, and what it gave stands here alone
        data = self.section[5][1]
        if filled and [struct.unpack_from("<16sI", data, i) for i in range(0, len(data) - 19, 20)] != sorted(ids):
            self.note(self.limit, "index: section 5 contradicts the sources")
        if filled and self.pairs() != sorted(pairs.items()):
            self.note(self.limit, "index: section 7 contradicts the sources")
        if not all(self.may_have(key) for key in keys):
            self.note(self.limit, "index: the filter contradicts the sources")
        for h in other.blocks:
            e = {"offset": h["at"], "length": h["length"], "schema": h["first"], "sources": h["count"], "t_min": h["t_min"], "t_max": h["t_max"]}
            if e not in self.entries or any(self.entries.index(e) not in self.posts.get(p["source"], ()) for p in h["parts"]):
                self.note(h["at"], "index: section 1 or 3 contradicts the block")
        last = {}
        for h in other.exemplars:
            e = {"offset": h["at"], "length": h["length"], "parts": h["count"], "exemplars": h["runs"], "t_min": h["t_min"], "t_max": h["t_max"]}
            if e not in self.exemplar_entries:
                self.note(h["at"], "index: section 8 contradicts the block")
            for p in h["parts"]:
                last[p["source"]] = max(last.get(p["source"], 0), p["last_no"])
        if any(self.last.get(ordinal) != n for ordinal, n in last.items()):
            self.note(self.limit, "index: section 3 contradicts the exemplars")
        for ordinal, schema in other.schemas.items():
            if ordinal >= len(self.schema_entries) or self.schema_entries[ordinal]["hash"] != schema["hash"]:
                self.note(self.limit, "index: schema %d: contradicts its block" % ordinal)


    def pairs(self):
        """18, sections 6 and 7."""
        offsets, data = words32(self.section[6][1]), self.section[7][1]
        pairs = []
        for begin, end in zip(offsets, offsets[1:]):
            try:
                x, y = struct.unpack_from("<HH", data, begin)
                at, ordinals = begin + 4 + x + y, []
                count, at = take_uvarint(data[:end], at)
                for _ in range(min(count, ORDINALS)):
                    ordinal, at = take_uvarint(data[:end], at)
                    ordinals.append(ordinal + (ordinals[-1] if ordinals else 0))
                pairs.append(((data[begin + 4:begin + 4 + x], data[begin + 4 + x:begin + 4 + x + y]), ordinals))
            except (struct.error, Corrupt):
                return None
        return pairs

    def may_have(self, key):
        """18: the filter."""
        data, h = self.section[0][1], 0xCBF29CE484222325
        for byte in key:
            h = (h ^ byte) * 0x100000001B3 & M64
        bits = (((h + i * (h >> 32 | 1)) & M64) % (8 * len(data)) for i in range(7) if data)
        return all(data[b // 8] >> b % 8 & 1 for b in bits)


def words32(b):
    return struct.unpack("<%dI" % (len(b) // 4), b[:len(b) // 4 * 4])


class Tier:
    """14: a tier's file."""

    def __init__(self, archive, path):
        self.archive, self.name, self.extents, self.mark = archive, os.path.basename(path), [], None
        with open(path, "rb") as f:
            self.image = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) if os.fstat(f.fileno()).st_size else b""
        self.finished = any(self.read(0, 4096 + 64))  # 14.1
        if not self.finished:
            return
        b = self.read(0, 64)
        want(len(b) == 64, self.name, "64 bytes", len(b))
        header = TIER_HEADER.at(b)
        self.step, self.archive_id, self.extent_size = header["step"], header["archive_id"], header["extent_size"]
        check = zlib.crc32(b[:60])
        want(header["magic"] == TIER_MAGIC, self.name, "magic %r" % TIER_MAGIC, header["magic"])
        want(header["major"] == 1, self.name, "major 1", header["major"])
        want(header["check"] == check, self.name, "check %#x" % check, hex(header["check"]))
        want(header["incompat"] == 0, self.name, "no incompat features", hex(header["incompat"]))
        want(self.extent_size % 4096 == 0 and 65536 <= self.extent_size <= 16777216, self.name,
             "extent_size a multiple of 4096, 65536 to 16777216", self.extent_size)
        want(10 ** 8 <= self.step <= 36 * 10 ** 11, self.name, "step 100000000 to 3600000000000", self.step)

    def read(self, offset, n):
        return self.image[offset:offset + n]

    def check(self, generation, offset, b):
        """14.2"""
        return zlib.crc32(b, zlib.crc32(self.archive_id + struct.pack("<QQQ", self.step, generation, offset)))

    def read_extents(self):
        """14.3: by generation, oldest first. Of two of one generation the first counts."""
        self.slots = min((len(self.image) - 4096) // self.extent_size, 65536) if len(self.image) > 4096 else 0
        headers = {}
        for slot in range(self.slots):
            b = self.read(4096 + slot * self.extent_size, 64)
            header = EXTENT_HEADER.at(b)
            if header["generation"] and self.check(header["generation"], 0, b[:60]) == header["check"]:
                headers.setdefault(header["generation"], (slot, header))
        self.extents = [Extent(self, *headers[generation]) for generation in sorted(headers)]
        for e in self.extents:
            self.mark = e.mark or self.mark


class Archive:
    """A directory of tiers, or one of them."""

    def __init__(self, path):
        paths = [path]
        if os.path.isdir(path):
            paths = [os.path.join(path, name) for name in sorted(os.listdir(path)) if name.endswith(".tier")]
        self.notes, self.schemas = [], {}  # what was passed over; schemas by hash
        self.tiers = sorted((t for t in (Tier(self, p) for p in paths) if t.finished), key=lambda t: t.step)
        want(self.tiers, path, "a tier", "none")
        self.archive_id = self.tiers[0].archive_id
        for before, t in zip(self.tiers, self.tiers[1:]):
            want(t.archive_id == self.archive_id, t.name, "archive_id %s, as the others" % self.archive_id.hex(), t.archive_id.hex())
            want(t.step > before.step, t.name, "one tier of a step", t.step)
        for t in self.tiers:
            t.read_extents()
        for e in self.extents():
            if e.sealed:
                e.blocks_by_index()

    def extents(self):
        return [e for t in self.tiers for e in t.extents]

    def exemplars(self):
        """16.3: (source, schema, exemplars) of each part, each exemplar once."""
        last = {}
        for e in self.tiers[0].extents:
            for h in e.exemplars:
                for p in h["parts"]:
                    source = e.sources[p["source"]]
                    where = source["segment_id"], source["copy"], p["of"]["table"]
                    before = last.get(where, 0)
                    if p["last_no"] <= before:
                        continue
                    part = e.part(h, p)
                    if part is not None:
                        last[where] = p["last_no"]
                        yield source, p["of"], [x for x in part if x["number"] > before]

    def sources(self):
        """15.2: by key."""
        found = {}
        for e in self.extents():
            for h in e.blocks:
                for part in h["parts"]:
                    source = e.sources[part["source"]]
                    found.setdefault(source["key"], source)
        return found

    def rows(self):
        """19.3: rows by (key, table, tier), each once, with their values by series; and starts by (key, table), by series."""
        rows, last, starts = {}, {}, {}
        for e in self.extents():
            for h in e.blocks:
                schema = h["schema"]
                times = e.columns(h, 0, decode_integers)
                numbers = e.numbers(h)
                coverage = e.columns(h, 2, decode_integers) if h["folded"] else [()] * h["count"]
                begun = e.columns(h, 3, lambda data, pos, n, k=len(schema["series"]): decode_integers(data, pos, k))
                fields = [(s, name, number, e.columns(h, 5 + i, decode_field(s, number, name))) for i, (s, name, number) in enumerate(h["fields"])]
                for k, part in enumerate(h["parts"]):
                    source = e.sources[part["source"]]
                    known = starts.setdefault((source["key"], schema["table"]), {})
                    for s, start in zip(schema["series"], begun[k] or ()):
                        known.setdefault(s["id"], source["birth_unix"] // 10 ** 6 + signed(start))
                    if times[k] is None or numbers[k] is None or coverage[k] is None:
                        continue
                    where = source["key"], schema["table"], e.tier.step
                    for i, number in enumerate(numbers[k]):
                        before = last.get(where, 0)
                        if (part["base_no"] if h["folded"] else number) <= before:
                            continue
                        values = {}
                        for s, name, kind, columns in fields:
                            if columns[k] is not None and columns[k][i] is not None:
                                values.setdefault(s["id"], {}).setdefault(name, (s, kind, columns[k][i]))
                        end = part["flags"] & (FINAL | ESTIMATED) if i == part["rows"] - 1 else 0
                        rows.setdefault(where, []).append({"number": number, "t": signed(times[k][i]), "values": values, "flags": part["flags"] & COPIED | end,
                                                           "coverage": coverage[k][i] if h["folded"] else None})
                        if not h["folded"]:
                            last[where] = number
                    if h["folded"]:
                        last[where] = max(part["base_no"], last.get(where, 0))
        return rows, starts


def key_text(key):
    return "%s/%d/%d" % (key[0].hex(), key[1], key[2])


def field_text(name, entry):
    s, number, value = entry
    if name != "histogram":
        return "%s=%s" % (name, number_text(number, value))
    total, counts = value
    return value_text(s, [total] + counts)


def dump_archive(a):
    """The lines of vectors/README.md."""
    yield "archive " + a.archive_id.hex()
    schemas = {}
    for t in a.tiers:
        newest = t.extents[-1].generation if t.extents else 0
        yield "tier %d extent_size=%d extents=%d used=%d generation=%d" % (t.step, t.extent_size, t.slots, len(t.extents), newest)
        if t.mark:
            yield "mark %d generation=%d offset=%d" % (t.step, *t.mark)
        for e in t.extents:
            for h in e.blocks:
                schemas[h["schema"]["hash"]] = h["schema"]
                yield "block %d %d %d length=%d schema=%s step=%d folded=%d t_min=%d t_max=%d" % (
                    t.step, e.generation, h["at"], h["length"], h["schema"]["hash"].hex(), h["step"], h["folded"], h["t_min"], h["t_max"])
                for p in h["parts"]:
                    yield ("part %s first={first_no} last={last_no} base={base_no} t={t_last} rows={rows} copied=%d ended=%d" % (
                        key_text(e.sources[p["source"]]["key"]), p["flags"] & COPIED > 0, p["flags"] & (FINAL | ESTIMATED) > 0)).format(**p)
                yield from ("member " + key_text(m) for m in e.members(h))
    sources, exemplars = a.sources(), {}
    for source, schema, part in a.exemplars():
        schemas.setdefault(schema["hash"], schema)
        sources.setdefault(source["key"], source)
        exemplars.setdefault(source["key"], []).extend((schema["table"], x["number"], x) for x in part)
    for _, schema in sorted(schemas.items()):
        yield "schema %s table=%d %s" % (schema["hash"].hex(), schema["table"], text(schema["name"].split(b"\0")[0]))
        for i, s in enumerate(schema["series"]):
            yield "series %s %d %s unit=%s help=%s flags=%d" % (schema["hash"].hex(), i, s["id"], text(s["unit"]), text(s["help"]), s["flags"] & 1)
    rows, starts = a.rows()
    for key, source in sorted(sources.items()):
        yield "source %s group=%s boot=%s birth=%d inode=%d uid=%d ephemeral=%d" % (
            key_text(key), source["group_id"].hex(), source["boot_id"].hex(), source["birth_unix"], source["inode"], source["uid"], source["flags"] & 1)
        yield from ("label " + pairs_text([p]) for p in source["labels"])
        yield from ("attribute " + pairs_text([p]) for p in source["attributes"])
        for _, table in sorted(k for k in starts if k[0] == key):
            yield from ("start %d %s %d" % (table, series, start) for series, start in sorted(starts[key, table].items()))
        for where in sorted(k for k in rows if k[0] == key):
            least = [r["t"] for r in rows[where]] + [1 << 63]
            for i in reversed(range(len(least) - 1)):
                least[i] = min(least[i], least[i + 1])
            for i, r in enumerate(rows[where]):
                words = [] if r["coverage"] is None else ["coverage=%d" % r["coverage"]]
                words += [word for bit, word in ((FINAL, "final"), (ESTIMATED, "estimated"), (COPIED, "copied")) if r["flags"] & bit]
                words += ["hidden"] if r["t"] >= least[i + 1] else []  # 19.3
                yield " ".join(["row %d %d %d t=%d" % (where[1], where[2], r["number"], r["t"])] + words)
                for series, fields in sorted(r["values"].items()):
                    names = [name for name, _ in fields_of(next(iter(fields.values()))[0], r["coverage"] is not None)]
                    yield "value %s %s" % (series, " ".join(field_text(name, fields[name]) for name in names if name in fields))
        for table, number, x in sorted(exemplars.get(key, ()), key=lambda x: x[:2]):
            yield "exemplar %d %d %s t=%d value=%s trace=%s span=%s" % (
                table, number, x["series"]["id"], x["t"], number_text(F64, x["value"]), x["trace_id"].hex(), x["span_id"].hex())


def admit(directory, name):
    """2: an open descriptor of a file that may be a segment."""
    owner = os.stat(directory).st_uid
    fd = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    st = os.fstat(fd)
    if not stat.S_ISREG(st.st_mode) or st.st_nlink != 1 or st.st_uid != owner or st.st_blocks * 512 < st.st_size:
        os.close(fd)
        raise Refuse("file: want a regular file of one link, without holes, owned by uid %d" % owner)
    return fd


def alive(fd):
    """10.5: somebody holds the lock."""
    flock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    return struct.unpack("hhqqi4x", fcntl.fcntl(fd, F_OFD_GETLK, flock))[0] != fcntl.F_UNLCK


def state(g, fd, boot):
    """10.5, 10.8"""
    here = not any(g.boot_id) or g.boot_id.hex() == boot
    return "closed" if g.control()["state"] == 2 else "alive" if here and (any(g.shadow_of) or alive(fd)) else "dead"


def list_store(store):
    with open("/proc/sys/kernel/random/boot_id") as f:
        boot = f.read().strip().replace("-", "")
    for uid in sorted(os.listdir(store)):
        directory = os.path.join(store, uid)
        if not uid.isdigit() or os.path.islink(directory) or not os.path.isdir(directory):
            continue
        for name in sorted(os.listdir(directory)):
            if name.startswith(".") or not name.endswith(".shmts"):
                continue
            fd = -1
            try:
                fd = admit(directory, name)
                g = Segment(fd)
                if any(g.shadow_of) and os.fstat(fd).st_uid not in (0, os.geteuid()):
                    raise Refuse("shadow: want an owner of uid 0 or %d" % os.geteuid())
                print(state(g, fd, boot), (g.shadow_of if any(g.shadow_of) else g.segment_id).hex(), "{%s}" % pairs_text(g.labels),
                      "series=%d" % len(g.series(g.control()["series_used"])[0]), os.path.join(uid, name))
            except (Refuse, OSError) as e:
                print("refused", e, os.path.join(uid, name))
            finally:
                if fd >= 0:
                    os.close(fd)


def main(argv):
    if len(argv) == 3 and argv[1] == "--live":
        return list_store(argv[2])
    if len(argv) != 2 or argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        if os.path.isdir(argv[1]) or argv[1].endswith(".tier"):
            archive = Archive(argv[1])
            for line in dump_archive(archive):
                print(line)
            for note in archive.notes:
                print("reference: skip: %s" % note, file=sys.stderr)
            return 0
        fd = os.open(argv[1], os.O_RDONLY | os.O_CLOEXEC)
        try:
            for line in dump(Segment(fd)):
                print(line)
        finally:
            os.close(fd)
    except Refuse as e:
        print("reference: refuse: %s" % e, file=sys.stderr)
        return 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv))
    except OSError as e:
        print("reference: %s" % e, file=sys.stderr)
        sys.exit(2)
