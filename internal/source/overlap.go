package source

import (
	"maps"
	"strconv"

	"github.com/shmts/shmts/reader"
)

// OverlapLabel tells the older of two segments that have the same series at the same time: the
// beginning of its segment id.
const OverlapLabel = "shmts_segment"

const shortID = 8 // hexadecimal digits of OverlapLabel's value

// RestartSteps is by how many steps of its finest tier a dead writer's last row may lie behind its successor's
// birth, and still be a restart, not two at once: last words are stamped up to a step after the
// death, or when it was seen.
const RestartSteps = 2

// Key is equal for segments of one source: the owner and the labels. FORMAT.md 4.4.
func Key(uid int, labels []reader.Pair) string {
	b := strconv.AppendInt(make([]byte, 0, 96), int64(uid), 10)
	for _, p := range labels {
		b = append(append(append(append(b, 0), p.Name...), 0), p.Value...)
	}
	return string(b)
}

func sourceKey(g *reader.Segment) string { return Key(g.UID(), g.Labels()) }

// SeriesKey is what a series is known by among those of one source: appended to b, whose content goes.
func SeriesKey(b []byte, s *reader.Series) []byte {
	b = append(b[:0], s.Name...)
	for _, p := range s.Labels {
		b = append(append(append(append(b, 0), p.Name...), 0), p.Value...)
	}
	return b
}

// OverlapPairs are what the series of a segment carry that a newer one has at the same time.
func OverlapPairs(id string) []reader.Pair {
	return []reader.Pair{{Name: OverlapLabel, Value: id[:min(shortID, len(id))]}}
}

// remember has those that a segment overlapped keep their labels for it when it leaves: a series does not become another
// one because of somebody else's end.
func remember(members []*life, left *life, now uint64) {
	var key []byte
	for _, older := range members {
		if older == left {
			return // the others are newer
		}
		if !overlaps(older, left, now) {
			continue
		}
		if older.taken == nil {
			older.taken = make(map[string]bool)
		}
		for _, s := range left.view.series {
			key = SeriesKey(key, s)
			older.taken[string(key)] = true
		}
	}
}

// overlaps tells whether two segments of a source recorded at the same time, older being born first.
// Two that are alive are, but for one case: a writer that died since the last poll may still pass
// for alive by its heartbeat (FORMAT.md 10.5), when its successor has just been found.
func overlaps(older, newer *life, now uint64) bool {
	switch v := older.view; {
	case older.g.Group() == newer.g.Group():
		return false // grown: a series is in exactly one of them, FORMAT.md 10.7
	case v.ended:
		return v.end-newer.start > RestartSteps*int64(finest(older.tables))
	default:
		return older.since == newer.since || now > newer.since
	}
}

func finest(tables []reader.Table) (step int64) {
	for _, t := range tables {
		if len(t.Tiers) > 0 && (step == 0 || int64(t.Tiers[0].Step) < step) {
			step = int64(t.Tiers[0].Step)
		}
	}
	return step
}

// relabel gives every member of a source its series for a snapshot, oldest first. Disjoint series are
// as their authors wrote them; of the same series in two segments at the same time, the
// older one gains OverlapLabel, so that the newer goes on under the labels that queries know.
// It answers whether the matter is settled: no member is so new that the next poll may decide otherwise.
func relabel(members []*life, now uint64) (settled bool) {
	settled = true
	var key []byte
	for i, older := range members {
		v := older.view
		v.series, v.overrides = older.g.Series(), nil
		taken := maps.Clone(older.taken)
		for _, newer := range members[i+1:] {
			if !v.ended && newer.since == now && older.since != newer.since {
				settled = false
			}
			if !overlaps(older, newer, now) {
				continue
			}
			if taken == nil {
				taken = make(map[string]bool)
			}
			for _, s := range newer.g.Series() {
				key = SeriesKey(key, s)
				taken[string(key)] = true
			}
		}
		if taken == nil {
			continue
		}
		label := OverlapPairs(older.id)
		for _, s := range v.series {
			if key = SeriesKey(key, s); taken[string(key)] {
				if v.overrides == nil {
					v.overrides = make(map[*reader.Series][]reader.Pair)
				}
				v.overrides[s] = label
			}
		}
	}
	return settled
}
