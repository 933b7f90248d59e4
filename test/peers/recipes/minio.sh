# An S3 server whose conditional puts are atomic at speed (AGPLv3: an unmodified test tool, never shipped).
command -v go >/dev/null || { echo 'go is not installed'; exit 1; }
GOBIN=$into GOFLAGS=-p=1 CGO_ENABLED=0 go install -ldflags='-s -w' github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c
