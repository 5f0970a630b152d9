package config

import "time"

// Tenants is who asks, and what each may see and take: the structure tenants. Nil where the file has none: then all who are let in are one,
// and see everything. internal/tenant holds it to its rules.
type Tenants struct {
	// Header names a tenant. It is believed of those who are trusted alone.
	Header  string  `yaml:"header"`
	Trusted Trusted `yaml:"trusted"`
	// Default is the tenant of those who are none of the list's; empty: they are refused.
	Default string   `yaml:"default"`
	List    []Tenant `yaml:"list"`
}

// Trusted are those of whom the header is believed.
type Trusted struct {
	Who    `yaml:",inline"`
	Anyone bool `yaml:"anyone"`
}

// Who are callers: by the user whose password they know, by a name in a certificate that was verified, or by their user id at the other end
// of a unix socket.
type Who struct {
	Users        []string `yaml:"users"`
	Certificates []string `yaml:"certificates"`
	UIDs         []uint32 `yaml:"uids"`
}

// Tenant is one of the list.
type Tenant struct {
	Name   string `yaml:"name"`
	Who    `yaml:",inline"`
	Sees   *Sees        `yaml:"sees"`
	Limits TenantLimits `yaml:"limits"`
}

// Sees is what a tenant may see: everything; or series of segments of some users, which any of some selectors accepts.
type Sees struct {
	All   bool     `yaml:"all"`
	UIDs  []uint32 `yaml:"uids"`
	Match []string `yaml:"match"`
}

// TenantLimits are those of one tenant. What is not said is a default.
type TenantLimits struct {
	MaxConcurrency    int           `yaml:"max_concurrency"`      // queries that run at once; half of query.max-concurrency
	MaxQueue          int           `yaml:"max_queue"`            // that wait for that; 64
	Weight            float64       `yaml:"weight"`               // its part where places are scarce, beside others'; 1
	MaxSamples        int           `yaml:"max_samples"`          // of a query; query.max-samples
	Timeout           time.Duration `yaml:"timeout"`              // of a query; query.timeout
	MaxMemoryPerQuery Size          `yaml:"max_memory_per_query"` // query.max-memory
	MaxMemory         Size          `yaml:"max_memory"`           // of all queries and answers at once; half of query.max-memory-total
}

func tenants(to **Tenants) structure {
	return structure{
		name: "tenants", what: "{header:, trusted:, default:, list: [...]}",
		help: "who asks, and what each may see and take: see docs/tenants.md. Without it all who are let in are one, and see everything",
		set: func(b block) error {
			*to = &Tenants{}
			return b.decode(*to)
		},
	}
}
