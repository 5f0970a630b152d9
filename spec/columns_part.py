"""Reads the columns of FORMAT.md 17, written from the page alone. Values are words: 64 bits each, of an integer or of an f64."""
import struct

M64 = (1 << 64) - 1


class CorruptColumn(Exception):
    """A column that breaks a rule of section 17."""


def rule(ok, what):
    if not ok:
        raise CorruptColumn(what)


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
    raise CorruptColumn("a varint of more than ten bytes")


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
