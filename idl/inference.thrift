/**
 * The wire contract of thriftpipe: image classification over Thrift.
 *
 * Binary protocol, framed or unframed (buffered); the server tells them apart. docs/clients.md has
 * complete clients in Python, Node, Java and Go.
 *
 * `ping`, `infer_batch`, and fields 1 and 2 of InferenceParams and InferenceResult are those of
 * torchpipe's published example service: its clients talk to this server unchanged. Everything
 * else is optional on the wire, and a client that does not know it skips it.
 */

namespace py inference
namespace java thriftpipe.inference
namespace go inference
namespace js inference

/** Why one image has no result. */
enum ErrorCode {
    /** The bytes are not an image that can be decoded, or the image passes a limit. */
    INVALID_IMAGE = 1,
    /** Refused before any work: retry later, with backoff. */
    OVERLOADED = 2,
    /** Not finished within timeout_ms. */
    DEADLINE_EXCEEDED = 3,
    /** The server's fault; error_id also stands in its log. */
    INTERNAL = 4,
}

/** One image to classify. */
struct InferenceParams {
    /** The client's name for the image, which comes back with its result. */
    1: required string uuid,
    /** An encoded image: JPEG, PNG, ... */
    2: required binary data,
}

/** Why an image has no result. */
struct ImageError {
    /** The reason, for programs. */
    1: required ErrorCode code,
    /** The reason, for people. */
    2: required string message,
    /** Set with INTERNAL: under which the cause stands in the server's log. */
    3: optional string error_id,
}

/** One class, and how sure the model is of it. */
struct ClassScore {
    /** The class's number, from 0. */
    1: required i32 class_id,
    /** The class's name. */
    2: required string label,
    /** Its probability, 0 to 1. */
    3: required double score,
}

/**
 * What is in one image.
 *
 * Fields 3 to 7 are set in replies of infer_images only; infer_batch replies exactly as upstream
 * does.
 */
struct InferenceResult {
    /** The best class's name; "" where `error` is set. */
    1: required string label,
    /** Its probability, 0 to 1; 0.0 where `error` is set. */
    2: required double score,
    /** That of the request. */
    3: optional string uuid,
    /** The best class's number; unset where `error` is set. */
    4: optional i32 class_id,
    /** The best classes, best first, `top_k` of them; unset where `error` is set. */
    5: optional list<ClassScore> top_k,
    /** Why there is no result; unset where there is one. */
    6: optional ImageError error,
    /** Milliseconds by stage; unset unless with_stage_times asked for them. */
    7: optional map<string, double> stage_times_ms,
}

/** How a call of infer_images is to be answered. */
struct InferOptions {
    /** How many classes to return, 1 to the number of classes; 1 where unset. */
    1: optional i32 top_k,
    /**
     * Longest stay in the server, in milliseconds: what is not finished by then is dropped. The
     * server's limit where unset, and at most that.
     */
    2: optional i32 timeout_ms,
    /** Whether results tell their stage_times_ms; false where unset. */
    3: optional bool with_stage_times,
}

/** Which server answers, and what it runs. */
struct ServerInfo {
    /** "baseline" or "pipeline". */
    1: required string handler,
    /** The provider that runs, such as "onnxruntime". */
    2: required string engine,
    /** The precision that runs, such as "fp32". */
    3: required string precision,
    /** File name of the model. */
    4: required string model,
    /** SHA-256 of the model's file, in hexadecimal. */
    5: required string model_sha256,
    /** SHA-256 of the effective configuration, in hexadecimal. */
    6: required string config_sha256,
    /** Of the process that answers. */
    7: required i32 pid,
    /** Package name to version. */
    8: required map<string, string> versions,
    /**
     * What else shapes the speed: instances, threads, lock, ... `classes` is the number of the
     * model's classes; `note`, where it is set, is what users of the answers have to know.
     */
    9: required map<string, string> settings,
    /** Which of the server's workers answers, from 0. */
    10: optional i32 worker,
    /** How many workers the server has; 1 where one process is the server. */
    11: optional i32 workers,
    /** Of the workers' parent; unset where one process is the server. */
    12: optional i32 supervisor_pid,
}

/** Whether the server can take requests. That it answers at all says that it lives. */
struct Health {
    /** Whether it can. */
    1: required bool ready,
    /** Why not; "" where it is ready. */
    2: required string reason,
}

/** The image cannot be decoded, or passes a limit; sent again, it fails again. */
exception InvalidImage {
    /** What is wrong with it. */
    1: required string message,
    /** That of the request. */
    2: required string uuid,
}

/** The call as a whole passes a limit or makes no sense; sent again, it fails again. */
exception InvalidRequest {
    /** The limit, the server's option for it, and what was given. */
    1: required string message,
}

/** Refused before any work, since too much is waiting: retry later. */
exception Overloaded {
    /** What there is too much of. */
    1: required string message,
    /** When to try again, in milliseconds from now. */
    2: required i32 retry_after_ms,
}

/** The image was not finished within its time, and was dropped. */
exception DeadlineExceeded {
    /** Where it was by then. */
    1: required string message,
    /** The time that it had, in milliseconds. */
    2: required i32 timeout_ms,
}

/** The server failed; its log has the cause. */
exception InternalError {
    /** Says so. The cause is no client's business. */
    1: required string message,
    /** Under which the cause stands in the server's log. */
    2: required string error_id,
}

/** Image classification. */
service InferenceService {
    /** Returns once the server has answered. */
    void ping(),

    /**
     * One image in, its best label and score out.
     *
     * @param params - The image.
     */
    InferenceResult infer_batch(1: InferenceParams params) throws (
        1: InvalidImage invalid_image,
        2: InvalidRequest invalid_request,
        3: Overloaded overloaded,
        4: DeadlineExceeded deadline_exceeded,
        5: InternalError internal_error,
    ),

    /**
     * Several images in, one result for each of them out, in the order of the requests.
     *
     * An image that fails carries its own `error` and its neighbours keep their results; an
     * exception means that the call as a whole was refused.
     *
     * @param requests - The images.
     * @param options - How to answer; unset for one class and the server's own time limit.
     */
    list<InferenceResult> infer_images(1: list<InferenceParams> requests, 2: optional InferOptions options) throws (
        1: InvalidRequest invalid_request,
        2: Overloaded overloaded,
        3: InternalError internal_error,
    ),

    /** Who answers: a benchmark checks this before it times anything. */
    ServerInfo server_info(),

    /** For load balancers and orchestrators: not ready while it drains, or while no engine works. */
    Health health(),
}
