# A fast S3 server that checks signatures and checksums strictly (Apache-2.0).
command -v go >/dev/null || { echo 'go is not installed'; exit 1; }
GOBIN=$into GOFLAGS=-p=1 CGO_ENABLED=0 go install github.com/versity/versitygw/cmd/versitygw@v1.7.0
