/* bench-null-fuse POINT BIG_BYTES FILES FILE_BYTES: the least that a FUSE file system can do. It
 * shows /big/data and /small/f0000… of those sizes and answers reads with zeros from memory:
 * whoever serves bytes through FUSE cannot be faster, so it is the measure for glovebox-decryptfs.
 * Same mount options, capabilities (files need no open), caching and threads as that. */
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kRoot = 1, kBigFolder = 2, kSmallFolder = 3, kBig = 4, kFirstSmall = 5, kMaxRead = 1 << 20 };
static const double kTimeout = 86400.0;
static off_t big_bytes, file_bytes;
static fuse_ino_t files;
static char zeros[kMaxRead];

static int attributes(fuse_ino_t ino, struct stat* st) {
  memset(st, 0, sizeof *st);
  st->st_ino = ino;
  st->st_nlink = 1;
  if (ino < kBig) {
    st->st_mode = S_IFDIR | 0555;
  } else if (ino < kFirstSmall + files) {
    st->st_mode = S_IFREG | 0444;
    st->st_size = ino == kBig ? big_bytes : file_bytes;
  } else {
    return ENOENT;
  }
  return 0;
}

static fuse_ino_t find(fuse_ino_t parent, const char* name) {
  unsigned n = 0;
  char rest = 0;
  if (parent == kRoot && strcmp(name, "big") == 0) return kBigFolder;
  if (parent == kRoot && strcmp(name, "small") == 0) return kSmallFolder;
  if (parent == kBigFolder && strcmp(name, "data") == 0) return kBig;
  if (parent == kSmallFolder && sscanf(name, "f%4u%c", &n, &rest) == 1 && n < files) {
    return kFirstSmall + n;
  }
  return 0;
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  struct fuse_entry_param e;
  memset(&e, 0, sizeof e);
  e.ino = find(parent, name);
  e.attr_timeout = e.entry_timeout = kTimeout;
  if (e.ino == 0 || attributes(e.ino, &e.attr) != 0) {
    fuse_reply_err(req, ENOENT);
    return;
  }
  fuse_reply_entry(req, &e);
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info* fi) {
  (void)fi;
  struct stat st;
  const int error = attributes(ino, &st);
  if (error != 0) {
    fuse_reply_err(req, error);
  } else {
    fuse_reply_attr(req, &st, kTimeout);
  }
}

static void on_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info* fi) {
  (void)ino;
  fi->keep_cache = 1;
  fi->cache_readdir = 1;
  fuse_reply_open(req, fi);
}

static void on_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                    struct fuse_file_info* fi) {
  (void)fi;
  const off_t end = ino == kBig ? big_bytes : file_bytes;
  size_t n = offset >= end ? 0 : (size_t)(end - offset);
  if (n > size) n = size;
  if (n > kMaxRead) n = kMaxRead;
  fuse_reply_buf(req, zeros, n);
}

/* Entry `i` of a folder; 0 when there is no more. */
static fuse_ino_t entry(fuse_ino_t folder, off_t i, char* name, size_t room) {
  if (folder == kRoot && i < 2) {
    snprintf(name, room, "%s", i == 0 ? "big" : "small");
  } else if (folder == kBigFolder && i == 0) {
    snprintf(name, room, "data");
  } else if (folder == kSmallFolder && i < (off_t)files) {
    snprintf(name, room, "f%04u", (unsigned)i);
  } else {
    return 0;
  }
  return find(folder, name);
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, int plus) {
  char buffer[65536], name[32];
  if (size > sizeof buffer) size = sizeof buffer;
  size_t used = 0;
  for (off_t i = offset;; ++i) {
    const fuse_ino_t child = entry(ino, i, name, sizeof name);
    if (child == 0) break;
    struct fuse_entry_param e;
    memset(&e, 0, sizeof e);
    e.ino = child;
    e.attr_timeout = e.entry_timeout = kTimeout;
    attributes(child, &e.attr);
    const size_t n = plus
                         ? fuse_add_direntry_plus(req, buffer + used, size - used, name, &e, i + 1)
                         : fuse_add_direntry(req, buffer + used, size - used, name, &e.attr, i + 1);
    if (n > size - used) break;
    used += n;
  }
  fuse_reply_buf(req, buffer, used);
}
static void on_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                       struct fuse_file_info* fi) {
  (void)fi;
  list(req, ino, size, offset, 0);
}
static void on_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                           struct fuse_file_info* fi) {
  (void)fi;
  list(req, ino, size, offset, 1);
}

static void on_init(void* user, struct fuse_conn_info* conn) {
  (void)user;
  const unsigned unwanted = FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
                            FUSE_CAP_READDIRPLUS_AUTO;
  const unsigned wanted = FUSE_CAP_READDIRPLUS | FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS |
                          FUSE_CAP_NO_OPEN_SUPPORT;
  conn->want &= ~unwanted;
  conn->want |= conn->capable & wanted;
  conn->max_read = kMaxRead;
}

static const struct fuse_lowlevel_ops operations = {.init = on_init,
                                                    .lookup = on_lookup,
                                                    .getattr = on_getattr,
                                                    .opendir = on_opendir,
                                                    .read = on_read,
                                                    .readdir = on_readdir,
                                                    .readdirplus = on_readdirplus};

int main(int argc, char** argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: %s POINT BIG_BYTES FILES FILE_BYTES\n", argv[0]);
    return 2;
  }
  big_bytes = strtoll(argv[2], NULL, 10);
  files = strtoul(argv[3], NULL, 10);
  file_bytes = strtoll(argv[4], NULL, 10);
  char* own[] = {argv[0], "-o", "ro,allow_other,default_permissions,max_read=1048576", NULL};
  struct fuse_args args = FUSE_ARGS_INIT(3, own);
  struct fuse_session* session = fuse_session_new(&args, &operations, sizeof operations, NULL);
  if (session == NULL || fuse_set_signal_handlers(session) != 0 ||
      fuse_session_mount(session, argv[1]) != 0) {
    return 1;
  }
  puts("ready");
  fflush(stdout);
  struct fuse_loop_config* config = fuse_loop_cfg_create();
  fuse_loop_cfg_set_max_threads(config, 4);
  fuse_session_loop_mt(session, config);
  fuse_loop_cfg_destroy(config);
  fuse_session_unmount(session);
  fuse_remove_signal_handlers(session);
  fuse_session_destroy(session);
  return 0;
}
