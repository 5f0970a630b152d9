package webconfig

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"slices"
	"sync"

	"golang.org/x/crypto/bcrypt"
)

// keepLogins bounds each half of what is remembered of passwords.
const keepLogins = 256

// digest stands for a user, the hash and the password that was tried, for this process alone.
type digest [sha256.Size]byte

// auth remembers which passwords were right: bcrypt takes its 50 ms and more by design, and a dashboard asks a lot. Passwords
// themselves are not kept.
type auth struct {
	key     [32]byte
	compare func(hash, password []byte) error
	turn    chan struct{} // one bcrypt at a time: who guesses gets one core, not all

	mu           sync.Mutex
	right, wrong map[digest]struct{}
}

func newAuth() *auth {
	a := &auth{compare: bcrypt.CompareHashAndPassword, turn: make(chan struct{}, 1), right: map[digest]struct{}{}, wrong: map[digest]struct{}{}}
	rand.Read(a.key[:])
	return a
}

// check tells whether users have this one, with this password. Who does not exist costs what one who does would: a hash is tried all the
// same, always the same of those that there are, so that a name that is guessed right does not show in the time. The error is the context's.
func (a *auth) check(ctx context.Context, users map[string]string, user, password string) (bool, error) {
	hash, known := users[user]
	if !known {
		hash = a.standIn(users, user)
	}
	d := a.digest(user, hash, password)
	if right, ok := a.remembered(d); ok {
		return right, nil
	}
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	// Who waited may have waited for the same.
	if right, ok := a.remembered(d); ok {
		return right, nil
	}
	right := a.compare([]byte(hash), []byte(password)) == nil && known
	a.remember(d, right)
	return right, nil
}

func (a *auth) standIn(users map[string]string, user string) string {
	hashes := make([]string, 0, len(users))
	for _, h := range users {
		hashes = append(hashes, h)
	}
	slices.Sort(hashes)
	d := a.digest(user)
	return hashes[binary.BigEndian.Uint64(d[:])%uint64(len(hashes))]
}

func (a *auth) digest(parts ...string) (d digest) {
	m := hmac.New(sha256.New, a.key[:])
	for _, p := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		m.Write(n[:])
		m.Write([]byte(p))
	}
	m.Sum(d[:0])
	return d
}

func (a *auth) remembered(d digest) (right, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.right[d]; ok {
		return true, true
	}
	_, ok = a.wrong[d]
	return false, ok
}

// remember keeps right and wrong apart, so that guesses do not push out who is let in.
func (a *auth) remember(d digest, right bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.wrong
	if right {
		m = a.right
	}
	if len(m) >= keepLogins {
		clear(m)
	}
	m[d] = struct{}{}
}

// handler lets through to next whom the file lets in, in this order as the exporter-toolkit does: rate, headers, password.
func (f *File) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := f.now(false)
		if !s.limit.Allow() {
			refuse(w, http.StatusTooManyRequests)
			return
		}
		for name, value := range s.HTTP.Headers {
			if value != "" {
				w.Header().Set(name, value)
			}
		}
		if len(s.Users) > 0 {
			user, password, ok := r.BasicAuth()
			if ok {
				var err error
				if ok, err = f.auth.check(r.Context(), s.Users, user, password); err != nil {
					refuse(w, http.StatusServiceUnavailable)
					return
				}
			}
			if !ok {
				w.Header().Set("WWW-Authenticate", `Basic realm="shmtsd", charset="UTF-8"`)
				refuse(w, http.StatusUnauthorized)
				return
			}
			r = r.WithContext(WithUser(r.Context(), user))
		}
		next.ServeHTTP(w, r)
	})
}

type userKey struct{}

// WithUser is a context of a request whose user's password was right.
func WithUser(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, userKey{}, name)
}

// User is who asks, if the file has users: one whose password was right.
func User(ctx context.Context) (name string, ok bool) {
	name, ok = ctx.Value(userKey{}).(string)
	return name, ok
}

func refuse(w http.ResponseWriter, status int) {
	http.Error(w, http.StatusText(status), status)
}
