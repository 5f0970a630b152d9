/* reader: says what a segment's image means, in the canonical text of spec/vectors/README.md. For tests: it is a reader in C, written
 * from FORMAT.md with the structs of shmts.h and nothing of its implementation.
 *
 *     ./reader FILE              the file is copied by read(2); the checksum alone decides about a row (8.2)
 *     ./reader --in-place FILE   it is mapped, and rows are read by the seqlock of 10.3; a row of odd seq is "busy"
 *
 * Exit status 0; 1 where FORMAT.md says refuse, with the reason on stderr; 2 for wrong usage and errors of the system. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "shmts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct pair { const uint8_t *name, *value; uint16_t name_length, value_length; } pair;
typedef struct series { shmts_series_desc d; uint32_t index; int shown; } series;

static const uint8_t *image; /* the copy, or the mapping */
static uint64_t image_size;
static int in_place;
static shmts_superblock sb;
static shmts_section section[10]; /* by type */
static shmts_table_desc table[SHMTS_MAX_TABLES];
static uint32_t tables;
static shmts_control control;

static void refuse(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
static void refuse(const char *format, ...) {
	va_list args;
	va_start(args, format);
	fprintf(stderr, "shmts: corrupt segment: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	exit(1);
}
#define WANT(what, ...) ((what) ? (void)0 : refuse(__VA_ARGS__))

/* The one way to the image: a word that the writer may be storing just now. */
static uint64_t word(uint64_t offset) {
	if (offset % 8 != 0 || offset > image_size - 8) refuse("want words inside %llu bytes, got one at %#llx", (unsigned long long)image_size, (unsigned long long)offset);
	return __atomic_load_n((const uint64_t *)(const void *)(image + offset), __ATOMIC_RELAXED);
}
static void copy(void *to, uint64_t offset, size_t n) { /* n a multiple of 8 */
	for (size_t i = 0; i < n; i += 8) {
		uint64_t w = word(offset + i);
		memcpy((char *)to + i, &w, 8);
	}
}

typedef struct sum { uint64_t a[4], n; } sum; /* 8.3 */
static uint64_t rotl(uint64_t x, int n) { return x << n | x >> (64 - n); }
static sum sum_begin(uint64_t seed) {
	sum s = {{0x9e3779b185ebca87, 0xc2b2ae3d27d4eb4f, 0x165667b19e3779f9, seed}, 0};
	return s;
}
static void sum_add(sum *s, uint64_t w) {
	uint64_t *a = &s->a[s->n++ % 4];
	*a = rotl(*a ^ w, 29) * 0x9e3779b185ebca87;
}
static uint64_t sum_end(const sum *s) {
	uint64_t h = rotl(s->a[0], 1) + rotl(s->a[1], 7) + rotl(s->a[2], 12) + rotl(s->a[3], 18);
	h = (h ^ h >> 33) * 0xc2b2ae3d27d4eb4f;
	h = (h ^ h >> 29) * 0x165667b19e3779f9;
	return h ^ h >> 32;
}

static int utf8(const uint8_t *t, size_t n) {
	for (size_t i = 0; i < n;) {
		uint32_t c = t[i], more = c < 0x80 ? 0 : c >> 5 == 6 ? 1 : c >> 4 == 14 ? 2 : c >> 3 == 30 ? 3 : 9, v = c & (0x7fu >> more);
		if (more == 9 || i + more >= n) return 0;
		for (uint32_t k = 1; k <= more; k++) {
			if (t[i + k] >> 6 != 2) return 0;
			v = v << 6 | (t[i + k] & 0x3f);
		}
		if ((more == 1 && v < 0x80) || (more == 2 && (v < 0x800 || (v >= 0xd800 && v < 0xe000))) || (more == 3 && (v < 0x10000 || v > 0x10ffff))) return 0;
		i += more + 1;
	}
	return 1;
}

/* Reads the pair list of 6.4 at the front of n bytes. Answers its length, 0 where it is broken. */
static size_t cut_pairs(const uint8_t *b, size_t n, pair *pairs, uint32_t *count) {
	size_t at = 2;
	uint16_t most;
	pair before = {b, b, 0, 0};
	*count = 0;
	if (n < 2) return 0;
	memcpy(&most, b, 2);
	if (most > SHMTS_MAX_PAIRS) return 0;
	for (uint32_t i = 0; i < most; i++) {
		pair p;
		if (n - at < 4) return 0;
		memcpy(&p.name_length, b + at, 2);
		memcpy(&p.value_length, b + at + 2, 2);
		at += 4;
		if (p.name_length < 1 || p.name_length > 255 || p.value_length > 1023 || (size_t)p.name_length + p.value_length > n - at) return 0;
		p.name = b + at;
		p.value = p.name + p.name_length;
		at += (size_t)p.name_length + p.value_length;
		if (!utf8(p.name, p.name_length) || !utf8(p.value, p.value_length)) return 0;
		int order = memcmp(before.name, p.name, before.name_length < p.name_length ? before.name_length : p.name_length);
		if (i > 0 && (order > 0 || (order == 0 && before.name_length >= p.name_length))) return 0;
		before = p;
		if (p.value_length) pairs[(*count)++] = p;
	}
	return at;
}

/* ---- text ---- */

static void text(const uint8_t *t, size_t n) {
	putchar('"');
	for (size_t i = 0; i < n; i++)
		if (t[i] >= 0x20 && t[i] < 0x7f && t[i] != '"' && t[i] != '\\') putchar(t[i]);
		else printf("\\x%02x", t[i]);
	putchar('"');
}
static void fixed(const uint8_t *t, size_t most) {
	const uint8_t *end = memchr(t, 0, most);
	text(t, end ? (size_t)(end - t) : most);
}
static void hex(const char *name, const uint8_t *id) {
	printf("%s ", name);
	for (int i = 0; i < 16; i++) printf("%02x", id[i]);
}
static void number(int type, uint64_t bits) {
	double v;
	memcpy(&v, &bits, 8);
	if (type == SHMTS_U64) printf("%llu", (unsigned long long)bits);
	else if (type == SHMTS_I64) printf("%lld", (long long)bits);
	else if (v != v) printf("nan:%016llx", (unsigned long long)bits);
	else if (v - v != 0) printf(v > 0 ? "inf" : "-inf");
	else printf("%.17g", v);
}
static void unset(int type, uint64_t bits) {
	if (bits == (type == SHMTS_I64 ? SHMTS_UNSET_I64 : SHMTS_UNSET_F64)) printf("unset");
	else number(type, bits);
}
static void value(const shmts_series_desc *d, const uint64_t *c) {
	int comma = 0;
	switch (d->kind) {
	case SHMTS_GAUGE: unset(d->number, c[0]); break;
	case SHMTS_STAT:
		printf("count=%llu sum=", (unsigned long long)c[0]);
		number(SHMTS_F64, c[1]);
		printf(" last=");
		unset(SHMTS_F64, c[2]);
		printf(" min=");
		unset(SHMTS_F64, c[3]);
		printf(" max=");
		unset(SHMTS_F64, c[4]);
		break;
	case SHMTS_HISTOGRAM:
		printf("sum=");
		number(d->number, c[0]);
		printf(" zero=%llu above=%llu buckets=", (unsigned long long)c[1], (unsigned long long)c[2 + d->buckets]);
		for (int i = 0; i < d->buckets; i++)
			if (c[2 + i]) printf("%s%d:%llu", comma++ ? "," : "", d->bucket_min + i, (unsigned long long)c[2 + i]);
		break;
	default: number(d->number, c[0]);
	}
	putchar('\n');
}

/* ---- header: FORMAT.md 4 ---- */

static const shmts_tier *tier(const shmts_table_desc *t, uint32_t j) { return &t->tier0 + j; }

static int inside(const shmts_section *s, uint64_t offset, uint64_t n) {
	return offset % 64 == 0 && offset >= s->offset && offset - s->offset <= s->length && n <= s->length - (offset - s->offset);
}

static void read_sections(void) {
	static const uint32_t element[9] = {0, 640, 256, 1, 64, 1, 8, 8, 64};
	int seen[9] = {0};
	for (uint32_t i = 0; i < sb.section_count; i++) {
		shmts_section s;
		uint64_t first = 256 + 32 * (uint64_t)sb.section_count, last = sb.header_size;
		copy(&s, sb.section_offset + 32 * (uint64_t)i, sizeof s);
		if (s.type < 1 || s.type > 8) continue;
		if (s.type != 2 && s.type != 3) { first = sb.header_size; last = sb.total_size; }
		WANT(s.offset % 64 == 0 && s.offset >= first && s.offset <= last, "section table %u: want offset a multiple of 64, %#llx to %#llx", i, (unsigned long long)first, (unsigned long long)last);
		WANT(s.length <= last - s.offset, "section table %u: want length at most %#llx", i, (unsigned long long)(last - s.offset));
		WANT(element[s.type] < 64 ? s.element_size == element[s.type] : s.element_size >= element[s.type] && s.element_size % 64 == 0, "section table %u: want element_size %u", i, element[s.type]);
		WANT(s.length == (uint64_t)s.count * s.element_size, "section table %u: want length count x element_size", i);
		WANT(!seen[s.type], "section table %u: want section type %u once", i, s.type);
		for (uint32_t t = 1; t <= 8; t++) {
			const shmts_section *o = &section[t];
			uint64_t from = s.offset > o->offset ? s.offset : o->offset, a = s.offset + s.length, b = o->offset + o->length;
			WANT(!seen[t] || from >= (a < b ? a : b), "section table %u: want no overlap with section type %u", i, t);
		}
		section[s.type] = s;
		seen[s.type] = 1;
	}
	for (uint32_t t = 1; t <= 7; t++) WANT(seen[t], "section table: want a section of type %u", t);
	WANT(!seen[8] || (section[8].count >= 2 && section[8].count <= SHMTS_MAX_EXEMPLARS && (section[8].count & (section[8].count - 1)) == 0),
	     "section table: want a power of two of exemplars, 2 to 4096, got %u", section[8].count);
}

static void read_table(uint32_t i) {
	shmts_table_desc *t = &table[i];
	copy(t, section[2].offset + (uint64_t)i * section[2].element_size, sizeof *t);
	WANT(t->tiers <= SHMTS_MAX_TIERS && (t->tiers || sb.flags & 1), "table %u: want 1 to 4 tiers", i);
	WANT(t->lanes >= 1 && t->lanes <= SHMTS_MAX_LANES, "table %u: want 1 to 64 lanes", i);
	WANT(t->row_cells >= 1 && t->row_cells <= SHMTS_MAX_CELLS, "table %u: want 1 to 1048576 row_cells", i);
	WANT(t->lane_cells >= 1 && t->lane_cells <= SHMTS_MAX_CELLS, "table %u: want 1 to 1048576 lane_cells", i);
	WANT(t->shared_cells <= SHMTS_MAX_CELLS, "table %u: want at most 1048576 shared_cells", i);
	WANT(t->lane_stride % 64 == 0 && t->lane_stride % 4096 != 0 && t->lane_stride >= 8 * (uint64_t)t->lane_cells, "table %u: want lane_stride a multiple of 64, not of 4096", i);
	WANT(inside(&section[6], t->lanes_offset, (uint64_t)(t->lanes + 1) * t->lane_stride), "table %u: want lanes inside section lanes", i);
	WANT(inside(&section[6], t->shared_offset, 8 * (uint64_t)t->shared_cells), "table %u: want shared lane inside section lanes", i);
	for (uint32_t j = 0; j < t->tiers; j++) {
		const shmts_tier *r = tier(t, j);
		WANT(r->step >= 100000000 && r->step <= 3600000000000, "table %u, tier %u: want step 100000000 to 3600000000000 ns", i, j);
		WANT(j == 0 || (r->step > r[-1].step && r->step % r[-1].step == 0), "table %u, tier %u: want step a multiple of the tier before", i, j);
		WANT(r->rows >= 2 && r->rows <= SHMTS_MAX_ROWS, "table %u, tier %u: want 2 to 65536 rows", i, j);
		WANT(r->row_stride % 64 == 0 && r->row_stride >= 64 + 8 * (uint64_t)t->row_cells, "table %u, tier %u: want row_stride a multiple of 64", i, j);
		WANT(inside(&section[7], r->offset, (uint64_t)r->rows * r->row_stride), "table %u, tier %u: want ring inside section rows", i, j);
	}
}

static void read_header(void) {
	sum s = sum_begin(0x53);
	WANT(image_size >= 256, "superblock: want 256 bytes, got %llu", (unsigned long long)image_size);
	copy(&sb, 0, sizeof sb);
	WANT(memcmp(sb.magic, "SHMTS\r\n\x1a", 8) == 0, "superblock: want the magic");
	WANT(sb.major == 1, "superblock: want major 1, got %u", sb.major);
	WANT(sb.incompat == 0, "superblock: want no incompat features, got %#x", sb.incompat);
	WANT(sb.header_size % 64 == 0 && sb.header_size >= 256 && sb.header_size <= SHMTS_MAX_HEADER && sb.header_size <= image_size, "superblock: want header_size a multiple of 64 inside the file, got %u", sb.header_size);
	for (uint64_t at = 0; at < sb.header_size; at += 8) sum_add(&s, at == 0x88 ? 0 : word(at));
	WANT(sum_end(&s) == sb.checksum, "superblock: want checksum %#llx", (unsigned long long)sb.checksum);
	WANT(sb.total_size == image_size && sb.total_size % 4096 == 0 && sb.total_size <= SHMTS_MAX_TOTAL && sb.total_size >= sb.header_size, "superblock: want total_size %llu, a multiple of 4096", (unsigned long long)image_size);
	WANT(sb.section_count >= 1 && sb.section_count <= 64, "superblock: want section_count 1 to 64, got %u", sb.section_count);
	WANT(sb.section_offset == 256, "superblock: want section_offset 256, got %u", sb.section_offset);
	WANT(256 + 32 * (uint64_t)sb.section_count <= sb.header_size, "section table: want it inside the header");
	read_sections();
	WANT(section[1].count == 1, "section table: want one control block, got %u", section[1].count);
	WANT(section[4].count <= SHMTS_MAX_SERIES, "section table: want at most 1048576 series, got %u", section[4].count);
	tables = section[2].count;
	WANT(tables >= 1 && tables <= SHMTS_MAX_TABLES, "section table: want 1 to 8 tables, got %u", tables);
	for (uint32_t i = 0; i < tables; i++) read_table(i);
}

static void say_pair(const pair *p) {
	text(p->name, p->name_length);
	putchar('=');
	text(p->value, p->value_length);
}

static void say_header(void) {
	pair labels[SHMTS_MAX_PAIRS], attributes[SHMTS_MAX_PAIRS];
	uint32_t n, m;
	const uint8_t *source = image + section[3].offset;
	size_t first = cut_pairs(source, section[3].length, labels, &n);
	int job = 0, instance = 0;
	WANT(first && cut_pairs(source + first, section[3].length - first, attributes, &m), "source: want two pair lists");
	for (uint32_t i = 0; i < n; i++) {
		job |= labels[i].name_length == 3 && !memcmp(labels[i].name, "job", 3);
		instance |= labels[i].name_length == 8 && !memcmp(labels[i].name, "instance", 8);
	}
	WANT(job && instance, "source: want the labels job and instance");
	printf("shmts %u.%u\nsize header=%u total=%llu\nwriter ", sb.major, sb.minor, sb.header_size, (unsigned long long)sb.total_size);
	fixed(sb.writer, sizeof sb.writer);
	hex("\nsegment", sb.segment_id);
	hex("\ngroup", sb.group_id);
	printf(" index=%u", sb.group_index);
	hex("\nboot", sb.boot_id);
	printf("\nbirth unix=%lld mono=%lld error=%llu\n", (long long)sb.birth_unix, (long long)sb.birth_mono, (unsigned long long)sb.birth_error);
	printf("process pid=%u uid=%u pid_ns=%llu\nflags flags=%u compat=%u\n", sb.pid, sb.uid, (unsigned long long)sb.pid_ns, sb.flags, sb.compat);
	if (memcmp(sb.shadow_of, (const uint8_t[16]){0}, 16) != 0) {
		printf("shadow of=");
		for (int i = 0; i < 16; i++) printf("%02x", sb.shadow_of[i]);
		putchar('\n');
	}
	for (uint32_t i = 0; i < n; i++) { printf("label "); say_pair(&labels[i]); putchar('\n'); }
	for (uint32_t i = 0; i < m; i++) { printf("attribute "); say_pair(&attributes[i]); putchar('\n'); }
	for (uint32_t i = 0; i < tables; i++) {
		const shmts_table_desc *t = &table[i];
		printf("table %u ", i);
		fixed(t->name, sizeof t->name);
		printf("\nroom %u lanes=%u row_cells=%u lane_cells=%u shared_cells=%u series=%u\n", i, t->lanes, t->row_cells, t->lane_cells, t->shared_cells, t->series_capacity);
		for (uint32_t j = 0; j < t->tiers; j++) printf("tier %u %u step=%llu rows=%u\n", i, j, (unsigned long long)tier(t, j)->step, tier(t, j)->rows);
	}
}

static uint32_t least(uint64_t a, uint64_t b) { return (uint32_t)(a < b ? a : b); }

static void say_control(void) {
	const shmts_control *c = &control;
	copy(&control, section[1].offset, sizeof control);
	control.series_used = least(control.series_used, section[4].count);
	printf("control state=%d epoch=%u heartbeat=%lld ticks=%llu clock_offset=%lld\n", c->state == 2 ? 2 : 1, c->epoch, (long long)c->heartbeat, (unsigned long long)c->ticks, (long long)c->clock_offset);
	printf("lost dropped_series=%llu overflow_threads=%llu rejected_records=%llu fork_losses=%llu\n", (unsigned long long)c->dropped_series,
	       (unsigned long long)c->overflow_threads, (unsigned long long)c->rejected_records, (unsigned long long)c->fork_losses);
	printf("used series=%u heap=%u\n", c->series_used, least(c->heap_used, section[5].length));
	for (uint32_t i = 0; i < tables; i++) {
		const shmts_table_control *tc = &c->table0 + i;
		const shmts_table_desc *t = &table[i];
		printf("open %u row=%llu heads=", i, (unsigned long long)tc->open_row);
		for (uint32_t j = 0; j < t->tiers; j++) printf("%s%llu", j ? "," : "", (unsigned long long)(&tc->head0)[j]);
		printf("\ncells %u row=%u lane=%u shared=%u changes=%llu\n", i, least(tc->row_cells_used, t->row_cells), least(tc->lane_cells_used, t->lane_cells), least(tc->shared_cells_used, t->shared_cells), (unsigned long long)tc->changes);
	}
}

/* ---- series: FORMAT.md 6 ---- */

static void cells(const shmts_series_desc *d, uint32_t *row, uint32_t *lane, uint32_t *shared) {
	*row = d->kind == SHMTS_STAT ? 5 : d->kind == SHMTS_HISTOGRAM ? d->buckets + 3u : 1;
	*lane = d->kind == SHMTS_STAT ? 8 : d->kind == SHMTS_HISTOGRAM ? d->buckets + 3u : d->kind != SHMTS_GAUGE;
	*shared = d->kind == SHMTS_STAT || d->kind == SHMTS_GAUGE;
}

static int good(const shmts_series_desc *d) {
	static const int numbers[6] = {0, 1 << SHMTS_U64 | 1 << SHMTS_F64, 1 << SHMTS_I64, 1 << SHMTS_F64 | 1 << SHMTS_I64, 1 << SHMTS_F64, 1 << SHMTS_F64 | 1 << SHMTS_U64};
	uint32_t row, lane, shared;
	if (d->kind < 1 || d->kind > 5 || d->number > 3 || !(numbers[d->kind] >> d->number & 1) || d->table >= tables) return 0;
	if (d->name_length < 1 || d->name_length > 255 || d->unit_length > 63 || d->help_length > 1023 || d->labels_length < 2 || d->labels_length > 65535) return 0;
	if ((uint64_t)d->strings + d->name_length + d->unit_length + d->help_length + d->labels_length > section[5].length) return 0;
	if (d->kind == SHMTS_HISTOGRAM) {
		if (d->scale < 0 || d->scale > SHMTS_MAX_SCALE || d->buckets < 1 || d->buckets > SHMTS_MAX_BUCKETS || d->bucket_min < -1022 * (1 << d->scale)) return 0;
	} else if (d->scale || d->buckets || d->bucket_min) {
		return 0;
	}
	cells(d, &row, &lane, &shared);
	const shmts_table_desc *t = &table[d->table];
	return (uint64_t)d->row_cell + row <= t->row_cells && (!lane || (uint64_t)d->lane_cell + lane <= t->lane_cells) && (!shared || d->shared_cell < t->shared_cells);
}

static uint32_t say_series(series *all) {
	static const char *const kinds[] = {"", "counter", "updown", "gauge", "stat", "histogram"}, *const numbers[] = {"", "u64", "i64", "f64"};
	static uint8_t strings[255 + 63 + 1023 + 65536];
	uint32_t n = 0;
	for (uint32_t i = 0; i < control.series_used; i++) {
		shmts_series_desc d;
		pair labels[SHMTS_MAX_PAIRS];
		uint32_t count, life, again = 0;
		int broken = 0;
		do { /* the generation proves a copy: load, copy with the strings, load again (6.1) */
			uint64_t at = section[4].offset + (uint64_t)i * section[4].element_size;
			uint32_t state = (uint32_t)__atomic_load_n((const uint64_t *)(const void *)(image + at), __ATOMIC_ACQUIRE);
			copy(&d, at, sizeof d);
			broken = (state & 0xff) > 1 && (state & 0xff) < 4 && !good(&d);
			if (!broken && (state & 0xff) > 1 && (state & 0xff) < 4)
				memcpy(strings, image + section[5].offset + d.strings, (size_t)d.name_length + d.unit_length + d.help_length + d.labels_length);
			__atomic_thread_fence(__ATOMIC_ACQUIRE);
			if ((uint32_t)word(at) == state) break;
		} while (++again < 3);
		life = d.state & 0xff;
		if (life < 2) continue;
		if (life > 3) { printf("skip series %u state\n", i); continue; }
		if (broken) { printf("skip series %u descriptor\n", i); continue; }
		const uint8_t *unit = strings + d.name_length, *help = unit + d.unit_length, *list = help + d.help_length;
		if (!utf8(strings, d.name_length) || !utf8(unit, d.unit_length) || !utf8(help, d.help_length) || cut_pairs(list, d.labels_length, labels, &count) != d.labels_length) {
			printf("skip series %u strings\n", i);
			continue;
		}
		printf("series %u %s generation=%u %s %s ", i, life == 2 ? "live" : "retired", d.state >> 8, kinds[d.kind], numbers[d.number]);
		text(strings, d.name_length);
		putchar('{');
		for (uint32_t k = 0; k < count; k++) { if (k) putchar(','); say_pair(&labels[k]); }
		printf("} unit=");
		text(unit, d.unit_length);
		printf(" help=");
		text(help, d.help_length);
		printf(" flags=%u table=%u born_unix=%lld born_row=%llu retired_row=%llu", d.flags, d.table, (long long)d.born_unix, (unsigned long long)d.born_row, (unsigned long long)d.retired_row);
		if (d.kind == SHMTS_HISTOGRAM) printf(" scale=%d bucket_min=%d buckets=%u", d.scale, d.bucket_min, d.buckets);
		putchar('\n');
		all[n].d = d;
		all[n].index = i;
		all[n++].shown = life == 2;
	}
	return n;
}

/* ---- rows: FORMAT.md 8 ---- */

typedef struct kept { uint64_t row_no; uint32_t slot; } kept;
static int by_number(const void *a, const void *b) {
	uint64_t x = ((const kept *)a)->row_no, y = ((const kept *)b)->row_no;
	return x < y ? -1 : x > y;
}

/* Copies the row in a slot and proves it. NULL, or why not; "" for an empty slot. */
static const char *read_row(uint32_t ti, uint32_t j, uint32_t slot, shmts_row *h, uint64_t *c) {
	const shmts_tier *r = tier(&table[ti], j);
	uint64_t at = r->offset + (uint64_t)slot * r->row_stride;
	for (int tries = 0;; tries++) {
		uint64_t seq = __atomic_load_n((const uint64_t *)(const void *)(image + at), __ATOMIC_ACQUIRE);
		const char *why = NULL;
		sum s = sum_begin(ti * 256 + j);
		copy(h, at, sizeof *h);
		if (h->row_no == 0) why = "";
		else if (h->row_no % r->rows != slot) why = "number";
		else if (h->cells > table[ti].row_cells) why = "cells";
		else {
			uint64_t w[8];
			memcpy(w, h, 64);
			memcpy(w, sb.segment_id, 8);
			sum_add(&s, w[0]);
			memcpy(w, sb.segment_id + 8, 8);
			sum_add(&s, w[0]);
			for (int i = 1; i < 7; i++) sum_add(&s, w[i]);
			for (uint32_t i = 0; i < h->cells; i++) sum_add(&s, c[i] = word(at + 64 + 8 * (uint64_t)i));
			if (sum_end(&s) != h->checksum) why = "checksum";
		}
		if (!in_place) return why;
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (seq % 2 == 0 && word(at) == seq) return why;
		if (tries == 2) return "busy";
	}
}

static void say_rows(uint32_t ti, uint32_t j, const series *all, uint32_t n) {
	uint32_t rows = tier(&table[ti], j)->rows, good_rows = 0;
	kept *found = calloc(rows, sizeof *found);
	uint64_t *c = calloc(table[ti].row_cells, 8);
	char *skips = NULL;
	size_t size;
	FILE *skipped = open_memstream(&skips, &size);
	shmts_row h;
	if (!found || !c || !skipped) { perror("reader"); exit(2); }
	for (uint32_t slot = 0; slot < rows; slot++) {
		const char *why = read_row(ti, j, slot, &h, c);
		if (why && why[0]) fprintf(skipped, "skip row %u %u slot %u %s\n", ti, j, slot, why);
		if (why) continue;
		found[good_rows].row_no = h.row_no;
		found[good_rows++].slot = slot;
	}
	qsort(found, good_rows, sizeof *found, by_number);
	for (uint32_t i = 0; i < good_rows; i++) {
		if (read_row(ti, j, found[i].slot, &h, c)) continue; /* overwritten meanwhile */
		printf("row %u %u %llu base=%llu begin=%lld t=%lld mono=%lld epoch=%u flags=%u cells=%u\n", ti, j, (unsigned long long)h.row_no, (unsigned long long)h.base_row,
		       (long long)h.t_begin, (long long)h.t, (long long)h.t_mono, h.epoch, h.flags, h.cells);
		for (uint32_t k = 0; k < n; k++) {
			const shmts_series_desc *d = &all[k].d;
			uint32_t row, lane, shared;
			cells(d, &row, &lane, &shared);
			if (d->table != ti || h.base_row < d->born_row || (d->retired_row && h.base_row >= d->retired_row) || (uint64_t)d->row_cell + row > h.cells) continue;
			printf("value %u ", all[k].index);
			value(d, c + d->row_cell);
		}
	}
	fclose(skipped);
	fputs(skips, stdout);
	free(skips);
	free(found);
	free(c);
}

/* ---- live cells: FORMAT.md 7 ---- */

static uint64_t lane_word(const shmts_series_desc *d, uint32_t k, uint32_t cell) {
	const shmts_table_desc *t = &table[d->table];
	return word(t->lanes_offset + (uint64_t)k * t->lane_stride + 8 * ((uint64_t)d->lane_cell + cell));
}
static uint64_t total(const shmts_series_desc *d, uint32_t cell, int f64) {
	uint64_t bits = lane_word(d, 0, cell);
	for (uint32_t k = 1; k <= table[d->table].lanes; k++)
		bits = f64 ? shmts__bits(shmts__f64(bits) + shmts__f64(lane_word(d, k, cell))) : bits + lane_word(d, k, cell);
	return bits;
}
static void say_live(const series *s) {
	const shmts_series_desc *d = &s->d;
	static uint64_t c[SHMTS_MAX_BUCKETS + 3];
	uint32_t row, lane, shared;
	cells(d, &row, &lane, &shared);
	if (d->kind == SHMTS_STAT) {
		uint64_t r = (&control.table0)[d->table].open_row;
		uint32_t slot = 2 + 3 * (uint32_t)(r % 2);
		c[0] = total(d, 0, 0);
		c[1] = total(d, 1, 1);
		c[3] = c[4] = SHMTS_UNSET_F64;
		for (uint32_t k = 0; k <= table[d->table].lanes; k++) {
			if (lane_word(d, k, slot) != r) continue;
			double low = shmts__f64(lane_word(d, k, slot + 1)), high = shmts__f64(lane_word(d, k, slot + 2));
			if (low == low && (c[3] == SHMTS_UNSET_F64 || low < shmts__f64(c[3]))) c[3] = shmts__bits(low);
			if (high == high && (c[4] == SHMTS_UNSET_F64 || high > shmts__f64(c[4]))) c[4] = shmts__bits(high);
		}
	} else {
		for (uint32_t i = 0; i < lane; i++) c[i] = total(d, i, i == 0 && d->number == SHMTS_F64);
	}
	if (shared) c[d->kind == SHMTS_STAT ? 2 : 0] = word(table[d->table].shared_offset + 8 * (uint64_t)d->shared_cell);
	printf("live %u ", s->index);
	value(d, c);
}

/* ---- exemplars: FORMAT.md 8.4 ---- */

/* Copies the exemplar in a slot and proves it. NULL, or why not; "" for a slot never used. */
static const char *read_exemplar(uint32_t slot, shmts_exemplar_slot *x, const series *all, uint32_t series_count) {
	uint64_t at = section[8].offset + (uint64_t)slot * section[8].element_size, w[8], id[2];
	for (int tries = 0;; tries++) {
		uint64_t seq = __atomic_load_n((const uint64_t *)(const void *)(image + at), __ATOMIC_ACQUIRE), n = seq >> 1;
		const char *why = "series";
		sum s = sum_begin(0x10000);
		copy(w, at, sizeof w);
		memcpy(x, w, sizeof *x);
		memcpy(id, sb.segment_id, 16);
		sum_add(&s, id[0]);
		sum_add(&s, id[1]);
		sum_add(&s, n);
		for (int i = 2; i < 8; i++) sum_add(&s, w[i]);
		if (seq == 0) why = "";
		else if (n == 0 || (n - 1) % section[8].count != slot || n > control.exemplars || control.exemplars - n >= section[8].count) why = "number";
		else if (seq & 1) why = "writing";
		else if (sum_end(&s) != x->check) why = "check";
		else {
			for (uint32_t i = 0; i < series_count; i++)
				if (all[i].index == x->series && all[i].d.state >> 8 == x->generation && (all[i].d.kind == SHMTS_COUNTER || all[i].d.kind == SHMTS_HISTOGRAM)) why = NULL;
			if (!why && !(w[5] | w[6])) why = "trace";
		}
		if (!in_place) return why;
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (word(at) == seq) return why;
		if (tries == 2) return "writing";
	}
}
static void say_exemplars(const series *all, uint32_t n) {
	kept *found = calloc(section[8].count, sizeof *found);
	uint32_t good_ones = 0;
	char *skips = NULL;
	size_t size;
	FILE *skipped = open_memstream(&skips, &size);
	shmts_exemplar_slot x;
	if (!found || !skipped) { perror("reader"); exit(2); }
	for (uint32_t slot = 0; slot < section[8].count; slot++) {
		const char *why = read_exemplar(slot, &x, all, n);
		if (why && why[0]) fprintf(skipped, "skip exemplar slot %u %s\n", slot, why);
		if (why) continue;
		found[good_ones].row_no = x.seq >> 1;
		found[good_ones++].slot = slot;
	}
	printf("exemplars slots=%u given=%llu dropped=%llu\n", section[8].count, (unsigned long long)control.exemplars, (unsigned long long)control.exemplars_dropped);
	qsort(found, good_ones, sizeof *found, by_number);
	for (uint32_t i = 0; i < good_ones; i++) {
		if (read_exemplar(found[i].slot, &x, all, n)) continue; /* written over meanwhile */
		printf("exemplar %llu series=%u value=", (unsigned long long)(x.seq >> 1), x.series);
		number(SHMTS_F64, shmts__bits(x.value));
		printf(" t=%lld trace=", (long long)x.t);
		for (int k = 0; k < 16; k++) printf("%02x", x.trace_id[k]);
		printf(" span=");
		for (int k = 0; k < 8; k++) printf("%02x", x.span_id[k]);
		putchar('\n');
	}
	fclose(skipped);
	fputs(skips, stdout);
	free(skips);
	free(found);
}

int main(int argc, char **argv) {
	struct stat st;
	in_place = argc == 3 && !strcmp(argv[1], "--in-place");
	if (argc != 2 + in_place) { fprintf(stderr, "reader: want [--in-place] FILE\n"); return 2; }
	int fd = open(argv[1 + in_place], O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st)) { perror(argv[1 + in_place]); return 2; }
	image_size = (uint64_t)st.st_size;
	WANT(image_size >= 256 && image_size <= SHMTS_MAX_TOTAL, "superblock: want 256 bytes to 2^30, got %llu", (unsigned long long)image_size);
	if (in_place) {
		void *m = mmap(NULL, image_size, PROT_READ, MAP_SHARED, fd, 0);
		if (m == MAP_FAILED) { perror("mmap"); return 2; }
		image = m;
	} else {
		uint8_t *m = aligned_alloc(64, (image_size + 63) / 64 * 64);
		for (uint64_t at = 0; m && at < image_size;) {
			ssize_t n = pread(fd, m + at, image_size - at, (off_t)at);
			if (n <= 0) { perror("pread"); return 2; }
			at += (uint64_t)n;
		}
		if (!m) { perror("reader"); return 2; }
		image = m;
	}
	read_header();
	say_header();
	say_control();
	series *all = calloc(control.series_used + 1, sizeof *all);
	if (!all) { perror("reader"); return 2; }
	uint32_t n = say_series(all);
	for (uint32_t i = 0; i < tables; i++)
		for (uint32_t j = 0; j < table[i].tiers; j++) say_rows(i, j, all, n);
	for (uint32_t i = 0; i < n; i++) if (all[i].shown) say_live(&all[i]);
	if (section[8].count) say_exemplars(all, n);
	return 0;
}
