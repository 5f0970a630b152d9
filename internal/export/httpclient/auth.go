package httpclient

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Auth is who a client says that it is: at most one of a basic_auth and an authorization of Prometheus's.
// What is named by a file is read for each request, without the white space around it.
type Auth struct {
	// basic_auth
	Username, UsernameFile string
	Password, PasswordFile string

	// authorization
	Type                         string // empty: Bearer
	Credentials, CredentialsFile string
}

// authorizer makes the value of the header Authorization.
type authorizer func() (string, error)

func (a Auth) basic() bool {
	return a != Auth{Type: a.Type, Credentials: a.Credentials, CredentialsFile: a.CredentialsFile}
}
func (a Auth) scheme() bool { return a.Type != "" || a.Credentials != "" || a.CredentialsFile != "" }

func (a Auth) check(c *Client) (authorizer, error) {
	fail := func(want, got string) (authorizer, error) {
		return nil, fmt.Errorf("shmts: %s: want %s, got %s", c.o.Who, want, got)
	}
	switch {
	case a.basic() && a.scheme():
		return fail("one of basic_auth and authorization", "both")
	case a.basic():
		if a.Username != "" && a.UsernameFile != "" || a.Password != "" && a.PasswordFile != "" {
			return fail("one of username and username_file, and one of password and password_file", "both")
		}
		if a.Username == "" && a.UsernameFile == "" {
			return fail("username or username_file with a password", "neither")
		}
	case a.scheme():
		if a.Credentials != "" && a.CredentialsFile != "" {
			return fail("one of credentials and credentials_file", "both")
		}
		if a.Credentials == "" && a.CredentialsFile == "" {
			return fail("credentials or credentials_file with a type", "neither")
		}
		if strings.EqualFold(a.Type, "basic") {
			return fail("basic_auth for the type Basic", "authorization")
		}
	default:
		return nil, nil
	}
	make := func() (string, error) {
		value, err := a.value()
		if err != nil {
			return "", fmt.Errorf("shmts: %s credentials: %w", c.o.Who, err)
		}
		return value, nil
	}
	_, err := make()
	return make, err
}

func (a Auth) value() (string, error) {
	if a.basic() {
		user, err := secret(a.Username, a.UsernameFile)
		if err != nil {
			return "", err
		}
		password, err := secret(a.Password, a.PasswordFile)
		if err != nil {
			return "", err
		}
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)), nil
	}
	credentials, err := secret(a.Credentials, a.CredentialsFile)
	if err != nil {
		return "", err
	}
	if strings.ContainsAny(credentials, "\r\n\x00") {
		return "", errors.New("want one line, got more") // and not the secret in the error
	}
	scheme := a.Type
	if scheme == "" {
		scheme = "Bearer"
	}
	return scheme + " " + credentials, nil
}

// secret is what was said, or what the file says now.
func secret(said, file string) (string, error) {
	if file == "" {
		return said, nil
	}
	data, err := readFile(file)
	return strings.TrimSpace(string(data)), err
}
