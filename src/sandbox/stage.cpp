#include "sandbox/stage.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/log.h"

// <sys/mount.h> and <linux/mount.h> cannot be included together everywhere; this is all that is
// needed of it.
extern "C" int mount(const char* source, const char* target, const char* type, unsigned long flags,
                     const void* data) noexcept;

namespace gbx::sandbox {
namespace {

Error broken(const std::string& what, int error) {
  return fail(Reason::kSandboxSetup, what + ": " + strerror(error));
}

// A directory that every system has and that no path of the spec lies under: our tmpfs covers it,
// in our namespace only. So no directory is ever made on the host, and a killed supervisor leaves
// none.
Result<std::string> pick_base(const ContainerSpec& spec) {
  for (const std::string base : {"/mnt", "/media", "/srv", "/opt", "/dev/shm"}) {
    struct stat st {};
    if (stat(base.c_str(), &st) != 0 || !S_ISDIR(st.st_mode)) continue;
    bool used = spec.rootfs.substr(0, base.size() + 1) == base + "/";
    for (const DataMount& m : spec.mounts) {
      used = used || m.host_path.substr(0, base.size() + 1) == base + "/";
    }
    if (!used) return base;
  }
  return fail(Reason::kSandboxSetup, "no directory is free to mount on")
      .with("one of /mnt /media /srv /opt /dev/shm", "none");
}

// A detached copy of the mount at `path`, without what is mounted below it.
Result<Fd> clone_tree(const std::string& path) {
  // SAFETY: raw calls of the mount API; paths are NUL-terminated and structures fully initialised.
  Fd tree(static_cast<int>(syscall(SYS_open_tree, AT_FDCWD, path.c_str(),
                                   OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW)));
  if (!tree.valid()) return broken("copy of the mount at " + path, errno);
  return tree;
}
Status set_attributes(const Fd& tree, std::uint64_t attributes) {
  mount_attr attr{};
  attr.attr_set = attributes;
  if (syscall(SYS_mount_setattr, tree.get(), "", AT_EMPTY_PATH, &attr, sizeof attr) != 0) {
    return broken("mount attributes", errno);
  }
  return ok_status();
}
Status attach(int tree, const std::string& where) {
  if (syscall(SYS_move_mount, tree, "", AT_FDCWD, where.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0) {
    return broken("mount at " + where, errno);
  }
  return ok_status();
}
Status make_dir(const std::string& path, mode_t mode) {
  if (mkdir(path.c_str(), mode) != 0) return broken("directory " + path, errno);
  return ok_status();
}

// The runtime mounts on these. A link in their place could lead it elsewhere, so an image that has
// one is refused.
Status make_mount_points(const Fd& rootfs) {
  for (const char* name : {"proc", "dev", "tmp", "out", "data"}) {
    if (mkdirat(rootfs.get(), name, 0755) != 0 && errno != EEXIST) {
      return broken(std::string("mount point /") + name, errno);
    }
    auto dir = open_beneath(rootfs.get(), name, O_RDONLY | O_DIRECTORY);
    if (!dir.ok()) {
      return fail(Reason::kSandboxSetup,
                  std::string("the image has something other than a directory at /") + name);
    }
  }
  return ok_status();
}

Status make_devices(const std::string& dev) {
  static constexpr struct {
    const char* name;
    unsigned minor;
  } kDevices[] = {{"null", 3}, {"zero", 5}, {"full", 7}, {"random", 8}, {"urandom", 9}};
  for (const auto& d : kDevices) {
    const std::string path = dev + "/" + d.name;
    if (mknod(path.c_str(), S_IFCHR | 0666, makedev(1, d.minor)) != 0) return broken(path, errno);
  }
  static constexpr const char* kLinks[][2] = {{"/proc/self/fd", "fd"},
                                              {"/proc/self/fd/0", "stdin"},
                                              {"/proc/self/fd/1", "stdout"},
                                              {"/proc/self/fd/2", "stderr"}};
  for (const auto& l : kLinks) {
    if (symlink(l[0], (dev + "/" + l[1]).c_str()) != 0) return broken(dev + "/" + l[1], errno);
  }
  return ok_status();
}

Status private_view(const HostProbe& host) {
  if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return broken("private mounts", errno);
  }
  // Of our own PID namespace: the runtime looks its container up there.
  if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0) {
    return broken("/proc", errno);
  }
  // Covered, not unmounted: the runtime makes a directory there all the same, which must not end up
  // on the host.
  for (const std::string& point : host.to_hide) {
    if (mount("none", point.c_str(), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=64k") != 0) {
      return broken("hiding " + point, errno);
    }
  }
  return ok_status();
}

Status attach_inputs(const ContainerSpec& spec, const std::vector<Fd>& trees, const Stage& stage) {
  for (std::size_t i = 0; i < trees.size(); ++i) {
    const std::string& name = spec.mounts[i].name;
    struct stat st {};
    if (fstat(trees[i].get(), &st) != 0 || !S_ISDIR(st.st_mode)) {
      return fail(Reason::kSandboxSetup, spec.mounts[i].host_path + " is not a directory");
    }
    GBX_TRY(make_dir(stage.data + "/" + name, 0755));
    GBX_TRY(make_dir(stage.inputs + "/" + name, 0755));
    GBX_TRY(attach(trees[i].get(), stage.inputs + "/" + name));
  }
  return ok_status();
}

}  // namespace

Result<Staged> prepare_stage(const ContainerSpec& spec, const HostProbe& host, int out_mount) {
  umask(0);
  GBX_ASSIGN(const std::string base, pick_base(spec));
  GBX_TRY(private_view(host));
  GBX_ASSIGN(const Fd rootfs, clone_tree(spec.rootfs));
  GBX_TRY(make_mount_points(rootfs));
  GBX_TRY(set_attributes(rootfs, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV));
  std::vector<Fd> data;
  for (const DataMount& m : spec.mounts) {
    GBX_ASSIGN(Fd tree, clone_tree(m.host_path));
    GBX_TRY(set_attributes(
        tree, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
    data.push_back(std::move(tree));
  }
  const std::string source = cgroup_name(spec.id);  // residue() looks for it
  if (mount(source.c_str(), base.c_str(), "tmpfs", MS_NOSUID | MS_NOEXEC, "size=8m,mode=0755") !=
      0) {
    return broken("tmpfs at " + base, errno);
  }
  Staged s;
  s.stage = {base + "/rootfs", base + "/dev",    base + "/out",  base + "/tmp",
             base + "/data",   base + "/inputs", host.limit_swap};
  s.runtime = {base + "/state", base + "/runtime.log", base + "/bundle", base + "/pid"};
  for (const std::string& dir :
       {s.stage.rootfs, s.stage.dev, s.stage.out, s.stage.tmp, s.stage.data, s.stage.inputs}) {
    GBX_TRY(make_dir(dir, 0755));
  }
  for (const std::string& dir : {s.runtime.state, s.runtime.bundle}) GBX_TRY(make_dir(dir, 0700));
  GBX_TRY(make_devices(s.stage.dev));
  GBX_TRY(attach(rootfs.get(), s.stage.rootfs));
  GBX_TRY(attach(out_mount, s.stage.out));
  // Ours and not the runtime's: runc gives a tmpfs of its own the mode of the image's directory.
  const std::string tmp_options =
      "size=" + std::to_string(spec.tmp_bytes) + ",nr_inodes=65536,mode=1777";
  if (mount(source.c_str(), s.stage.tmp.c_str(), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
            tmp_options.c_str()) != 0) {
    return broken("/tmp", errno);
  }
  GBX_TRY(attach_inputs(spec, data, s.stage));
  const std::string config = canonical(oci_config(spec, s.stage));
  const Fd file(open((s.runtime.bundle + "/config.json").c_str(),
                     O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file.valid()) return broken("config.json", errno);
  GBX_TRY(write_all(file.get(), as_bytes(config)));
  return s;
}

}  // namespace gbx::sandbox
