# A backup program to compare with. A module of our own that needs it, because a proxy may not list its versions.
command -v go >/dev/null || { echo 'go is not installed'; exit 1; }
work=$(mktemp -d)
cd "$work"
go mod init bench
printf 'package bench\n\nimport _ "github.com/kopia/kopia"\n' >tools.go
sed -i '1i //go:build tools\n' tools.go
go mod edit -require=github.com/kopia/kopia@v0.23.1
GOFLAGS=-mod=mod go mod tidy
CGO_ENABLED=0 go build -ldflags='-s -w' -o "$into/kopia" github.com/kopia/kopia
chmod -R u+w "$work" && rm -rf "$work"
