// The worker's connection to the broker, through its node. It may break at any moment, and so may
// the broker: then it is made again, TLS and evidence anew with the same keys, and the very same
// request is sent once more, which the broker answers as it did before (docs/protocol.md). One
// thread.
#pragma once

#include <memory>
#include <vector>

#include "agent/bundle_check.h"
#include "agent/operations.h"
#include "agent/worker.h"
#include "channel/rpc.h"
#include "channel/tls.h"

namespace gbx::agent {

// Keys that this environment makes for one attempt.
struct OwnKeys {
  crypto::SigningKey tls;
  crypto::HpkeKeyPair hpke;
  crypto::SigningKey sig;
  records::AgentKeys records() const {
    return {tls.public_key().text(), hpke.public_key().text(), sig.public_key().text()};
  }
};

template <class Reply>
Result<Reply> rpc(channel::RpcClient& client, std::string_view method, Json body,
                  std::int64_t timeout_ms) {
  GBX_ASSIGN(Json reply, client.call(method, std::move(body), timeout_ms));
  return from_json<Reply>(reply);
}

// The platform's quote over `report_data`, by the privileged half. A platform that is busy is asked
// again for a while; kUnavailable when it does not answer in that.
Result<QuoteReply> own_quote(const WorkerOptions& options, const FixedBytes<64>& report_data);

class BrokerLink {
 public:
  // All of them outlive the link.
  BrokerLink(const WorkerOptions& options, channel::RpcClient& node, const CheckedJob& job,
             const OwnKeys& keys)
      : o_(options), node_(node), job_(job), keys_(keys) {}
  // Connects and attests. kUnavailable when the broker could not be reached for a while, as of
  // call().
  Status open();
  // `request` must be one that the broker answers the same however often it comes. A refusal is an
  // answer.
  template <class Reply>
  Result<Reply> call(std::string_view method, const Json& request) {
    GBX_ASSIGN(Json reply, insist(method, &request));
    return from_json<Reply>(reply);
  }
  // Of the attempt's first evidence, which its requests keep. Known once open() was good.
  const Hash32& evidence() const { return *first_; }
  void end();  // orderly; a further call would connect again

 private:
  Result<Json> insist(std::string_view method, const Json* request);
  Result<Json> once(std::string_view method, const Json* request);
  Status connect();
  Status attest();
  Result<records::ReportData> report_data_for(const Nonce32& nonce);
  Result<records::Evidence> evidence_for(const Nonce32& nonce);
  Result<records::Evidence> introduced(const records::ReportData& data);
  Result<records::Evidence> quoted(const records::ReportData& data);
  Result<Json> ask(std::string_view method, const Json& request);
  void drop();

  const WorkerOptions& o_;
  channel::RpcClient& node_;
  const CheckedJob& job_;
  const OwnKeys& keys_;
  std::vector<Hash32> offered_;  // evidence that the broker was sent; its answers may be lost
  std::optional<Hash32> first_;
  channel::MuxStream* stream_ = nullptr;
  std::unique_ptr<channel::TlsChannel> tls_;
  // destroyed before what it speaks over; empty: not attested
  std::unique_ptr<channel::RpcClient> client_;
};

}  // namespace gbx::agent
