// The calls of tests/interop/scenario.py with Apache Thrift's C++ library: client HOST PORT
// framed|buffered IMAGE... prints the report as lines of NAME=VALUE.

#include <fstream>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <thrift/TApplicationException.h>
#include <thrift/protocol/TBinaryProtocol.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TSocket.h>

#include "InferenceService.h"

using namespace apache::thrift;
using protocol::TBinaryProtocol;
using transport::TBufferedTransport;
using transport::TFramedTransport;
using transport::TSocket;
using transport::TTransport;

namespace {

constexpr int kTimeoutMs = 120000;
// As many images as the server ever takes.
constexpr int kWholeServer = 24;

template <typename Value>
void print(const std::string& name, const Value& value) {
  std::cout << std::setprecision(17) << name << "=" << value << "\n";
}

// A connection, and the client that speaks over it.
struct Connection {
  std::shared_ptr<TTransport> transport;
  std::shared_ptr<TBinaryProtocol> protocol;
  std::shared_ptr<InferenceServiceClient> client;

  Connection(const std::string& host, int port, const std::string& kind) {
    auto socket = std::make_shared<TSocket>(host, port);
    socket->setRecvTimeout(kTimeoutMs);
    if (kind == "framed") {
      transport = std::make_shared<TFramedTransport>(socket);
    } else {
      transport = std::make_shared<TBufferedTransport>(socket);
    }
    protocol = std::make_shared<TBinaryProtocol>(transport);
    client = std::make_shared<InferenceServiceClient>(protocol);
    transport->open();
  }

  // A call without any argument, also of a method that does not exist.
  void send_empty(const std::string& method) {
    protocol->writeMessageBegin(method, protocol::T_CALL, 0);
    InferenceService_ping_pargs().write(protocol.get());
    protocol->writeMessageEnd();
    transport->writeEnd();
    transport->flush();
  }
};

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

InferenceParams params(const std::string& data, const std::string& uuid = "one") {
  InferenceParams made;
  made.__set_uuid(uuid);
  made.__set_data(data);
  return made;
}

void print_result(const std::string& name, const InferenceResult& result) {
  print(name + ".label", result.label);
  print(name + ".score", result.score);
  if (result.__isset.uuid) print(name + ".uuid", result.uuid);
  if (result.__isset.class_id) print(name + ".class_id", result.class_id);
  for (size_t place = 0; result.__isset.top_k && place < result.top_k.size(); ++place) {
    const std::string entry = name + ".top_k." + std::to_string(place);
    print(entry + ".class_id", result.top_k[place].class_id);
    print(entry + ".label", result.top_k[place].label);
    print(entry + ".score", result.top_k[place].score);
  }
  if (result.__isset.error) {
    print(name + ".error.code", static_cast<int>(result.error.code));
    print(name + ".error.message", result.error.message);
  }
  if (result.__isset.stage_times_ms) {
    std::string stages;
    for (const auto& stage : result.stage_times_ms) {
      stages += (stages.empty() ? "" : ",") + stage.first;
    }
    print(name + ".stages", stages);
  }
}

void print_results(const std::string& name, const std::vector<InferenceResult>& results) {
  for (size_t i = 0; i < results.size(); ++i) {
    print_result(name + "." + std::to_string(i), results[i]);
  }
}

void print_pairs(const std::string& name, const std::map<std::string, std::string>& pairs) {
  std::string text;
  for (const auto& pair : pairs) {
    text += (text.empty() ? "" : ",") + pair.first + "=" + pair.second;
  }
  print(name, text);
}

void lists(InferenceServiceClient& client, const std::vector<std::string>& images) {
  std::vector<InferenceParams> requests;
  for (size_t i = 0; i < images.size(); ++i) {
    requests.push_back(params(images[i], "u" + std::to_string(i)));
  }
  std::vector<InferenceParams> with_bad = requests;
  with_bad.insert(with_bad.begin() + 1, params("no image", "bad"));
  InferOptions options;
  options.__set_top_k(2);
  options.__set_timeout_ms(60000);
  options.__set_with_stage_times(true);
  std::vector<InferenceResult> results;
  client.infer_images(results, with_bad, options);
  print_results("with_options", results);
  client.infer_images(results, requests, InferOptions());
  print_results("without_options", results);
}

void info(InferenceServiceClient& client) {
  ServerInfo answer;
  client.server_info(answer);
  print("server_info.handler", answer.handler);
  print("server_info.engine", answer.engine);
  print("server_info.precision", answer.precision);
  print("server_info.model", answer.model);
  print("server_info.model_sha256", answer.model_sha256);
  print("server_info.config_sha256", answer.config_sha256);
  print("server_info.pid", answer.pid);
  print("server_info.worker", answer.__isset.worker ? std::to_string(answer.worker) : "None");
  print("server_info.workers", answer.__isset.workers ? std::to_string(answer.workers) : "None");
  print_pairs("server_info.versions", answer.versions);
  print_pairs("server_info.settings", answer.settings);
  Health health;
  client.health(health);
  print("health.ready", health.ready ? "true" : "false");
  print("health.reason", health.reason);
}

void exceptions(InferenceServiceClient& client, const std::string& image) {
  InferenceResult result;
  try {
    client.infer_batch(result, params("no image", "bad"));
  } catch (const InvalidImage& error) {
    print("invalid_image.message", error.message);
    print("invalid_image.uuid", error.uuid);
  }
  try {
    InferOptions options;
    options.__set_top_k(0);
    std::vector<InferenceResult> results;
    client.infer_images(results, {params(image)}, options);
  } catch (const InvalidRequest& error) {
    print("invalid_request.message", error.message);
  }
  try {
    client.infer_batch(result, params("late:" + image));
  } catch (const DeadlineExceeded& error) {
    print("deadline_exceeded.message", error.message);
    print("deadline_exceeded.timeout_ms", error.timeout_ms);
  }
  try {
    client.infer_batch(result, params("fail:" + image));
  } catch (const InternalError& error) {
    print("internal_error.message", error.message);
    print("internal_error.error_id", error.error_id.size());
  }
}

void application_errors(Connection& connection) {
  connection.send_empty("classify");
  try {
    connection.client->recv_ping();
  } catch (const TApplicationException& error) {
    print("unknown_method.type", static_cast<int>(error.getType()));
    print("unknown_method.message", error.what());
  }
  connection.send_empty("infer_batch");
  try {
    InferenceResult result;
    connection.client->recv_infer_batch(result);
  } catch (const TApplicationException& error) {
    print("missing_argument.type", static_cast<int>(error.getType()));
    print("missing_argument.message", error.what());
  }
}

void overload(InferenceServiceClient& client, InferenceServiceClient& other,
              const std::string& image) {
  std::vector<InferenceParams> many(kWholeServer, params(image));
  std::vector<InferenceParams> held(1, params("hold:" + image));
  other.send_infer_images(held, InferOptions());
  InferenceResult result;
  client.infer_batch(result, params("held:" + image));
  std::vector<InferenceResult> results;
  try {
    client.infer_images(results, many, InferOptions());
  } catch (const Overloaded& error) {
    print("overloaded.message", error.message);
    print("overloaded.retry_after_ms", error.retry_after_ms > 0 ? "positive" : "none");
  }
  client.infer_batch(result, params("free:" + image));
  other.recv_infer_images(results);
  print_result("overloaded.other", results.at(0));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) {
    std::cerr << "usage: client HOST PORT framed|buffered IMAGE IMAGE...\n";
    return 2;
  }
  const std::string host = argv[1], kind = argv[3];
  const int port = std::stoi(argv[2]);
  std::vector<std::string> images;
  for (int i = 4; i < argc; ++i) images.push_back(read_file(argv[i]));

  Connection connection(host, port, kind);
  Connection other(host, port, kind);
  InferenceServiceClient& client = *connection.client;
  client.ping();
  print("ping", "None");
  InferenceResult result;
  for (size_t i = 0; i < images.size(); ++i) {
    client.infer_batch(result, params(images[i]));
    print_result("infer_batch." + std::to_string(i), result);
  }
  lists(client, images);
  info(client);
  exceptions(client, images[0]);
  application_errors(connection);
  client.send_infer_batch(params(images[0]));
  client.send_infer_batch(params(images[1]));
  for (int i = 0; i < 2; ++i) {
    client.recv_infer_batch(result);
    print_result("pipelined." + std::to_string(i), result);
  }
  overload(client, *other.client, images[0]);
  return 0;
}
