/*
 * The same work in C, measured by itself: prints nanoseconds: of the whole, of a pass (bitmap), or of
 * an operation (buddy).
 *   pingpong COUNT BYTES   two processes on a unix socket pair, one message at a time
 *   stream TOTAL CHUNK     one process writes, the other reads
 *   buddy PATTERN PAGES    pair0, pair10, sequential, random: a buddy allocator and nothing else
 *   bitmap KERNEL WORDS    popcount, or, andnot, scan over 32-bit words, mean of several passes
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

static void read_all(int fd, char *to, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    ssize_t got = read(fd, to + done, bytes - done);
    if (got <= 0) exit(1);
    done += (size_t)got;
  }
}

static void write_all(int fd, const char *from, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    ssize_t put = write(fd, from + done, bytes - done);
    if (put <= 0) exit(1);
    done += (size_t)put;
  }
}

static double pingpong(int fd[2], long count, size_t bytes) {
  char *buffer = calloc(1, bytes);
  if (fork() == 0) {
    for (long i = 0; i < count; i++) {
      read_all(fd[1], buffer, bytes);
      write_all(fd[1], buffer, bytes);
    }
    _exit(0);
  }
  double start = now_ns();
  for (long i = 0; i < count; i++) {
    write_all(fd[0], buffer, bytes);
    read_all(fd[0], buffer, bytes);
  }
  return now_ns() - start;
}

static double stream(int fd[2], size_t total, size_t chunk) {
  char *buffer = malloc(chunk);
  memset(buffer, 1, chunk);
  if (fork() == 0) {
    for (size_t done = 0; done < total; done += chunk) write_all(fd[1], buffer, chunk);
    _exit(0);
  }
  double start = now_ns();
  for (size_t done = 0; done < total; done += chunk) read_all(fd[0], buffer, chunk);
  return now_ns() - start;
}

static volatile uint64_t sink;

static double bitmap(const char *kernel, size_t words, int passes) {
  uint32_t *a = malloc(words * 4), *b = malloc(words * 4);
  uint32_t x = 1;
  for (size_t i = 0; i < words; i++) {
    x ^= x << 13, x ^= x >> 17, x ^= x << 5;
    a[i] = x;
    b[i] = x * 2654435761u;
    if (!strcmp(kernel, "scan")) a[i] = i % 32 == 0 ? 1u << (x & 31) : 0;
  }
  double start = now_ns();
  for (int pass = 0; pass < passes; pass++) {
    uint64_t total = 0;
    if (!strcmp(kernel, "popcount"))
      for (size_t i = 0; i < words; i++) total += (uint64_t)__builtin_popcount(a[i]);
    else if (!strcmp(kernel, "andnot"))
      for (size_t i = 0; i < words; i++) total += (uint64_t)__builtin_popcount(a[i] & ~b[i]);
    else if (!strcmp(kernel, "or"))
      for (size_t i = 0; i < words; i++) {
        uint32_t after = a[i] | b[i];
        total += (uint64_t)__builtin_popcount(after ^ a[i]);
        a[i] = after;
      }
    else
      for (size_t i = 0; i < words; i++)
        for (uint32_t w = a[i]; w; w &= w - 1) total += i * 32 + (size_t)__builtin_ctz(w);
    sink = total;
    __asm__ volatile("" ::: "memory");
  }
  return (now_ns() - start) / passes;
}

#define ORDERS 11
static int32_t *next_, *prev_, heads[ORDERS];
static uint8_t *order_; /* of a free head; ORDERS otherwise */

static void link_block(int32_t at, int order) {
  order_[at] = (uint8_t)order;
  prev_[at] = -1;
  next_[at] = heads[order];
  if (heads[order] >= 0) prev_[heads[order]] = at;
  heads[order] = at;
}

static void unlink_block(int32_t at) {
  if (prev_[at] >= 0) next_[prev_[at]] = next_[at];
  else heads[order_[at]] = next_[at];
  if (next_[at] >= 0) prev_[next_[at]] = prev_[at];
  order_[at] = ORDERS;
}

static int32_t buddy_alloc(int order) {
  int high = order;
  while (high < ORDERS && heads[high] < 0) high++;
  if (high == ORDERS) return -1;
  int32_t at = heads[high];
  unlink_block(at);
  while (high > order) high--, link_block(at + (1 << high), high);
  return at;
}

static void buddy_free(int32_t at, int order) {
  for (; order < ORDERS - 1; order++) {
    int32_t buddy = at ^ (1 << order);
    if (order_[buddy] != order) break;
    unlink_block(buddy);
    at &= ~(1 << order);
  }
  link_block(at, order);
}

static double buddy(const char *pattern, size_t pages) {
  next_ = malloc(pages * 4), prev_ = malloc(pages * 4), order_ = malloc(pages);
  memset(order_, ORDERS, pages);
  for (int i = 0; i < ORDERS; i++) heads[i] = -1;
  for (size_t at = 0; at < pages; at += 1024) link_block((int32_t)at, 10);
  long pairs = 1000000, set = 1 << 18;
  if (!strncmp(pattern, "pair", 4)) {
    int order = atoi(pattern + 4);
    double start = now_ns();
    for (long i = 0; i < pairs; i++) buddy_free(buddy_alloc(order), order);
    return (now_ns() - start) / (2 * pairs);
  }
  int32_t *frames = malloc((size_t)set * 4);
  double best = 0;
  uint32_t x = 1;
  for (int round = 0; round < 2; round++) { /* the first one touches the memory */
    double start = now_ns();
    for (long i = 0; i < set; i++) frames[i] = buddy_alloc(0);
    double allocated = now_ns();
    if (!strcmp(pattern, "random"))
      for (long i = set - 1; i > 0; i--) {
        x ^= x << 13, x ^= x >> 17, x ^= x << 5;
        long j = x % (uint32_t)(i + 1);
        int32_t frame = frames[i];
        frames[i] = frames[j];
        frames[j] = frame;
      }
    double shuffled = now_ns();
    for (long i = 0; i < set; i++) buddy_free(frames[i], 0);
    best = (now_ns() - shuffled + allocated - start) / (2 * set);
  }
  return best;
}

int main(int argc, char **argv) {
  int fd[2];
  if (argc != 4 || socketpair(AF_UNIX, SOCK_STREAM, 0, fd) != 0) return 2;
  double ns;
  if (!strcmp(argv[1], "pingpong")) ns = pingpong(fd, atol(argv[2]), (size_t)atol(argv[3]));
  else if (!strcmp(argv[1], "stream")) ns = stream(fd, strtoull(argv[2], 0, 10), (size_t)atol(argv[3]));
  else if (!strcmp(argv[1], "bitmap")) ns = bitmap(argv[2], (size_t)atol(argv[3]), 10);
  else if (!strcmp(argv[1], "buddy")) ns = buddy(argv[2], (size_t)atol(argv[3]));
  else return 2;
  printf("%.2f\n", ns);
  return 0;
}
