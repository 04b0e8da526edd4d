// Every control is missed when the kernel does not show it. The readings here are altered;
// sandbox_test holds real ones against the same checks.
#include "sandbox/controls.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <set>

#include "sandbox/oci_config.h"
#include "sandbox/seccomp_profile.h"

namespace gbx::sandbox {
namespace {

Namespaces namespaces(const std::string& number) {
  Namespaces n;
  for (const char* type : {"user", "pid", "net", "ipc", "uts", "mnt", "cgroup"}) {
    n[type] = std::string(type) + ":[" + number + "]";
  }
  return n;
}

struct Case {
  ContainerSpec spec;
  Expected expected{spec, true, {namespaces("1"), namespaces("2")}, "pipe:[11]", "pipe:[12]"};
  Reading reading;

  Case() {
    spec.id = "x";
    spec.mounts = {{"wdbc", "/somewhere"}};
    spec.uid_base = 300'000;
    spec.uid = 1000;
    spec.out_bytes = 1 << 20;
    spec.tmp_bytes = 2 << 20;
    spec.memory_bytes = 64 << 20;
    spec.pids_max = 32;
    spec.cpu_millis = 1500;
    reading.namespaces = namespaces("3");
    reading.uid_map = reading.gid_map = "0 300000 65536";
    reading.mounts = {
        {"/", "tmpfs", "gbx", "rw", "ro,nosuid,nodev"},
        {"/proc", "proc", "proc", "rw,hidepid=invisible,subset=pid", "rw,nosuid,nodev,noexec"},
        {"/dev", "tmpfs", "gbx", "rw", "ro,nosuid,noexec"},
        {"/tmp", "tmpfs", "gbx", "rw,size=2048k,nr_inodes=65536", "rw,nosuid,nodev,noexec"},
        {"/out", "tmpfs", "gbx", "rw,size=1024k,nr_inodes=64", "rw,nosuid,nodev,noexec"},
        {"/data", "tmpfs", "gbx", "rw", "ro,nosuid,nodev,noexec"},
        {"/data/wdbc", "fuse", "gbx", "ro", "ro,nosuid,nodev,noexec"}};
    reading.interfaces = {"lo"};
    reading.cgroups = {"4:memory:/glovebox-x", "1:cpu:/glovebox-x"};
    reading.limits = {67 << 20, 67 << 20, 32, 150'000, 100'000};
    reading.stdin_file = "pipe:[10]";
    reading.stdout_file = "pipe:[11]";
    reading.stderr_file = "pipe:[12]";
    reading.seccomp = seccomp_json();
    reading.status = {{"State", "S (sleeping)"},
                      {"Uid", "301000 301000 301000 301000"},
                      {"Gid", "301000 301000 301000 301000"},
                      {"CapInh", "0000000000000000"},
                      {"CapPrm", "0000000000000000"},
                      {"CapEff", "0000000000000000"},
                      {"CapBnd", "0000000000000000"},
                      {"CapAmb", "0000000000000000"},
                      {"NoNewPrivs", "1"},
                      {"Seccomp", "2"}};
  }
  Case(const Case&) = delete;
  Case& operator=(const Case&) = delete;

  // The control that is found missing, or nothing.
  std::string missed() const {
    for (const Moment moment : {Moment::kCreated, Moment::kRunning}) {
      const auto r = check_controls(reading, expected, moment);
      if (r.ok()) continue;
      EXPECT_EQ(r.reason(), Reason::kSandboxSetup);
      EXPECT_FALSE(r.error().expected.empty());
      EXPECT_FALSE(r.error().actual.empty());
      return r.error().what.substr(0, r.error().what.find(':'));
    }
    return {};
  }
};

std::string missed_when(const std::function<void(Reading&)>& alter) {
  Case c;
  alter(c.reading);
  return c.missed();
}

TEST(Controls, AWholeReadingShowsEveryOneOfThem) {
  Case c;
  EXPECT_EQ(c.missed(), "");
  std::set<std::string> names;
  for (const Moment moment : {Moment::kCreated, Moment::kRunning}) {
    const auto found = check_controls(c.reading, c.expected, moment);
    ASSERT_TRUE(found.ok()) << found.error().line();
    names.insert(found->begin(), found->end());
  }
  EXPECT_EQ(names.size(), controls().size());
}

TEST(Controls, AnEmptyReadingShowsNone) {
  const Case c;
  for (const Control& control : controls()) {
    EXPECT_FALSE(control.check(Reading{}, c.expected).ok()) << control.name;
  }
}

TEST(Controls, SharedNamespacesAreMissed) {
  const std::map<std::string, std::string> control_of = {
      {"user", "user-namespace"},      {"net", "no-network"},         {"pid", "private-namespaces"},
      {"ipc", "private-namespaces"},   {"uts", "private-namespaces"}, {"mnt", "private-namespaces"},
      {"cgroup", "private-namespaces"}};
  for (const auto& [type, control] : control_of) {
    for (const char* whose : {"1", "2"}) {
      EXPECT_EQ(missed_when([&, &type = type](Reading& r) {
                  r.namespaces[type] = namespaces(whose)[type];
                }),
                control)
          << type;
    }
    EXPECT_EQ(missed_when([&, &type = type](Reading& r) { r.namespaces.erase(type); }), control)
        << type;
  }
}

TEST(Controls, IdsThatMapElsewhereAreMissed) {
  for (const char* map : {"0 0 4294967295", "0 300000 65537", "0 0 1 1 300000 65535", ""}) {
    EXPECT_EQ(missed_when([&](Reading& r) { r.uid_map = map; }), "user-namespace") << map;
    EXPECT_EQ(missed_when([&](Reading& r) { r.gid_map = map; }), "user-namespace") << map;
  }
}

TEST(Controls, PrivilegesAreMissed) {
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    EXPECT_EQ(missed_when([&](Reading& r) { r.status[set] = "0000000000200000"; }),
              "no-capabilities")
        << set;
    EXPECT_EQ(missed_when([&](Reading& r) { r.status.erase(set); }), "no-capabilities") << set;
  }
  EXPECT_EQ(missed_when([](Reading& r) { r.status["Uid"] = "301000 0 301000 301000"; }),
            "no-capabilities");
  EXPECT_EQ(missed_when([](Reading& r) { r.status["Gid"] = "0 0 0 0"; }), "no-capabilities");
  EXPECT_EQ(missed_when([](Reading& r) { r.status["NoNewPrivs"] = "0"; }), "no-new-privs");
  EXPECT_EQ(missed_when([](Reading& r) { r.status.erase("NoNewPrivs"); }), "no-new-privs");
}

TEST(Controls, AProfileCountsWhereItIsAskedForAndAsTheKernelShowsIt) {
  Case c;
  const auto running = [&] { return check_controls(c.reading, c.expected, Moment::kRunning); };
  const auto without = running().value();
  EXPECT_EQ(std::count(without.begin(), without.end(), "apparmor"), 0);
  c.spec.apparmor = "glovebox-workload";
  for (const char* label : {"", "unconfined", "glovebox-workload (complain)", "glovebox-workload",
                            "glovebox-workload//&other (enforce)"}) {
    c.reading.label = label;
    const auto refused = running();
    ASSERT_EQ(refused.reason(), Reason::kSandboxSetup) << label;
    EXPECT_NE(refused.error().line().find("apparmor"), std::string::npos);
  }
  c.reading.label = "glovebox-workload (enforce)";
  const auto with = running();
  ASSERT_TRUE(with.ok()) << with.error().line();
  EXPECT_EQ(with->back(), "apparmor");
}

TEST(Controls, AProfileIsLoadedWhereTheKernelEnforcesIt) {
  const std::string list = ::testing::TempDir() + "profiles-" + std::to_string(getpid());
  const auto loaded = [&](const std::string& text) {
    EXPECT_TRUE(write_file_atomic(list, as_bytes(text), 0600).ok());
    return profile_is_loaded(kWorkloadProfile, list);
  };
  EXPECT_TRUE(loaded("man (enforce)\nglovebox-workload (enforce)\n"));
  EXPECT_FALSE(loaded("glovebox-workload (complain)\n"));
  EXPECT_FALSE(loaded("glovebox-workload2 (enforce)\nmy-glovebox-workload (enforce)\n"));
  EXPECT_FALSE(loaded(""));
  EXPECT_TRUE(remove_tree(list).ok());
  EXPECT_FALSE(profile_is_loaded(kWorkloadProfile, list));
}

TEST(Controls, TheConfigurationNamesTheProfile) {
  ContainerSpec spec;
  const auto named = [&] {
    const Json config = oci_config(spec, {});
    const Json* profile = config.find("process")->find("apparmorProfile");
    return profile == nullptr ? std::string("none") : *profile->string();
  };
  EXPECT_EQ(named(), "none");
  spec.apparmor = kWorkloadProfile;
  EXPECT_EQ(named(), "glovebox-workload");
}

TEST(Controls, MissingAndOtherFiltersAreMissed) {
  EXPECT_EQ(missed_when([](Reading& r) { r.status["Seccomp"] = "0"; }), "seccomp");
  EXPECT_EQ(missed_when([](Reading& r) { r.status.erase("Seccomp"); }), "seccomp");
  EXPECT_EQ(missed_when([](Reading& r) { r.seccomp["defaultAction"] = "SCMP_ACT_ALLOW"; }),
            "seccomp");
  EXPECT_EQ(missed_when([](Reading& r) { r.seccomp = Json(); }), "seccomp");
}

TEST(Controls, MountsThatAreNotAsTheyShouldBeAreMissed) {
  const auto mount = [](Reading& r, const std::string& point) -> Mount& {
    return *std::find_if(r.mounts.begin(), r.mounts.end(),
                         [&](const Mount& m) { return m.point == point; });
  };
  for (const char* point : {"/", "/dev", "/data", "/data/wdbc"}) {
    EXPECT_EQ(missed_when([&](Reading& r) { mount(r, point).options = "rw,nosuid,nodev"; }),
              "read-only-root")
        << point;
    EXPECT_EQ(missed_when([&](Reading& r) { mount(r, point).options = "ro,nodev"; }),
              "read-only-root")
        << point;
    EXPECT_EQ(missed_when([&](Reading& r) {
                r.mounts.push_back({point, "ext4", "/dev/sda", "rw", "rw"});
              }),
              "read-only-root")
        << point;
  }
  EXPECT_EQ(
      missed_when([&](Reading& r) { mount(r, "/proc").super_options = "rw,hidepid=invisible"; }),
      "proc-subset");
  EXPECT_EQ(missed_when([&](Reading& r) { mount(r, "/proc").super_options = "rw,subset=pid"; }),
            "proc-subset");
  EXPECT_EQ(missed_when([](Reading& r) {
              r.mounts.push_back({"/sys", "sysfs", "sysfs", "rw", "ro"});
            }),
            "no-sysfs");
  EXPECT_EQ(missed_when([](Reading& r) {
              r.mounts.push_back({"/sys/fs/cgroup", "cgroup2", "cgroup", "rw", "ro"});
            }),
            "no-sysfs");
  EXPECT_EQ(missed_when([](Reading& r) {
              r.mounts.push_back({"/tmp", "proc", "proc", "rw", "rw"});
            }),
            "no-sysfs");
  EXPECT_EQ(missed_when([](Reading& r) {
              r.mounts.push_back({"/run/docker.sock", "tmpfs", "tmpfs", "rw", "rw"});
            }),
            "no-runtime-socket");
  for (const char* point : {"/out", "/tmp"}) {
    EXPECT_EQ(missed_when([&](Reading& r) { mount(r, point).super_options = "rw"; }), "out-bounded")
        << point;
    EXPECT_EQ(missed_when([&](Reading& r) {
                mount(r, point).super_options = "rw,size=4096k,nr_inodes=64";
              }),
              "out-bounded")
        << point;
    EXPECT_EQ(missed_when([&](Reading& r) { mount(r, point).super_options = "rw,size=512k"; }),
              "out-bounded")
        << point;
    EXPECT_EQ(missed_when([&](Reading& r) { mount(r, point).type = "ext4"; }), "out-bounded")
        << point;
  }
}

TEST(Controls, LimitsThatAreNotSetAreMissed) {
  for (const std::int64_t memory :
       {std::int64_t{-1}, std::int64_t{0}, std::int64_t{(67 << 20) + 4096}, INT64_MAX}) {
    EXPECT_EQ(missed_when([&](Reading& r) { r.limits.memory_bytes = memory; }), "memory-limit")
        << memory;
    EXPECT_EQ(missed_when([&](Reading& r) { r.limits.memory_and_swap_bytes = memory; }),
              "memory-limit")
        << memory;
  }
  EXPECT_EQ(missed_when([](Reading& r) { r.limits.pids = 33; }), "pids-limit");
  EXPECT_EQ(missed_when([](Reading& r) { r.limits.pids = -1; }), "pids-limit");
  EXPECT_EQ(missed_when([](Reading& r) { r.limits.cpu_quota_us = 150'001; }), "cpu-limit");
  EXPECT_EQ(missed_when([](Reading& r) { r.limits.cpu_quota_us = -1; }), "cpu-limit");
  EXPECT_EQ(missed_when([](Reading& r) { r.limits.cpu_period_us = 0; }), "cpu-limit");
  // Limits of a cgroup that the container is not in hold nothing.
  EXPECT_EQ(missed_when([](Reading& r) {
              r.cgroups = {"4:memory:/glovebox-xy", "1:cpu:/"};
            }),
            "pids-limit");
}

TEST(Controls, WaysOutAreMissed) {
  EXPECT_EQ(missed_when([](Reading& r) { r.interfaces.push_back("eth0"); }), "no-network");
  EXPECT_EQ(missed_when([](Reading& r) { r.stdin_file = "/dev/null"; }), "logs-bounded");
  EXPECT_EQ(missed_when([](Reading& r) { r.stdout_file = "/dev/pts/0"; }), "logs-bounded");
  EXPECT_EQ(missed_when([](Reading& r) { r.stderr_file = "socket:[12]"; }), "logs-bounded");
}

}  // namespace
}  // namespace gbx::sandbox
