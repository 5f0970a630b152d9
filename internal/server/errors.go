package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/prometheus/prometheus/promql"

	"github.com/shmts/shmts/internal/query"
)

// An errorType is Prometheus's word for a kind of failure, with its status code.
type errorType struct {
	name string
	code int
}

var (
	badData     = errorType{"bad_data", http.StatusBadRequest}
	badMethod   = errorType{"bad_data", http.StatusMethodNotAllowed}
	execution   = errorType{"execution", http.StatusUnprocessableEntity}
	timeout     = errorType{"timeout", http.StatusServiceUnavailable}
	unavailable = errorType{"unavailable", http.StatusServiceUnavailable}
	canceled    = errorType{"canceled", 499} // nginx's: the client went away
	internal    = errorType{"internal", http.StatusInternalServerError}
	notFound    = errorType{"not_found", http.StatusNotFound}

	unauthorized = errorType{"unauthorized", http.StatusUnauthorized} // not one of Prometheus's, which knows no tenants
	forbidden    = errorType{"forbidden", http.StatusForbidden}
)

type apiError struct {
	errorType
	err error
}

// answer is what goes into the envelope, or an error.
type answer struct {
	data     data
	err      *apiError
	warnings []string
	infos    []string
	done     func() // when data has been written; may be nil
}

func failed(t errorType, err error) answer { return answer{err: &apiError{t, err}} }

func invalid(parameter string, err error) answer {
	return failed(badData, fmt.Errorf("invalid parameter %q: %w", parameter, err))
}

// classify finds the type of an error that came out of a query; other says what it is if it is no special one.
func classify(err error, other errorType) errorType {
	var (
		c promql.ErrQueryCanceled
		t promql.ErrQueryTimeout
		s promql.ErrStorage
		m *query.MemoryError
	)
	switch {
	case errors.Is(err, query.ErrBusy), errors.As(err, &m) && m.Shared:
		return unavailable
	case m != nil:
		return execution
	case errors.As(err, &t), errors.Is(err, context.DeadlineExceeded):
		return timeout
	case errors.As(err, &c), errors.Is(err, context.Canceled):
		return canceled
	case errors.As(err, &s):
		return internal
	}
	return other
}
