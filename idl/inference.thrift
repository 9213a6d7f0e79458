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
    /**
     * The span of the client that this call belongs to, as in the header of this name of the W3C's
     * Trace Context. Only a server that sends traces reads it.
     */
    4: optional string traceparent,
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
    /** Which of the server's workers, or of its replicas, answers, from 0. */
    10: optional i32 worker,
    /** How many of them the server has; 1 where one process is the server. */
    11: optional i32 workers,
    /** Of the workers' parent, or the replicas' front end; unset where one process is the server. */
    12: optional i32 supervisor_pid,
}

/** Whether the server can take requests. That it answers at all says that it lives. */
struct Health {
    /** Whether it can. */
    1: required bool ready,
    /** Why not; "" where it is ready. */
    2: required string reason,
}

/** How long things of one kind took, counted by their length. */
struct Histogram {
    /**
     * counts[i] took at most Stats.bounds_ms[i], and longer than the bound before. The last count,
     * one more than there are bounds, is of those that took longer than the last bound.
     */
    1: required list<i64> counts,
    /** How long all of them took together, in milliseconds. */
    2: required double sum_ms,
}

/** A node of the pipeline, or the engine of the baseline: what it has done, and how it is now. */
struct NodeStats {
    /** Items that it was given. */
    1: required i64 items,
    /** Items of these that failed there, or were dropped by it. */
    2: required i64 failed_items,
    /** How long its items have waited for it, added up, in milliseconds. */
    3: required double queue_ms,
    /** How long its instances have run batches, added up, in milliseconds. */
    4: required double forward_ms,
    /** Rows of a batch to the number of such batches. */
    5: required map<i32, i64> batches_by_size,
    /** Why a batch left ("full", "idle", "timeout") to the number of such batches. */
    6: required map<string, i64> batches_by_reason,
    /** How often an instance was broken and is back in service. */
    7: required i64 rebuilds,
    /** Now: instances that there are to be. */
    8: required i32 instances,
    /** Now: instances of these that are in service. */
    9: required i32 working_instances,
    /** Now: instances of these that are at work on a batch for far longer than usual. */
    10: required i32 stuck_instances,
}

/** One of the processes that serve, as it is now. */
struct WorkerStats {
    /** Its number, from 0. */
    1: required i32 worker,
    /** Its process id. */
    2: required i32 pid,
    /** Why it can take no requests; "" where it can. */
    3: required string why_not_ready,
    /** Its open connections. */
    4: required i64 connections,
    /** Images that it was let in and that are not answered. */
    5: required i64 images_in_flight,
    /** Calls that it has answered. */
    6: required i64 calls,
    /** How old these numbers are, in seconds; 0 unless the worker does not answer. */
    7: required double report_age_s,
}

/** The process that computes for all workers. */
struct EngineProcessStats {
    /** Whether it is there now. */
    1: required bool alive,
    /** Its process id. */
    2: required i32 pid,
    /** When it was started, in seconds since 1970. */
    3: required double started_at_s,
    /** How often another one took its place. */
    4: required i64 restarts,
}

/** A GPU of the host as NVIDIA's driver shows it, with what all processes do there. */
struct GpuStats {
    /** Its number, in the order of the PCI bus. */
    1: required i32 index,
    /** What tells it from all others. */
    2: required string uuid,
    /** What it is. */
    3: required string name,
    /** The share of the last moment in which it computed, 0 to 1. */
    4: required double utilization,
    /** Its memory that is taken. */
    5: required i64 memory_used_bytes,
    /** Its memory. */
    6: required i64 memory_total_bytes,
}

/**
 * What the server, with all of its workers, has done since it was started, and does. What is not
 * marked "now" only grows, also where a worker ends. docs/operations-metrics.md has the words that
 * outcomes, reasons and stages may be.
 */
struct Stats {
    /** Time since the server was started. */
    1: required double uptime_s,
    /** Calls that were answered: method to outcome to their number. */
    2: required map<string, map<string, i64>> calls,
    /** Images of calls that were let in: outcome to their number. */
    3: required map<string, i64> images,
    /** Calls that were refused as Overloaded: reason to their number. */
    4: required map<string, i64> refusals,
    /** The bounds of all histograms, in milliseconds. */
    5: required list<double> bounds_ms,
    /** Method to the times of its calls, from the last byte to the encoded reply. */
    6: required map<string, Histogram> latencies,
    /** Stage to the times that classified images were in it. */
    7: required map<string, Histogram> stages,
    /** Now: calls that were let in and are not answered. */
    8: required i64 calls_in_flight,
    /** Now: images of these calls. */
    9: required i64 images_in_flight,
    /** Now: images of these beyond what the handler works on at once. */
    10: required i64 images_waiting,
    /** Now: open connections. */
    11: required i64 connections,
    /** Now: connections of these beyond --max-connections. */
    12: required i64 reserve_connections,
    /** Now: the setting --max-connections. */
    13: required i64 max_connections,
    /** Connections that were taken up. */
    14: required i64 connections_opened,
    /** Name to node. */
    15: required map<string, NodeStats> nodes,
    /** Now: the processes that serve. */
    16: required list<WorkerStats> workers,
    /** How often a worker ended and was to be replaced. */
    17: required i64 worker_restarts,
    /** Now: unset where each worker computes for itself. */
    18: optional EngineProcessStats engine_process,
    /** Now: empty where the server cannot see any. */
    19: required list<GpuStats> gpus,
    /** Now: how many processes there are to be that serve. */
    20: required i32 wanted_workers,
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

    /**
     * What the whole server has done and does, whichever worker answers.
     *
     * InternalError: another process of the server does not answer.
     */
    Stats stats() throws (
        1: InternalError internal_error,
    ),
}
