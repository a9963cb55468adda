package protocol

import "strconv"

// MaxName is the longest name in bytes: one DNS label (RFC 1035, section 2.3.4).
const MaxName = 63

// CheckName returns an [*Error] with [NameInvalid] if name is not a lower-case
// DNS label of letters, digits and inner hyphens. Labels with "--" in third and
// fourth place are reserved (RFC 5891, section 4.2.3.1) and refused but for
// "xn--".
func CheckName(name string) error {
	bad := func(why string) error {
		return &Error{
			Code:    NameInvalid,
			Message: "name " + strconv.Quote(name[:min(len(name), MaxName)]) + " " + why,
			Hint:    "use 1 to 63 lower-case letters, digits and inner hyphens",
		}
	}
	if name == "" || len(name) > MaxName {
		return bad("has " + strconv.Itoa(len(name)) + " bytes")
	}
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-':
		default:
			return bad("has a character that host names do not allow")
		}
	}
	if name[0] == '-' || name[len(name)-1] == '-' {
		return bad("begins or ends with a hyphen")
	}
	if len(name) >= 4 && name[2:4] == "--" && name[:2] != "xn" {
		return bad(`has "--" in the third and fourth place`)
	}
	return nil
}
