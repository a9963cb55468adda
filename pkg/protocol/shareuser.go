package protocol

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	saltSize = 16
	// rounds of PBKDF2 (RFC 8018) cost tens of milliseconds. They are not for a client to
	// choose: it is the server that spends them.
	rounds = 100_000
	// maxPassword is the longest password in bytes.
	maxPassword = 1024
)

// User is who may visit an endpoint, by name and password. It holds no password, but what
// tells whether one is right.
type User struct {
	Name string `json:"name"`
	Salt []byte `json:"salt"`
	Hash []byte `json:"hash"` // PBKDF2 with HMAC-SHA-256, 100,000 rounds, 32 bytes
}

// NewUser returns the user of that name and password (RFC 7617, section 2). The error
// says what is wrong with them, and shows neither.
func NewUser(name, password string) (User, error) {
	switch {
	case name == "":
		return User{}, errors.New("there is no user before the colon")
	case strings.Contains(name, ":"), !printable(name), !printable(password):
		return User{}, errors.New("the user has a colon in it, or one of both a control character, or they are not UTF-8")
	case len(name) > maxUser:
		return User{}, fmt.Errorf("the user has more than %d bytes", maxUser)
	case password == "":
		return User{}, errors.New("the password is empty")
	case len(password) > maxPassword:
		return User{}, fmt.Errorf("the password has more than %d bytes", maxPassword)
	}
	u := User{Name: name, Salt: make([]byte, saltSize)}
	rand.Read(u.Salt)
	u.Hash = u.hash(password)
	return u, nil
}

// printable reports whether s is UTF-8 without control characters, which RFC 7617 has
// no room for.
func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// Is reports whether password is u's. It takes tens of milliseconds of computing,
// whichever it is.
func (u *User) Is(password string) bool {
	return subtle.ConstantTimeCompare(u.hash(password), u.Hash) == 1
}

func (u *User) hash(password string) []byte {
	h, err := pbkdf2.Key(sha256.New, password, u.Salt, rounds, sha256.Size)
	if err != nil {
		return nil // of a mode of FIPS 140 that allows no such password; Is is false then, as Hash is never empty
	}
	return h
}

func checkUsers(users []User) error {
	if len(users) > MaxUsers {
		return fmt.Errorf("%d users are more than %d", len(users), MaxUsers)
	}
	names := make(map[string]bool)
	for _, u := range users {
		if u.Name == "" || len(u.Name) > maxUser || len(u.Salt) != saltSize || len(u.Hash) != sha256.Size {
			return errors.New("a user has no name, or not the salt and the hash of a password")
		}
		if names[u.Name] {
			return errors.New("a user is there twice: each has one password")
		}
		names[u.Name] = true
	}
	return nil
}
