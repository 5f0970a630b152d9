package tenant

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"

	"golang.org/x/sys/unix"
)

type peerKey struct{}

// ConnContext is an http.Server's: it remembers who is at the other end of a unix socket, by SO_PEERCRED. That is who connected: the kernel
// says so, and a process that hands the connection on hands on what it is.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	if raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }) != nil || err != nil {
		return ctx
	}
	if cred.Uid == nobody {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, cred.Uid)
}

const (
	nobody      = 1<<32 - 1 // is not known
	overflowUID = "65534"   // is of another user namespace, and nobody here: kernel.overflowuid
)

func peer(ctx context.Context) (uint32, bool) {
	uid, ok := ctx.Value(peerKey{}).(uint32)
	return uid, ok
}

// certified are the names in a client's certificate, if it was verified: its common name, and its subject alternative names as they are
// written: DNS names, mail addresses, IP addresses and URIs.
func certified(r *http.Request) []string {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.VerifiedChains[0]) == 0 {
		return nil
	}
	c := r.TLS.VerifiedChains[0][0]
	var out []string
	if c.Subject.CommonName != "" {
		out = append(out, c.Subject.CommonName)
	}
	out = append(append(out, c.DNSNames...), c.EmailAddresses...)
	for _, ip := range c.IPAddresses {
		out = append(out, ip.String())
	}
	for _, u := range c.URIs {
		out = append(out, u.String())
	}
	return out
}
