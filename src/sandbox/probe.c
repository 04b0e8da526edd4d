// One attack or question at a time, for the hostile tests: run inside a container and, as a
// control, outside.
//   probe do NAME        one call from the table: prints "ok" (exit 0) or "errno=N" (exit 10)
//   probe COMMAND ...    the commands in main()
// Static and self-contained: the test's image holds nothing else.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static long call(long nr, long a, long b, long c, long d, long e) {
  return syscall(nr, a, b, c, d, e, 0L);
}
#define P(x) ((long)(intptr_t)(x))

static long do_bpf(void) {
  union bpf_attr attr;
  memset(&attr, 0, sizeof attr);
  attr.map_type = BPF_MAP_TYPE_ARRAY;
  attr.key_size = 4;
  attr.value_size = 4;
  attr.max_entries = 1;
  return call(SYS_bpf, BPF_MAP_CREATE, P(&attr), sizeof attr, 0, 0);
}
static long do_perf(void) {
  struct perf_event_attr attr;
  memset(&attr, 0, sizeof attr);
  attr.type = PERF_TYPE_SOFTWARE;
  attr.size = sizeof attr;
  attr.config = PERF_COUNT_SW_TASK_CLOCK;
  return call(SYS_perf_event_open, P(&attr), 0, -1, -1, 0);
}
static long do_uring(void) {
  char params[256] = {0};
  return call(SYS_io_uring_setup, 1, P(params), 0, 0, 0);
}
static long do_clone(long flags) {
  long pid = call(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
  if (pid == 0) _exit(0);
  if (pid > 0) waitpid((pid_t)pid, NULL, 0);
  return pid;
}
static long do_clone3(void) {
  struct clone_args args;
  memset(&args, 0, sizeof args);
  args.exit_signal = SIGCHLD;
  long pid = call(SYS_clone3, P(&args), sizeof args, 0, 0, 0);
  if (pid == 0) _exit(0);
  if (pid > 0) waitpid((pid_t)pid, NULL, 0);
  return pid;
}
static long do_setns(void) {
  int fd = open("/proc/self/ns/uts", O_RDONLY);
  return fd < 0 ? -1 : call(SYS_setns, fd, 0, 0, 0, 0);
}
static long do_vm_readv(void) {
  char from = 'x', to = 0;
  struct iovec l = {&to, 1}, r = {&from, 1};
  return syscall(SYS_process_vm_readv, getpid(), &l, 1L, &r, 1L, 0L);
}
static long do_pidfd_getfd(void) {
  long fd = call(SYS_pidfd_open, getpid(), 0, 0, 0, 0);
  return fd < 0 ? -1 : call(SYS_pidfd_getfd, fd, 0, 0, 0, 0);
}
static long do_handle(void) {
  struct {
    struct file_handle h;
    char room[128];
  } f;
  int mount_id = 0;
  memset(&f, 0, sizeof f);
  f.h.handle_bytes = 128;
  return call(SYS_name_to_handle_at, AT_FDCWD, P("/"), P(&f), P(&mount_id), 0);
}
static long do_splice(long nr) {
  int p[2], q[2];
  if (pipe(p) != 0 || pipe(q) != 0 || write(p[1], "x", 1) != 1) return -1;
  if (nr == SYS_tee) return call(SYS_tee, p[0], q[1], 1, 0, 0);
  if (nr == SYS_vmsplice) {
    struct iovec v = {"y", 1};
    return call(SYS_vmsplice, q[1], P(&v), 1, 0, 0);
  }
  return syscall(SYS_splice, p[0], NULL, q[1], NULL, 1L, 0L);
}
static long do_capset(void) {
  struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct d[2];
  if (syscall(SYS_capget, &h, d) != 0) return -1;
  return syscall(SYS_capset, &h, d);
}
static long do_fifo_scheduler(void) {
  struct sched_param p = {1};
  return call(SYS_sched_setscheduler, 0, SCHED_FIFO, P(&p), 0, 0);
}
static long do_sigev_timer(void) {
  char buf[256] = {0};
  return call(SYS_adjtimex, P(buf), 0, 0, 0, 0);
}
static long do_oom_score(void) {
  int fd = open("/proc/self/oom_score_adj", O_WRONLY);
  return fd < 0 ? -1 : write(fd, "-1000", 5);
}

static long do_mknod(unsigned mode, dev_t device) {
  const char* path = "/tmp/gbx-probe-node";
  unlink(path);
  long r = mknod(path, mode | 0600, device);
  if (r == 0) unlink(path);
  return r;
}

// One act for each name, in more than 70 lines: a closed list.
static long act(const char* n) {
#define IS(s) (strcmp(n, s) == 0)
  if (IS("socket-inet")) return socket(AF_INET, SOCK_STREAM, 0);
  if (IS("socket-inet6")) return socket(AF_INET6, SOCK_DGRAM, 0);
  if (IS("socket-netlink")) return socket(AF_NETLINK, SOCK_RAW, 0);
  if (IS("socket-packet")) return socket(AF_PACKET, SOCK_RAW, 0);
  if (IS("socket-raw")) return socket(AF_INET, SOCK_RAW, 1);
  if (IS("socket-vsock")) return socket(AF_VSOCK, SOCK_STREAM, 0);
  if (IS("socket-unix")) return socket(AF_UNIX, SOCK_STREAM, 0);
  if (IS("socketpair-unix")) {
    int s[2];
    return socketpair(AF_UNIX, SOCK_STREAM, 0, s);
  }
  if (IS("ptrace-traceme")) return ptrace(PTRACE_TRACEME, 0, NULL, NULL);
  if (IS("process-vm-readv")) return do_vm_readv();
  if (IS("pidfd-getfd")) return do_pidfd_getfd();
  if (IS("kcmp")) return call(SYS_kcmp, getpid(), getpid(), 0, 0, 0);
  if (IS("bpf")) return do_bpf();
  if (IS("perf")) return do_perf();
  if (IS("userfaultfd")) return call(SYS_userfaultfd, 1, 0, 0, 0, 0);
  if (IS("io-uring")) return do_uring();
  if (IS("unshare-user")) return unshare(CLONE_NEWUSER);
  if (IS("unshare-mount")) return unshare(CLONE_NEWNS);
  if (IS("unshare-files")) return unshare(CLONE_FILES);
  if (IS("clone-user")) return do_clone(CLONE_NEWUSER);
  if (IS("clone-net")) return do_clone(CLONE_NEWNET);
  if (IS("clone-cgroup")) return do_clone(CLONE_NEWCGROUP);
  if (IS("clone-plain")) return do_clone(0);
  if (IS("clone3")) return do_clone3();
  if (IS("setns")) return do_setns();
  if (IS("mount")) {
    unshare(CLONE_NEWNS);
    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    return mount("none", "/tmp", "tmpfs", 0, NULL);
  }
  if (IS("umount")) {
    unshare(CLONE_NEWNS);
    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    return umount2("/proc", MNT_DETACH);
  }
  if (IS("fsopen")) return call(SYS_fsopen, P("tmpfs"), 0, 0, 0, 0);
  if (IS("open-tree")) return call(SYS_open_tree, AT_FDCWD, P("/"), 1, 0, 0);
  if (IS("chroot")) return chroot("/");
  if (IS("mknod")) return do_mknod(S_IFCHR, makedev(1, 3));
  if (IS("mkfifo")) return do_mknod(S_IFIFO, 0);
  if (IS("keyctl")) return call(SYS_keyctl, 0, -3, 1, 0, 0);
  if (IS("add-key")) return call(SYS_add_key, P("user"), P("gbx-probe"), P("x"), 1, -1);
  if (IS("request-key")) {
    if (call(SYS_add_key, P("user"), P("gbx-probe"), P("x"), 1, -1) < 0) return -1;
    return call(SYS_request_key, P("user"), P("gbx-probe"), 0, -1, 0);
  }
  if (IS("shmget")) {
    long id = call(SYS_shmget, 0, 4096, 0600, 0, 0);
    if (id >= 0) call(SYS_shmctl, id, 0, 0, 0, 0);
    return id;
  }
  if (IS("msgget")) {
    long id = call(SYS_msgget, 0, 0600, 0, 0, 0);
    if (id >= 0) call(SYS_msgctl, id, 0, 0, 0, 0);
    return id;
  }
  if (IS("semget")) {
    long id = call(SYS_semget, 0, 1, 0600, 0, 0);
    if (id >= 0) call(SYS_semctl, id, 0, 0, 0, 0);
    return id;
  }
  if (IS("mq-open")) {
    long q = call(SYS_mq_open, P("gbx-probe"), O_CREAT | O_RDWR, 0600, 0, 0);
    call(SYS_mq_unlink, P("gbx-probe"), 0, 0, 0, 0);
    return q;
  }
  if (IS("setuid")) return call(SYS_setuid, 0, 0, 0, 0, 0);
  if (IS("setgroups")) return call(SYS_setgroups, 0, 0, 0, 0, 0);
  if (IS("capset")) return do_capset();
  if (IS("personality")) return personality(0x0040000);
  if (IS("personality-ask")) return personality(0xffffffff);
  if (IS("modify-ldt")) {
    char b[16];
    return call(SYS_modify_ldt, 0, P(b), sizeof b, 0, 0);
  }
  if (IS("arch-gs")) return call(SYS_arch_prctl, 0x1001, 0, 0, 0, 0);
  if (IS("splice")) return do_splice(SYS_splice);
  if (IS("tee")) return do_splice(SYS_tee);
  if (IS("vmsplice")) return do_splice(SYS_vmsplice);
  if (IS("name-to-handle")) return do_handle();
  if (IS("adjtimex")) return do_sigev_timer();
  if (IS("sethostname")) {
    unshare(CLONE_NEWUTS);
    return sethostname("x", 1);
  }
  if (IS("sched-fifo")) return do_fifo_scheduler();
  if (IS("nice-20")) return setpriority(PRIO_PROCESS, 0, -20);
  if (IS("mlockall")) return call(SYS_mlockall, 1, 0, 0, 0, 0);
  if (IS("seccomp")) {
    unsigned a = 0x7fff0000;
    return call(SYS_seccomp, 2, 0, P(&a), 0, 0);
  }
  if (IS("landlock")) return call(444, 0, 0, 1, 0, 0);
  if (IS("dumpable")) return prctl(PR_SET_DUMPABLE, 1);
  if (IS("setxattr")) {
    int f = open("/tmp/gbx-probe-x", O_CREAT | O_RDWR, 0600);
    close(f);
    long r = syscall(SYS_setxattr, "/tmp/gbx-probe-x", "trusted.x", "y", 1L, 0L);
    if (r == 0) unlink("/tmp/gbx-probe-x");
    return r;
  }
  if (IS("tiocsti")) {
    char c = 'x';
    return ioctl(0, 0x5412, &c);
  }
  if (IS("oom-score")) return do_oom_score();
  if (IS("true")) return 0;
#undef IS
  fprintf(stderr, "unknown probe %s\n", n);
  exit(99);
}

static int answer(long r) {
  if (r >= 0) {
    puts("ok");
    return 0;
  }
  printf("errno=%d\n", errno);
  return 10;
}

static int forkbomb(void) {
  int n = 0;
  for (; n < 100000; ++n) {
    pid_t p = fork();
    if (p < 0) break;
    if (p == 0) {
      pause();
      _exit(0);
    }
  }
  printf("forks=%d errno=%d\n", n, errno);
  fflush(stdout);
  return 0;
}

static int membomb(long mib) {
  for (long i = 0; i < mib; ++i) {
    char* p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return answer(-1);
    memset(p, 1, 1 << 20);
  }
  puts("ok");
  return 0;
}

static int fill(const char* path) {
  int fd = open(path, O_CREAT | O_WRONLY, 0600);
  static char block[65536];
  memset(block, 'x', sizeof block);
  long long total = 0;
  ssize_t n = 0;
  signal(SIGXFSZ, SIG_IGN);
  while (fd >= 0 && (n = write(fd, block, sizeof block)) > 0) total += n;
  printf("bytes=%lld errno=%d\n", total, errno);
  return 0;
}

static int inodes(const char* dir) {
  int n = 0;
  for (; n < 1000000; ++n) {
    char path[256];
    snprintf(path, sizeof path, "%s/f%d", dir, n);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    if (fd < 0) break;
    close(fd);
  }
  printf("files=%d errno=%d\n", n, errno);
  return 0;
}

static int flood(long long bytes) {
  static char block[65536];
  memset(block, 'L', sizeof block);
  while (bytes > 0) {
    long long n = bytes < (long long)sizeof block ? bytes : (long long)sizeof block;
    ssize_t w = write(1, block, (size_t)n);
    if (w <= 0) return 1;
    bytes -= w;
  }
  return 0;
}

static int show(const char* path) {
  int fd = open(path, O_RDONLY);
  if (fd < 0) return answer(-1);
  char buffer[4096];
  ssize_t n;
  while ((n = read(fd, buffer, sizeof buffer)) > 0) {
    if (write(1, buffer, (size_t)n) != n) return 1;
  }
  return 0;
}

static int list(const char* path) {
  DIR* d = opendir(path);
  if (d == NULL) return answer(-1);
  struct dirent* e;
  char own[16];
  snprintf(own, sizeof own, "%d", dirfd(d));
  while ((e = readdir(d)) != NULL) {
    if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
        !(strcmp(path, "/proc/self/fd") == 0 && strcmp(e->d_name, own) == 0)) {
      puts(e->d_name);
    }
  }
  return 0;
}

static int open_write(const char* path) {
  int fd = open(path, O_WRONLY);
  return answer(fd);
}

static int put(const char* path, const char* text) {
  int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
  if (fd < 0) return answer(-1);
  return answer(write(fd, text, strlen(text)));
}

// A grandchild that left the session, ignores what it can and holds a file open for writing in
// /out.
static int daemonise(int wait_too) {
  int p[2];
  if (pipe(p) != 0) return 1;
  if (fork() == 0) {
    setsid();
    if (fork() == 0) {
      for (int s = 1; s < 32; ++s) signal(s, SIG_IGN);
      int fd = open("/out/daemon", O_CREAT | O_WRONLY, 0600);
      (void)!write(p[1], "r", 1);
      for (;;) {
        (void)!write(fd, "d", 1);
        usleep(1000);
      }
    }
    _exit(0);
  }
  char c;
  (void)!read(p[0], &c, 1);
  puts("daemon runs");
  fflush(stdout);
  if (wait_too) {
    for (;;) pause();
  }
  return 0;
}

// Every number of the list, each in its own process: "NR=ERRNO" lines, "NR=ok", "NR=sigN".
static int sweep(char* numbers) {
  for (char* t = strtok(numbers, ","); t != NULL; t = strtok(NULL, ",")) {
    long nr = atol(t);
    fflush(stdout);
    pid_t p = fork();
    if (p == 0) {
      errno = 0;
      long r = call(nr, 0, 0, 0, 0, 0);
      printf("%ld=%d\n", nr, r >= 0 ? 0 : errno);
      fflush(stdout);
      _exit(0);
    }
    int st = 0;
    waitpid(p, &st, 0);
    if (WIFSIGNALED(st)) printf("%ld=sig%d\n", nr, WTERMSIG(st));
  }
  return 0;
}

static int foreign(const char* kind) {
  if (strcmp(kind, "i386") == 0) {
    long r = 20;  // getpid there
    __asm__ volatile("int $0x80" : "+a"(r) : : "memory", "r8", "r9", "r10", "r11");
    printf("returned %ld\n", r);
  } else {
    printf("returned %ld\n", syscall(0x40000000L + 39));
  }
  return 0;
}

int main(int argc, char** argv) {
  const char* c = argc > 1 ? argv[1] : "";
  const char* a = argc > 2 ? argv[2] : "";
  const char* b = argc > 3 ? argv[3] : "";
#define CMD(s) (strcmp(c, s) == 0)
  if (CMD("do")) return answer(act(a));
  if (CMD("exit")) return atoi(a);
  if (CMD("signal")) return kill(getpid(), atoi(a)), raise(atoi(a)), 98;
  if (CMD("crash")) {
    signal(SIGSEGV, SIG_DFL);
    struct rlimit r;
    getrlimit(RLIMIT_CORE, &r);
    printf("core=%lld\n", (long long)r.rlim_max);
    fflush(stdout);
    *(volatile int*)8 = 1;
    return 98;
  }
  if (CMD("forkbomb")) return forkbomb();
  if (CMD("membomb")) return membomb(atol(a));
  if (CMD("oom-child")) {
    if (fork() == 0) return membomb(atol(a));
    int st;
    wait(&st);
    printf("child sig=%d\n", WIFSIGNALED(st) ? WTERMSIG(st) : 0);
    return atoi(b);
  }
  if (CMD("fill")) return fill(a);
  if (CMD("inodes")) return inodes(a);
  if (CMD("flood")) return flood(atoll(a));
  if (CMD("show")) return show(a);
  if (CMD("list")) return list(a);
  if (CMD("write")) return open_write(a);
  if (CMD("put")) return put(a, b);
  if (CMD("daemon")) return daemonise(strcmp(a, "wait") == 0);
  if (CMD("sweep")) return sweep(argv[2]);
  if (CMD("foreign")) return foreign(a);
  if (CMD("spin")) {
    for (;;) {
    }
  }
  if (CMD("sleep")) {
    for (;;) pause();
  }
  if (CMD("fds")) {
    int n = 0;
    for (int fd = 0; fd < 1024; ++fd) n += fcntl(fd, F_GETFD) >= 0;
    printf("open=%d\n", n);
    return 0;
  }
  if (CMD("openfds")) {
    int n = 0;
    while (dup(0) >= 0) ++n;
    printf("dups=%d errno=%d\n", n, errno);
    return 0;
  }
  if (CMD("env")) {
    for (char** e = environ; *e != NULL; ++e) puts(*e);
    return 0;
  }
  if (CMD("cwd")) {
    char d[4096];
    puts(getcwd(d, sizeof d) != NULL ? d : "?");
    return 0;
  }
#undef CMD
  fprintf(stderr, "usage: probe COMMAND\n");
  return 99;
}
