#!/bin/sh
# Sets and removes the records of DNS-01 on a name server that takes dynamic updates (RFC 2136): BIND,
# Knot, PowerDNS. For tunnel-server:
#
#   --acme-dns "exec:/etc/tunnel-server/nsupdate.sh /etc/tunnel-server/dns.key ns1.example.com"
#
# The first argument is a key file, as tsig-keygen writes it; the second the zone's primary server,
# HOST or HOST#PORT. The server adds: present|cleanup, the name with a final dot, and the value. Needs
# nsupdate (bind9-dnsutils on Debian). docs/certificates.md has the name server's side.
set -eu
usage() {
  echo "usage: nsupdate.sh KEYFILE SERVER present|cleanup FQDN VALUE" >&2
  exit 2
}
[ $# -eq 5 ] || usage
key=$1 server=$2 verb=$3 name=$4 value=$5

port=53
case $server in
  *#*) port=${server##*#} server=${server%#*} ;;
esac
case $verb in
  present) update="update add $name 60 TXT \"$value\"" ;;
  cleanup) update="update delete $name TXT \"$value\"" ;;
  *) usage ;;
esac
[ -r "$key" ] || {
  echo "nsupdate.sh: cannot read the key file $key" >&2
  exit 1
}
printf 'server %s %s\n%s\nsend\n' "$server" "$port" "$update" | nsupdate -t 20 -k "$key"
