package protocol

// PathDescription is where a server's own host answers with a [Description], to
// anybody who asks.
const PathDescription = "/.well-known/tunnel"

// Description is what a server tells of itself, as JSON. It holds nothing that is
// not for everyone.
type Description struct {
	// Versions are those of the control messages that it speaks.
	Versions []int `json:"versions"`
	// Transports are the tokens of Upgrade by which sessions begin.
	Transports []string `json:"transports"`
	// Kinds are those of the endpoints that clients may have.
	Kinds []Kind `json:"kinds"`
	// Domain is the parent of the public names, NAME.Domain.
	Domain string `json:"domain"`
	// Origins is the origin of each public name, with * in the name's place, such as
	// https://*.tunnel.example.com: what a client of PTTH asks to serve.
	Origins string `json:"origins,omitempty"`
	// PathNames says that a name is public as /NAME/ of the server's own host, too.
	PathNames bool `json:"path_names,omitempty"`
}
