package main

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/shmts/shmts/internal/health"
	"github.com/shmts/shmts/internal/source"
	"github.com/shmts/shmts/reader"
)

// maxUsers bounds the users who have series of their own. A store where anybody may make a directory would give
// /metrics as many as there are uids: those beyond are summed up under otherUsers.
const (
	maxUsers   = 32
	otherUsers = "other"
)

var budgetNames = [4]string{"segments", "bytes", "series", "label-bytes"}

func amounts(b reader.Budget) [4]float64 {
	return [4]float64{float64(b.Segments), float64(b.Bytes), float64(b.Series), float64(b.LabelBytes)}
}

// budgetMetrics show what is in use of the budgets.
type budgetMetrics struct {
	h           *health.Health
	used, limit [4]*health.Gauge
	waiting     *health.Gauge
	users       map[string]*userMetrics
	last        []reader.Usage // what they show
	known       bool
}

type userMetrics struct {
	used, limit [4]*health.Gauge // others together have no limit
	waiting     *health.Gauge
	skipped     *health.Counter
}

func newBudgetMetrics(h *health.Health) *budgetMetrics {
	m := &budgetMetrics{h: h, users: map[string]*userMetrics{},
		waiting: h.Gauge("shmtsd_budget_waiting", "Files that are not read until there is room for them.", "")}
	for i, name := range budgetNames {
		m.used[i] = h.Gauge("shmtsd_budget_used", "What all users' segments take of the budget.", "", "budget", name)
		m.limit[i] = h.Gauge("shmtsd_budget_limit", "What all users' segments may take.", "", "budget", name)
	}
	return m
}

func (m *budgetMetrics) user(uid string) *userMetrics {
	if u := m.users[uid]; u != nil {
		return u
	}
	u := &userMetrics{
		waiting: m.h.Gauge("shmtsd_user_budget_waiting", "Files of the user that are not read until there is room for them.", "", "uid", uid),
		skipped: m.h.Counter("shmtsd_user_series_skipped_total", "Series of the user's segments that found no room.", "", "uid", uid),
	}
	for i, name := range budgetNames {
		u.used[i] = m.h.Gauge("shmtsd_user_budget_used", "What the user's segments take of the budget.", "", "budget", name, "uid", uid)
		if uid != otherUsers {
			u.limit[i] = m.h.Gauge("shmtsd_user_budget_limit", "What the user's segments may take as things are: his own budget, or what he leaves free of everybody's.", "", "budget", name, "uid", uid)
		}
	}
	m.users[uid] = u
	return u
}

func (m *budgetMetrics) update(s source.Stats) {
	if len(s.Users) == len(m.last) && (len(m.last) == 0 || &s.Users[0] == &m.last[0]) && m.known {
		return
	}
	m.last, m.known = s.Users, true
	used, limit := amounts(s.Budget.Used), amounts(s.Budget.Limit)
	for i := range budgetNames {
		m.used[i].Set(used[i])
		m.limit[i].Set(limit[i])
	}
	m.waiting.Set(float64(s.Budget.Refused))

	// Those who take most of a budget come first while there is a choice; who has his own series keeps them.
	list := slices.Clone(s.Users)
	slices.SortStableFunc(list, func(a, b reader.Usage) int { return cmp.Compare(part(b, s.Budget), part(a, s.Budget)) })
	seen := make(map[string]bool, len(m.users))
	var other reader.Usage
	for _, u := range list {
		uid := strconv.Itoa(u.UID)
		if m.users[uid] == nil && len(m.users) >= maxUsers {
			other.Used.Segments += u.Used.Segments
			other.Used.Bytes += u.Used.Bytes
			other.Used.Series += u.Used.Series
			other.Used.LabelBytes += u.Used.LabelBytes
			other.Refused += u.Refused
			other.SkippedSeries += u.SkippedSeries
			seen[otherUsers] = true
			continue
		}
		seen[uid] = true
		m.user(uid).set(u)
	}
	if seen[otherUsers] {
		m.user(otherUsers).set(other)
	}
	for uid, u := range m.users {
		if !seen[uid] {
			u.set(reader.Usage{})
		}
	}
}

// part is the largest part of any budget that a user has; of one whose files wait, all.
func part(u, all reader.Usage) (most float64) {
	if u.Refused > 0 {
		return 1
	}
	used, limit := amounts(u.Used), amounts(all.Limit)
	for i := range used {
		most = max(most, used[i]/limit[i])
	}
	return most
}

func (m *userMetrics) set(u reader.Usage) {
	used, limit := amounts(u.Used), amounts(u.Limit)
	for i := range used {
		m.used[i].Set(used[i])
		if m.limit[i] != nil {
			m.limit[i].Set(limit[i])
		}
	}
	m.waiting.Set(float64(u.Refused))
	m.skipped.Total(float64(u.SkippedSeries))
}
