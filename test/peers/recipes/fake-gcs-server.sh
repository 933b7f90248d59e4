# A server of Google Cloud Storage's JSON API (BSD): generation preconditions, declared checksums, ranged reads.
command -v go >/dev/null || { echo 'go is not installed'; exit 1; }
GOBIN=$into GOFLAGS=-p=1 CGO_ENABLED=0 go install -ldflags='-s -w' github.com/fsouza/fake-gcs-server@v1.55.1
