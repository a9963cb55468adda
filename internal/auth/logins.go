package auth

// maxLogins is how many logins are remembered that went well.
const maxLogins = 16_384

// logins are the last logins that went well, as digests. The zero value is
// empty.
type logins struct {
	tokens   map[digest]digest // by session
	sessions []digest          // in a ring, some of them forgotten
	oldest   int               // where the ring is full
}

// know says whether token was right on session before. The session is taken for
// a secret until it comes with another token: then it is forgotten, or who knows
// it could try tokens without a limit.
func (l *logins) know(session, token digest) bool {
	known, ok := l.tokens[session]
	if ok && known != token {
		delete(l.tokens, session)
	}
	return ok && known == token
}

func (l *logins) add(session, token digest) {
	if _, ok := l.tokens[session]; ok {
		l.tokens[session] = token
		return
	}
	if l.tokens == nil {
		l.tokens = make(map[digest]digest)
	}
	if len(l.sessions) < maxLogins {
		l.sessions = append(l.sessions, session)
	} else {
		delete(l.tokens, l.sessions[l.oldest])
		l.sessions[l.oldest] = session
		l.oldest = (l.oldest + 1) % maxLogins
	}
	l.tokens[session] = token
}
