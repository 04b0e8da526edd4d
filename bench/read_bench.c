/* bench-read seq FILE | random FILE COUNT | files FOLDER: reads and prints the milliseconds and the
 * bytes as JSON. seq: 1 MiB reads from the start to the end. random: COUNT reads of 4 KiB at
 * aligned offsets from a fixed generator. files: every entry of one folder opened, read to its end
 * and closed, in the order of the directory. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { kBuffer = 1 << 20, kSmall = 4096 };
static char buffer[kBuffer];

static void die(const char* what) {
  fprintf(stderr, "bench-read: %s: %s\n", what, strerror(errno));
  exit(1);
}

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static uint64_t read_to_end(int fd) {
  uint64_t total = 0;
  for (;;) {
    const ssize_t n = read(fd, buffer, kBuffer);
    if (n < 0) die("read");
    if (n == 0) return total;
    total += (uint64_t)n;
  }
}

static uint64_t read_random(int fd, long count) {
  struct stat st;
  if (fstat(fd, &st) != 0 || st.st_size < kSmall) die("file too small");
  const uint64_t blocks = (uint64_t)st.st_size / kSmall;
  uint64_t x = 88172645463325252U, total = 0;
  for (long i = 0; i < count; ++i) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    if (pread(fd, buffer, kSmall, (off_t)(x % blocks * kSmall)) != kSmall) die("pread");
    total += kSmall;
  }
  return total;
}

static uint64_t read_files(const char* folder) {
  DIR* d = opendir(folder);
  if (d == NULL) die(folder);
  uint64_t total = 0;
  for (const struct dirent* e = readdir(d); e != NULL; e = readdir(d)) {
    if (e->d_name[0] == '.') continue;
    const int fd = openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) die(e->d_name);
    total += read_to_end(fd);
    close(fd);
  }
  closedir(d);
  return total;
}

int main(int argc, char** argv) {
  if (argc < 3 || (strcmp(argv[1], "random") == 0) != (argc == 4)) {
    fprintf(stderr, "usage: %s seq FILE | random FILE COUNT | files FOLDER\n", argv[0]);
    return 2;
  }
  uint64_t bytes = 0;
  double began = now_ms();
  if (strcmp(argv[1], "files") == 0) {
    bytes = read_files(argv[2]);
  } else {
    const int fd = open(argv[2], O_RDONLY | O_CLOEXEC);
    if (fd < 0) die(argv[2]);
    began = now_ms();
    bytes = argc == 4 ? read_random(fd, strtol(argv[3], NULL, 10)) : read_to_end(fd);
    close(fd);
  }
  printf("{\"ms\":%.3f,\"bytes\":%llu}\n", now_ms() - began, (unsigned long long)bytes);
  return 0;
}
