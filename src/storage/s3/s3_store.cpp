#include "storage/s3/s3_store.h"

#include <curl/curl.h>
#include <poll.h>

#include <algorithm>
#include <set>

#include "base/printable.h"
#include "base/private_file.h"
#include "crypto/crypto.h"
#include "storage/directory_store.h"

namespace gbx::storage {

namespace {

constexpr std::string_view kScheme = "s3://";
constexpr long kConnectMs = 5000;
constexpr std::size_t kIdleHandles = 8;

bool only(std::string_view text, std::string_view more) {
  return std::all_of(text.begin(), text.end(), [&](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || more.find(c) != more.npos;
  });
}

bool loopback(std::string_view host) {
  const std::string_view name = host.substr(0, host.rfind(':'));
  return name == "127.0.0.1" || name == "localhost" || host.starts_with("[::1]");
}

// The host of an endpoint, with its port; empty when it is none that we speak to.
std::string host_of(std::string_view endpoint) {
  const bool tls = endpoint.starts_with("https://");
  const bool plain = endpoint.starts_with("http://");
  if (!tls && !plain) return {};
  const std::string_view host = endpoint.substr(tls ? 8 : 7);
  if (host.empty() || host.size() > 255 || !only(host, ".-:[]")) return {};
  // In the clear only where nobody else listens.
  return tls || loopback(host) ? std::string(host) : std::string();
}

bool curl_is_ready() {
  static const bool ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
  return ready;
}

}  // namespace

class S3Store::Handle {
 public:
  Handle() : curl_(curl_easy_init()) {}
  ~Handle() {
    if (curl_ != nullptr) curl_easy_cleanup(curl_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  CURL* get() const { return curl_; }

 private:
  CURL* const curl_;
};

namespace {

std::size_t on_head(char* data, std::size_t, std::size_t n, void* answer) {
  return static_cast<S3Answer*>(answer)->take_head({data, n}) ? n : 0;
}
std::size_t on_body(char* data, std::size_t, std::size_t n, void* answer) {
  return static_cast<S3Answer*>(answer)->take_body(as_bytes({data, n})) ? n : 0;
}

// Everything about a connection that is not of one request.
bool set_up(CURL* c, const S3Options& o, std::int64_t left_ms) {
  curl_easy_reset(c);  // keeps its connections
  bool ok = true;
  const auto set = [&](CURLoption option, auto value) {
    ok = ok && curl_easy_setopt(c, option, value) == CURLE_OK;
  };
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_PROTOCOLS_STR, o.endpoint.starts_with("https://") ? "https" : "http");
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_PROXY, "");  // not the environment's
  set(CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  set(CURLOPT_SSL_VERIFYPEER, 1L);
  set(CURLOPT_SSL_VERIFYHOST, 2L);
  if (!o.ca_file.empty()) set(CURLOPT_CAINFO, o.ca_file.c_str());
  set(CURLOPT_CONNECTTIMEOUT_MS, std::min(kConnectMs, static_cast<long>(left_ms)));
  set(CURLOPT_TIMEOUT_MS, static_cast<long>(left_ms));
  set(CURLOPT_LOW_SPEED_LIMIT, 1024L);
  set(CURLOPT_LOW_SPEED_TIME, static_cast<long>(std::max<std::int64_t>(1, o.stall_ms / 1000)));
  return ok;
}

// Whether another try may end otherwise.
bool passes(int status) { return status == 429 || status >= 500; }

Error refused(const std::string& name, int status) {
  const Error e = fail(Reason::kUnavailable, "object " + name)
                      .with("status 206 or 200 of the store", std::to_string(status));
  if (status == 401 || status == 403) {
    return Error(e).hint(
        "the store refuses the key of --s3-config, or has no such object, or this machine's clock "
        "is wrong");
  }
  if (status >= 300 && status < 400) {
    return Error(e).hint("the bucket is elsewhere: correct endpoint and region in --s3-config");
  }
  return Error(e).hint("look at the store; what was asked may be asked again");
}

}  // namespace

Result<S3Place> s3_place(std::string_view text) {
  const Error bad = fail(Reason::kUsage, "an S3 place")
                        .with("s3://bucket/prefix of [0-9A-Za-z._/-]", printable(text, 100));
  if (!is_s3(text) || text.size() > 512) return bad;
  text.remove_prefix(kScheme.size());
  const std::size_t slash = std::min(text.find('/'), text.size());
  S3Place out{std::string(text.substr(0, slash)), {}};
  if (out.bucket.size() < 3 || out.bucket.size() > 63 || !only(out.bucket, ".-") ||
      out.bucket.find("..") != std::string::npos || out.bucket.front() == '.') {
    return bad;
  }
  std::string_view prefix = text.substr(std::min(slash + 1, text.size()));
  while (!prefix.empty() && prefix.back() == '/') prefix.remove_suffix(1);
  const auto upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ._/-";
  // Dots as a part of their own would be taken for steps within the path.
  const std::string whole = "/" + std::string(prefix) + "/";
  if (!only(prefix, upper) || whole.find("/./") != whole.npos || whole.find("/../") != whole.npos ||
      (!prefix.empty() && whole.find("//") != whole.npos)) {
    return bad;
  }
  if (!prefix.empty()) out.prefix = std::string(prefix) + "/";
  return out;
}

Result<S3Options> parse_s3_config(ByteView content) {
  S3Options out;
  std::set<std::string> seen;
  std::string_view text = as_text(content);
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = trimmed_text(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.front() == '#') continue;
    const std::size_t mark = line.find('=');
    if (mark == line.npos) return fail(Reason::kBadValue, "a line").with("name = value", "another");
    const std::string name(trimmed_text(line.substr(0, mark)));
    const std::string_view value = trimmed_text(line.substr(mark + 1));
    // The value may be the secret: errors name the member alone.
    if (value.empty() || value.size() > 1024) return fail(Reason::kBadValue, printable(name, 40));
    if (!seen.insert(name).second) return fail(Reason::kDuplicateKey, printable(name, 40));
    if (name == "secret-key") {
      out.credentials.secret_key = S3SecretKey::copy_of(as_bytes(value));
    } else if (name == "endpoint") {
      out.endpoint = value;
    } else if (name == "region") {
      out.credentials.region = value;
    } else if (name == "access-key") {
      out.credentials.access_key = value;
    } else if (name == "ca-file") {
      out.ca_file = value;
    } else {
      return fail(Reason::kUnknownField, printable(name, 40));
    }
  }
  for (const char* name : {"endpoint", "region", "access-key", "secret-key"}) {
    if (!seen.contains(name)) return fail(Reason::kMissingField, name);
  }
  if (host_of(out.endpoint).empty()) {
    return fail(Reason::kBadValue, "endpoint")
        .with("https://host[:port], or http:// and an address of this machine",
              printable(out.endpoint));
  }
  if (!only(out.credentials.region, "-")) return fail(Reason::kBadValue, "region");
  for (const char c : out.credentials.access_key) {
    if (c <= ' ' || c > '~' || c == ',' || c == '/') return fail(Reason::kBadValue, "access-key");
  }
  return out;
}

Result<S3Options> s3_options(const std::string& config_file, S3Place place) {
  GBX_ASSIGN(const SecretBuffer content, read_private_secret(config_file, kMaxS3ConfigBytes));
  auto out = parse_s3_config(content.view(SecretAccess{}));
  if (!out.ok()) return out.error().at(config_file);
  out->place = std::move(place);
  return out;
}

S3Store::S3Store(S3Options options, const Clock& clock)
    : options_(std::move(options)), clock_(clock) {}
S3Store::~S3Store() = default;

Result<std::unique_ptr<S3Store>> S3Store::open(S3Options options, const Clock& clock) {
  if (!curl_is_ready()) return fail(Reason::kInternal, "libcurl");
  if (host_of(options.endpoint).empty()) return fail(Reason::kBadValue, "endpoint");
  return std::unique_ptr<S3Store>(new S3Store(std::move(options), clock));
}

std::unique_ptr<S3Store::Handle> S3Store::take_handle() {
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      auto out = std::move(idle_.back());
      idle_.pop_back();
      return out;
    }
  }
  return std::make_unique<Handle>();
}

void S3Store::give_back(std::unique_ptr<Handle> handle) {
  const std::lock_guard lock(mutex_);
  if (idle_.size() < kIdleHandles) idle_.push_back(std::move(handle));
}

S3Request S3Store::request_of(const std::string& name, const S3Answer& answer) const {
  S3Request r;
  r.method = answer.method();
  r.path = "/" + options_.place.bucket + "/" + options_.place.prefix + name;
  r.payload_hash = to_hex(crypto::sha256({}));
  r.headers = {{"host", host_of(options_.endpoint)},
               {"x-amz-content-sha256", r.payload_hash},
               {"x-amz-date", s3_time(clock_.now())}};
  if (!answer.range().empty()) r.headers["range"] = answer.range();
  return r;
}

S3Store::Tried S3Store::try_once(const std::string& name, S3Answer& answer, std::int64_t left_ms) {
  auto handle = take_handle();
  CURL* const c = handle->get();
  if (c == nullptr || !set_up(c, options_, left_ms)) return {fail(Reason::kInternal, "libcurl")};
  const S3Request request = request_of(name, answer);
  std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> lines(nullptr, curl_slist_free_all);
  const auto add = [&lines](const std::string& key, const std::string& value) {
    lines.reset(curl_slist_append(lines.release(), (key + ": " + value).c_str()));
  };
  for (const auto& [key, value] : request.headers) add(key, value);
  add("authorization", s3_authorization(request, options_.credentials));
  answer.begin();
  bool ok = lines != nullptr;
  const auto set = [&](CURLoption option, auto value) {
    ok = ok && curl_easy_setopt(c, option, value) == CURLE_OK;
  };
  set(CURLOPT_URL, (options_.endpoint + request.path).c_str());
  set(CURLOPT_HTTPHEADER, lines.get());
  if (request.method == "HEAD") set(CURLOPT_NOBODY, 1L);
  set(CURLOPT_HEADERFUNCTION, on_head);
  set(CURLOPT_HEADERDATA, &answer);
  set(CURLOPT_WRITEFUNCTION, on_body);
  set(CURLOPT_WRITEDATA, &answer);
  if (!ok) return {fail(Reason::kInternal, "libcurl")};
  const CURLcode code = curl_easy_perform(c);
  if (!answer.wrong().empty()) {
    return {fail(Reason::kBadStructure, "the store's answer about object " + name)
                .with("what was asked for", answer.wrong())};
  }
  if (code == CURLE_OK) {
    give_back(std::move(handle));
    if (!passes(answer.status())) return {ok_status()};
    return {refused(name, answer.status()), true};
  }
  return {fail(Reason::kUnavailable, "object " + name)
              .with("an answer of the store", curl_easy_strerror(code))
              .hint("look at the store and at the endpoint in --s3-config"),
          code != CURLE_PEER_FAILED_VERIFICATION};
}

// Until the answer is one to judge, or another try would not change it.
Status S3Store::perform(const std::string& name, S3Answer& answer) {
  const std::int64_t end = clock_.steady_ms() + options_.patience_ms;
  std::int64_t pause = options_.first_pause_ms;
  Tried tried{fail(Reason::kUnavailable, "object " + name), true};
  for (int attempt = 0; attempt < kS3Attempts; ++attempt) {
    if (attempt > 0) {
      if (clock_.steady_ms() + pause >= end) break;
      (void)poll(nullptr, 0, static_cast<int>(pause));
      pause *= 2;
    }
    const std::int64_t left = end - clock_.steady_ms();
    if (left <= 0) break;
    tried = try_once(name, answer, left);
    if (!tried.again) break;
  }
  return std::move(tried.status);
}

Status S3Store::get(const std::string& name, std::uint64_t offset, MutableByteView out) {
  GBX_TRY(check_object_name(name));
  GBX_ASSIGN(const std::uint64_t bytes, out.empty() ? size(name) : Result<std::uint64_t>(0));
  if (out.empty()) {
    return offset <= bytes ? ok_status() : Status(fail(Reason::kTruncated, "object " + name));
  }
  if (offset > kMaxS3ObjectBytes - out.size()) return fail(Reason::kTruncated, "object " + name);
  S3Answer answer("GET", offset, out);
  GBX_TRY(perform(name, answer));
  switch (answer.status()) {
    case 206: {
      Status s = answer.judge();
      if (!s.ok() && s.reason() == Reason::kTruncated) {
        return fail(Reason::kTruncated, "object " + name);
      }
      if (!s.ok()) s.error().at("object " + name);
      return s;
    }
    case 404:
      return fail(Reason::kNotFound, "object " + name);
    case 416:
      return fail(Reason::kTruncated, "object " + name);
    case 200:
      return fail(Reason::kBadStructure, "the store's answer about object " + name)
          .with("a range (206)", "the whole object (200)");
    default:
      return refused(name, answer.status());
  }
}

Result<std::uint64_t> S3Store::size(const std::string& name) {
  GBX_TRY(check_object_name(name));
  S3Answer answer("HEAD", 0, {});
  GBX_TRY(perform(name, answer));
  if (answer.status() == 404) return fail(Reason::kNotFound, "object " + name);
  if (answer.status() != 200) return refused(name, answer.status());
  if (!answer.length()) {
    return fail(Reason::kBadStructure, "the store's answer about object " + name)
        .with("its length", "none");
  }
  return *answer.length();
}

Result<std::unique_ptr<ObjectWriter>> S3Store::create(const std::string&) {
  return fail(Reason::kUnsupported, "a bucket is only read")
      .hint("copy the objects there with the tools of the service (docs/s3.md)");
}
Status S3Store::list(const std::function<Status(const std::string&)>&) {
  return fail(Reason::kUnsupported, "a bucket is not listed");
}
Status S3Store::remove(const std::string&) {
  return fail(Reason::kUnsupported, "a bucket is only read");
}

bool is_s3(std::string_view where) { return where.starts_with(kScheme); }

Result<std::unique_ptr<ObjectStore>> open_objects(const std::string& where,
                                                  const std::string& s3_config,
                                                  const Clock& clock) {
  if (is_s3(where) == s3_config.empty()) {
    return fail(Reason::kUsage, "--objects")
        .with("s3://bucket/prefix with --s3-config, or a directory without", printable(where, 100));
  }
  if (!is_s3(where)) {
    GBX_ASSIGN(auto store, DirectoryStore::open(where));
    return std::unique_ptr<ObjectStore>(std::move(store));
  }
  GBX_ASSIGN(S3Place place, s3_place(where));
  GBX_ASSIGN(S3Options options, s3_options(s3_config, std::move(place)));
  GBX_ASSIGN(auto store, S3Store::open(std::move(options), clock));
  return std::unique_ptr<ObjectStore>(std::move(store));
}

}  // namespace gbx::storage
