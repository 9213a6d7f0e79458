"""The wire contract: written by `python -m idl.from_thrift`. Change `inference.thrift` instead."""

from thriftpy2.thrift import TException, TPayload


class ErrorCode:
    _ttype = 8
    _VALUES_TO_NAMES = {1: 'INVALID_IMAGE', 2: 'OVERLOADED', 3: 'DEADLINE_EXCEEDED', 4: 'INTERNAL'}
    _NAMES_TO_VALUES = {'INVALID_IMAGE': 1, 'OVERLOADED': 2, 'DEADLINE_EXCEEDED': 3, 'INTERNAL': 4}
    INVALID_IMAGE = 1
    OVERLOADED = 2
    DEADLINE_EXCEEDED = 3
    INTERNAL = 4

class InferenceParams(TPayload):
    _ttype = 12
    thrift_spec = {1: (11, 'uuid', True), 2: (18, 'data', True)}
    default_spec = [('uuid', None), ('data', None)]

class ImageError(TPayload):
    _ttype = 12
    thrift_spec = {1: (8, 'code', ErrorCode, True), 2: (11, 'message', True), 3: (11, 'error_id', False)}
    default_spec = [('code', None), ('message', None), ('error_id', None)]

class ClassScore(TPayload):
    _ttype = 12
    thrift_spec = {1: (8, 'class_id', True), 2: (11, 'label', True), 3: (4, 'score', True)}
    default_spec = [('class_id', None), ('label', None), ('score', None)]

class InferenceResult(TPayload):
    _ttype = 12
    thrift_spec = {1: (11, 'label', True), 2: (4, 'score', True), 3: (11, 'uuid', False), 4: (8, 'class_id', False), 5: (15, 'top_k', (12, ClassScore), False), 6: (12, 'error', ImageError, False), 7: (13, 'stage_times_ms', (11, 4), False)}
    default_spec = [('label', None), ('score', None), ('uuid', None), ('class_id', None), ('top_k', None), ('error', None), ('stage_times_ms', None)]

class InferOptions(TPayload):
    _ttype = 12
    thrift_spec = {1: (8, 'top_k', False), 2: (8, 'timeout_ms', False), 3: (2, 'with_stage_times', False), 4: (11, 'traceparent', False)}
    default_spec = [('top_k', None), ('timeout_ms', None), ('with_stage_times', None), ('traceparent', None)]

class ServerInfo(TPayload):
    _ttype = 12
    thrift_spec = {1: (11, 'handler', True), 2: (11, 'engine', True), 3: (11, 'precision', True), 4: (11, 'model', True), 5: (11, 'model_sha256', True), 6: (11, 'config_sha256', True), 7: (8, 'pid', True), 8: (13, 'versions', (11, 11), True), 9: (13, 'settings', (11, 11), True), 10: (8, 'worker', False), 11: (8, 'workers', False), 12: (8, 'supervisor_pid', False)}
    default_spec = [('handler', None), ('engine', None), ('precision', None), ('model', None), ('model_sha256', None), ('config_sha256', None), ('pid', None), ('versions', None), ('settings', None), ('worker', None), ('workers', None), ('supervisor_pid', None)]

class Health(TPayload):
    _ttype = 12
    thrift_spec = {1: (2, 'ready', True), 2: (11, 'reason', True)}
    default_spec = [('ready', None), ('reason', None)]

class Histogram(TPayload):
    _ttype = 12
    thrift_spec = {1: (15, 'counts', 10, True), 2: (4, 'sum_ms', True)}
    default_spec = [('counts', None), ('sum_ms', None)]

class NodeStats(TPayload):
    _ttype = 12
    thrift_spec = {1: (10, 'items', True), 2: (10, 'failed_items', True), 3: (4, 'queue_ms', True), 4: (4, 'forward_ms', True), 5: (13, 'batches_by_size', (8, 10), True), 6: (13, 'batches_by_reason', (11, 10), True), 7: (10, 'rebuilds', True), 8: (8, 'instances', True), 9: (8, 'working_instances', True), 10: (8, 'stuck_instances', True)}
    default_spec = [('items', None), ('failed_items', None), ('queue_ms', None), ('forward_ms', None), ('batches_by_size', None), ('batches_by_reason', None), ('rebuilds', None), ('instances', None), ('working_instances', None), ('stuck_instances', None)]

class WorkerStats(TPayload):
    _ttype = 12
    thrift_spec = {1: (8, 'worker', True), 2: (8, 'pid', True), 3: (11, 'why_not_ready', True), 4: (10, 'connections', True), 5: (10, 'images_in_flight', True), 6: (10, 'calls', True), 7: (4, 'report_age_s', True)}
    default_spec = [('worker', None), ('pid', None), ('why_not_ready', None), ('connections', None), ('images_in_flight', None), ('calls', None), ('report_age_s', None)]

class EngineProcessStats(TPayload):
    _ttype = 12
    thrift_spec = {1: (2, 'alive', True), 2: (8, 'pid', True), 3: (4, 'started_at_s', True), 4: (10, 'restarts', True)}
    default_spec = [('alive', None), ('pid', None), ('started_at_s', None), ('restarts', None)]

class GpuStats(TPayload):
    _ttype = 12
    thrift_spec = {1: (8, 'index', True), 2: (11, 'uuid', True), 3: (11, 'name', True), 4: (4, 'utilization', True), 5: (10, 'memory_used_bytes', True), 6: (10, 'memory_total_bytes', True)}
    default_spec = [('index', None), ('uuid', None), ('name', None), ('utilization', None), ('memory_used_bytes', None), ('memory_total_bytes', None)]

class Stats(TPayload):
    _ttype = 12
    thrift_spec = {1: (4, 'uptime_s', True), 2: (13, 'calls', (11, (13, (11, 10))), True), 3: (13, 'images', (11, 10), True), 4: (13, 'refusals', (11, 10), True), 5: (15, 'bounds_ms', 4, True), 6: (13, 'latencies', (11, (12, Histogram)), True), 7: (13, 'stages', (11, (12, Histogram)), True), 8: (10, 'calls_in_flight', True), 9: (10, 'images_in_flight', True), 10: (10, 'images_waiting', True), 11: (10, 'connections', True), 12: (10, 'reserve_connections', True), 13: (10, 'max_connections', True), 14: (10, 'connections_opened', True), 15: (13, 'nodes', (11, (12, NodeStats)), True), 16: (15, 'workers', (12, WorkerStats), True), 17: (10, 'worker_restarts', True), 18: (12, 'engine_process', EngineProcessStats, False), 19: (15, 'gpus', (12, GpuStats), True), 20: (8, 'wanted_workers', True)}
    default_spec = [('uptime_s', None), ('calls', None), ('images', None), ('refusals', None), ('bounds_ms', None), ('latencies', None), ('stages', None), ('calls_in_flight', None), ('images_in_flight', None), ('images_waiting', None), ('connections', None), ('reserve_connections', None), ('max_connections', None), ('connections_opened', None), ('nodes', None), ('workers', None), ('worker_restarts', None), ('engine_process', None), ('gpus', None), ('wanted_workers', None)]

class InvalidImage(TException):
    _ttype = 12
    thrift_spec = {1: (11, 'message', True), 2: (11, 'uuid', True)}
    default_spec = [('message', None), ('uuid', None)]

class InvalidRequest(TException):
    _ttype = 12
    thrift_spec = {1: (11, 'message', True)}
    default_spec = [('message', None)]

class Overloaded(TException):
    _ttype = 12
    thrift_spec = {1: (11, 'message', True), 2: (8, 'retry_after_ms', True)}
    default_spec = [('message', None), ('retry_after_ms', None)]

class DeadlineExceeded(TException):
    _ttype = 12
    thrift_spec = {1: (11, 'message', True), 2: (8, 'timeout_ms', True)}
    default_spec = [('message', None), ('timeout_ms', None)]

class InternalError(TException):
    _ttype = 12
    thrift_spec = {1: (11, 'message', True), 2: (11, 'error_id', True)}
    default_spec = [('message', None), ('error_id', None)]

class InferenceService:
    thrift_services = ['ping', 'infer_batch', 'infer_images', 'server_info', 'health', 'stats']

    class ping_args(TPayload):
        _ttype = 12
        thrift_spec = {}
        default_spec = []

    class ping_result(TPayload):
        _ttype = 12
        thrift_spec = {}
        default_spec = []
        oneway = False

    class infer_batch_args(TPayload):
        _ttype = 12
        thrift_spec = {1: (12, 'params', InferenceParams, False)}
        default_spec = [('params', None)]

    class infer_batch_result(TPayload):
        _ttype = 12
        thrift_spec = {1: (12, 'invalid_image', InvalidImage, False), 2: (12, 'invalid_request', InvalidRequest, False), 3: (12, 'overloaded', Overloaded, False), 4: (12, 'deadline_exceeded', DeadlineExceeded, False), 5: (12, 'internal_error', InternalError, False), 0: (12, 'success', InferenceResult, False)}
        default_spec = [('success', None), ('invalid_image', None), ('invalid_request', None), ('overloaded', None), ('deadline_exceeded', None), ('internal_error', None)]
        oneway = False

    class infer_images_args(TPayload):
        _ttype = 12
        thrift_spec = {1: (15, 'requests', (12, InferenceParams), False), 2: (12, 'options', InferOptions, False)}
        default_spec = [('requests', None), ('options', None)]

    class infer_images_result(TPayload):
        _ttype = 12
        thrift_spec = {1: (12, 'invalid_request', InvalidRequest, False), 2: (12, 'overloaded', Overloaded, False), 3: (12, 'internal_error', InternalError, False), 0: (15, 'success', (12, InferenceResult), False)}
        default_spec = [('success', None), ('invalid_request', None), ('overloaded', None), ('internal_error', None)]
        oneway = False

    class server_info_args(TPayload):
        _ttype = 12
        thrift_spec = {}
        default_spec = []

    class server_info_result(TPayload):
        _ttype = 12
        thrift_spec = {0: (12, 'success', ServerInfo, False)}
        default_spec = [('success', None)]
        oneway = False

    class health_args(TPayload):
        _ttype = 12
        thrift_spec = {}
        default_spec = []

    class health_result(TPayload):
        _ttype = 12
        thrift_spec = {0: (12, 'success', Health, False)}
        default_spec = [('success', None)]
        oneway = False

    class stats_args(TPayload):
        _ttype = 12
        thrift_spec = {}
        default_spec = []

    class stats_result(TPayload):
        _ttype = 12
        thrift_spec = {1: (12, 'internal_error', InternalError, False), 0: (12, 'success', Stats, False)}
        default_spec = [('success', None), ('internal_error', None)]
        oneway = False

__thrift_meta__ = {
    'enums': [ErrorCode],
    'structs': [InferenceParams, ImageError, ClassScore, InferenceResult, InferOptions, ServerInfo, Health, Histogram, NodeStats, WorkerStats, EngineProcessStats, GpuStats, Stats],
    'exceptions': [InvalidImage, InvalidRequest, Overloaded, DeadlineExceeded, InternalError],
    'services': [InferenceService],
    'includes': [],
}
