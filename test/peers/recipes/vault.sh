# HashiCorp Vault's core with its transit engine and AppRole (see main.go), from Go's registry. Business Source License: used
# as it is, only by the tests, and never shipped.
command -v go >/dev/null || { echo 'go is not installed'; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$parts"/main.go "$parts"/go.mod "$parts"/go.sum "$work/"
cd "$work"
CGO_ENABLED=0 go build -mod=mod -ldflags='-s -w' -o "$into/vault" .
