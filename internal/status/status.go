// Package status is what a daemon says of itself at a glance: /api/v1/status/shmtsd answers it, and shmctl status prints it.
package status

// Daemon is the whole of it. Fields may be added, and never change their meaning.
type Daemon struct {
	Version  string   `json:"version"`
	Started  string   `json:"started" doc:"RFC 3339"`
	Ready    string   `json:"ready,omitempty" doc:"why it is not ready; absent: it is"`
	Degraded string   `json:"degraded,omitempty" doc:"what does not work of it; absent: everything does"`
	Store    Store    `json:"store"`
	Archive  *Archive `json:"archive,omitempty" doc:"absent: there is none"`
	Export   Export   `json:"export"`
}

// Store is what is in the store.
type Store struct {
	Alive   int   `json:"alive" doc:"segments whose writers live"`
	Stalled int   `json:"stalled" doc:"of writers that have not ticked for long"`
	Ended   int   `json:"ended" doc:"closed, or of dead writers"`
	Sources int   `json:"sources"`
	Series  int   `json:"series"`
	Bytes   int64 `json:"bytes" doc:"of the segments' files"`
}

// Archive is how much history there is.
type Archive struct {
	Stopped string  `json:"stopped,omitempty" doc:"why nothing is written just now"`
	Lag     float64 `json:"lagSeconds" doc:"age of the oldest row that is in a ring and not yet on the disk"`
	Tiers   []Tier  `json:"tiers"`
}

// Tier is one of the archive's.
type Tier struct {
	Step   string `json:"step"`
	Oldest string `json:"oldest,omitempty" doc:"RFC 3339; absent: it is empty"`
	Size   int64  `json:"sizeBytes" doc:"of the file, which never grows"`
	Used   int64  `json:"usedBytes"`
}

// Export is what leaves, beside what is recorded.
type Export struct {
	Recorded     uint64        `json:"recordedSamples" doc:"series times rows of the finest tier, since the daemon's start"`
	RecordedRate float64       `json:"recordedSamplesPerSecond" doc:"over the last minute or so"`
	Destinations []Destination `json:"destinations"`
}

// Destination is one of Export's.
type Destination struct {
	Name        string            `json:"name"`
	Protocol    string            `json:"protocol" doc:"http/protobuf, grpc (both OTLP) or remote_write"`
	URL         string            `json:"url"`
	Step        string            `json:"step"`
	Sent        uint64            `json:"sentSamples" doc:"that the receiver took, since the daemon's start"`
	SentRate    float64           `json:"sentSamplesPerSecond" doc:"over the last minute or so"`
	Bytes       uint64            `json:"sentBytes" doc:"compressed"`
	Requests    map[string]uint64 `json:"requests" doc:"attempts by outcome: ok, partial, retry, refused"`
	Refused     map[string]uint64 `json:"refusedSamples" doc:"that the receiver did not take, by reason"`
	LostRows    map[string]uint64 `json:"lostRows" doc:"that were gone before they could be sent, by reason"`
	LostExtents uint64            `json:"lostExtents" doc:"of the archive, evicted before they were gone through"`
	Lag         float64           `json:"lagSeconds" doc:"by how much what was sent lies behind what is there"`
	Behind      bool              `json:"behind" doc:"rows out of the archive are being sent"`
	LastSent    string            `json:"lastSent,omitempty" doc:"RFC 3339; absent: never"`
	LastError   string            `json:"lastError,omitempty" doc:"of the last attempt; absent: it went well"`
}
