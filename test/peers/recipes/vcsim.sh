# A vCenter for the tests: govmomi's simulator (Apache-2.0) from Go's registry, and our front of it (see main.go). Never shipped.
command -v go >/dev/null || { echo 'go is not installed'; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$parts"/*.go "$parts"/go.mod "$parts"/go.sum "$work/"
cd "$work"
CGO_ENABLED=0 GOFLAGS=-p=1 go build -ldflags='-s -w' -o "$into/vcsim" .
