// The wire contract of thriftpipe.
//
// `ping`, `infer_batch`, and fields 1 and 2 of InferenceParams and InferenceResult are those of
// torchpipe's published example service: its clients talk to this server unchanged. Everything
// else is optional on the wire, and a client that does not know it skips it.

namespace py inference

// Why one image, or one call, has no result.
enum ErrorCode {
    INVALID_IMAGE = 1,      // the bytes are not an image that can be decoded
    OVERLOADED = 2,         // refused before any work: retry later, with backoff
    DEADLINE_EXCEEDED = 3,  // not finished within timeout_ms
    INTERNAL = 4,           // the server's fault; error_id also stands in its log
}

struct InferenceParams {
    1: required string uuid,
    2: required binary data,        // an encoded image: JPEG, PNG, ...
}

struct ImageError {
    1: required ErrorCode code,
    2: required string message,
    3: optional string error_id,
}

struct ClassScore {
    1: required i32 class_id,
    2: required string label,
    3: required double score,
}

struct InferenceResult {
    1: required string label,       // "" where `error` is set
    2: required double score,       // 0.0 where `error` is set
    // Set in replies of infer_images only; infer_batch replies exactly as upstream does.
    3: optional string uuid,        // that of the request
    4: optional i32 class_id,
    5: optional list<ClassScore> top_k,             // best first, `top_k` of them
    6: optional ImageError error,
    7: optional map<string, double> stage_times_ms, // "with_stage_times": milliseconds by stage
}

struct InferOptions {
    1: optional i32 top_k,              // how many classes to return; 1 where unset
    2: optional i32 timeout_ms,         // longest stay in the server; the server's limit where unset, and at most that
    3: optional bool with_stage_times,
}

struct ServerInfo {
    1: required string handler,             // "baseline" or "pipeline"
    2: required string engine,              // the provider that runs, e.g. "onnxruntime"
    3: required string precision,           // the precision that runs, e.g. "fp32"
    4: required string model,               // file name of the model
    5: required string model_sha256,
    6: required string config_sha256,       // of the effective configuration
    7: required i32 pid,                    // of the process that answers
    8: required map<string, string> versions,   // package name -> version
    9: required map<string, string> settings,   // what else shapes the speed: instances, threads, lock, ...
    10: optional i32 worker,                // which of the server's workers answers, from 0
    11: optional i32 workers,               // how many the server has
    12: optional i32 supervisor_pid,        // of their parent; unset where one process is the server
}

// Whether the server can take requests. That it answers at all says that it lives.
struct Health {
    1: required bool ready,
    2: required string reason,          // why not; "" where it is ready
}

exception InvalidImage {
    1: required string message,
    2: required string uuid,
}

exception InvalidRequest {
    1: required string message,
}

exception Overloaded {
    1: required string message,
    2: required i32 retry_after_ms,
}

exception DeadlineExceeded {
    1: required string message,
    2: required i32 timeout_ms,
}

exception InternalError {
    1: required string message,
    2: required string error_id,
}

service InferenceService {
    void ping(),

    // One image in, its best label and score out.
    InferenceResult infer_batch(1: InferenceParams params) throws (
        1: InvalidImage invalid_image,
        2: InvalidRequest invalid_request,
        3: Overloaded overloaded,
        4: DeadlineExceeded deadline_exceeded,
        5: InternalError internal_error,
    ),

    // Results line up with requests. An image that fails carries its own error and its neighbours
    // keep their results; an exception means that the call as a whole was refused.
    list<InferenceResult> infer_images(1: list<InferenceParams> requests, 2: optional InferOptions options) throws (
        1: InvalidRequest invalid_request,
        2: Overloaded overloaded,
        3: InternalError internal_error,
    ),

    // Who answers: a benchmark checks this before it times anything.
    ServerInfo server_info(),

    // For load balancers and orchestrators: not ready while it drains, or while no engine works.
    Health health(),
}
