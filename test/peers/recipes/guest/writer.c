/* A program that never stops writing, and proves afterwards what of it is there.
 *
 *   writer run FILE MIB LOG [GAP_MS [KIB]]   writes slots of KIB (default 64) at random places of FILE (a file or a
 *                                            block device) and waits for each to be on disk. One line of LOG per write:
 *                                            its number, the time in ms since boot, its latency in µs.
 *   writer check FILE [KIB]                  {"good":…,"torn":…,"empty":…,"newest":…}: each slot carries its number and checksum.
 *   writer latency LOG [FROM_MS [TO_MS]]     {"writes":…,"p50Us":…,"p99Us":…,"maxUs":…} of that span
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct header { uint64_t magic, number, slot, checksum; };
static const uint64_t magic = 0x6674697274736574u;

static void fail(const char *what) { perror(what); exit(1); }

static uint64_t now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static uint64_t next(uint64_t *state) {
  *state ^= *state << 13; *state ^= *state >> 7; *state ^= *state << 17;
  return *state;
}

/* Over everything of the slot but the checksum itself. */
static uint64_t checksum(const uint64_t *words, size_t bytes) {
  uint64_t sum = 0xcbf29ce484222325u;
  for (size_t i = 0; i < bytes / 8; i++) if (i != 3) sum = (sum ^ words[i]) * 0x100000001b3u;
  return sum;
}

static int run(const char *file, long mib, const char *log_file, long gap_ms, size_t bytes) {
  int fd = open(file, O_RDWR | O_CREAT, 0600);
  FILE *log = fopen(log_file, "a");
  struct stat is;
  if (fd < 0 || fstat(fd, &is) != 0) fail(file);
  if (!log) fail(log_file);
  if (S_ISREG(is.st_mode) && is.st_size < mib << 20 && ftruncate(fd, mib << 20) != 0) fail(file);
  uint64_t slots = ((uint64_t)mib << 20) / bytes, random = now_us() | 1, number = 0;
  uint64_t *words = aligned_alloc(4096, bytes);
  struct header *head = (struct header *)words;
  for (;;) {
    uint64_t slot = next(&random) % slots, content = random;
    for (size_t i = 4; i < bytes / 8; i++) words[i] = next(&content);
    *head = (struct header){magic, ++number, slot, 0};
    head->checksum = checksum(words, bytes);
    uint64_t began = now_us();
    if (pwrite(fd, words, bytes, (off_t)(slot * bytes)) != (ssize_t)bytes || fdatasync(fd) != 0) fail(file);
    uint64_t ended = now_us();
    fprintf(log, "%llu %llu %llu\n", (unsigned long long)number, (unsigned long long)(ended / 1000),
            (unsigned long long)(ended - began));
    fflush(log);
    if (gap_ms > 0) usleep((useconds_t)gap_ms * 1000);
  }
}

static int check(const char *file, size_t bytes) {
  int fd = open(file, O_RDONLY);
  if (fd < 0) fail(file);
  uint64_t *words = aligned_alloc(4096, bytes), good = 0, torn = 0, empty = 0, newest = 0;
  struct header *head = (struct header *)words;
  for (uint64_t slot = 0; pread(fd, words, bytes, (off_t)(slot * bytes)) == (ssize_t)bytes; slot++) {
    int zero = 1;
    for (size_t i = 0; i < bytes / 8 && zero; i++) zero = words[i] == 0;
    if (zero) empty++;
    else if (head->magic != magic || head->slot != slot || head->checksum != checksum(words, bytes)) torn++;
    else { good++; if (head->number > newest) newest = head->number; }
  }
  printf("{\"good\":%llu,\"torn\":%llu,\"empty\":%llu,\"newest\":%llu}\n", (unsigned long long)good,
         (unsigned long long)torn, (unsigned long long)empty, (unsigned long long)newest);
  return 0;
}

static int ascending(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

static int latency(const char *log_file, uint64_t from_ms, uint64_t to_ms) {
  FILE *log = fopen(log_file, "r");
  if (!log) fail(log_file);
  size_t count = 0, room = 1 << 16;
  uint64_t *all = malloc(room * sizeof *all);
  unsigned long long number, at, took;
  while (fscanf(log, "%llu %llu %llu", &number, &at, &took) == 3) {
    if (at < from_ms || at > to_ms) continue;
    if (count == room) all = realloc(all, (room *= 2) * sizeof *all);
    all[count++] = took;
  }
  qsort(all, count, sizeof *all, ascending);
  unsigned long long p50 = count ? all[count / 2] : 0, p99 = count ? all[count * 99 / 100] : 0;
  printf("{\"writes\":%zu,\"p50Us\":%llu,\"p99Us\":%llu,\"maxUs\":%llu}\n", count, p50, p99,
         count ? (unsigned long long)all[count - 1] : 0);
  return 0;
}

int main(int argc, char **argv) {
  if (argc >= 5 && !strcmp(argv[1], "run"))
    return run(argv[2], atol(argv[3]), argv[4], argc > 5 ? atol(argv[5]) : 0, (size_t)(argc > 6 ? atol(argv[6]) : 64) << 10);
  if (argc >= 3 && !strcmp(argv[1], "check")) return check(argv[2], (size_t)(argc > 3 ? atol(argv[3]) : 64) << 10);
  if (argc >= 3 && !strcmp(argv[1], "latency"))
    return latency(argv[2], argc > 3 ? strtoull(argv[3], NULL, 10) : 0, argc > 4 ? strtoull(argv[4], NULL, 10) : UINT64_MAX);
  fprintf(stderr, "usage: writer run FILE MIB LOG [GAP_MS [KIB]] | check FILE [KIB] | latency LOG [FROM_MS [TO_MS]]\n");
  return 2;
}
