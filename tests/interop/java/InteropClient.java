import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;
import org.apache.thrift.TApplicationException;
import org.apache.thrift.TBase;
import org.apache.thrift.TException;
import org.apache.thrift.TServiceClient;
import org.apache.thrift.protocol.TBinaryProtocol;
import org.apache.thrift.protocol.TProtocol;
import org.apache.thrift.transport.TSocket;
import org.apache.thrift.transport.TTransport;
import org.apache.thrift.transport.layered.TFramedTransport;
import thriftpipe.inference.ClassScore;
import thriftpipe.inference.DeadlineExceeded;
import thriftpipe.inference.Health;
import thriftpipe.inference.InferOptions;
import thriftpipe.inference.InferenceParams;
import thriftpipe.inference.InferenceResult;
import thriftpipe.inference.InferenceService;
import thriftpipe.inference.InternalError;
import thriftpipe.inference.InvalidImage;
import thriftpipe.inference.InvalidRequest;
import thriftpipe.inference.Overloaded;
import thriftpipe.inference.ServerInfo;

/**
 * The calls of tests/interop/scenario.py with Apache Thrift's Java library: InteropClient HOST PORT
 * framed|buffered IMAGE... prints the report as lines of NAME=VALUE.
 */
public final class InteropClient {
  private static final int TIMEOUT_MS = 120_000;
  /** As many images as the server ever takes. */
  private static final int WHOLE_SERVER = 24;

  private static final PrintStream OUT = new PrintStream(System.out, false, StandardCharsets.UTF_8);

  private InteropClient() {}

  /** Sends calls without any argument, also of methods that do not exist. */
  private static final class EmptyCalls extends TServiceClient {
    EmptyCalls(TProtocol protocol) {
      super(protocol);
    }

    void call(String method, TBase<?, ?> result) throws TException {
      sendBase(method, new InferenceService.ping_args());
      receiveBase(result, method);
    }
  }

  private static TProtocol connect(String host, int port, String kind) throws TException {
    // TSocket buffers by itself.
    TTransport transport = new TSocket(host, port, TIMEOUT_MS);
    if (kind.equals("framed")) {
      transport = new TFramedTransport(transport);
    }
    transport.open();
    return new TBinaryProtocol(transport);
  }

  private static void print(String name, Object value) {
    OUT.println(name + "=" + value);
  }

  private static byte[] after(String words, byte[] image) {
    byte[] start = words.getBytes(StandardCharsets.US_ASCII);
    return ByteBuffer.allocate(start.length + image.length).put(start).put(image).array();
  }

  private static InferenceParams params(byte[] data, String uuid) {
    return new InferenceParams(uuid, ByteBuffer.wrap(data));
  }

  private static InferenceParams params(byte[] data) {
    return params(data, "one");
  }

  private static void printResult(String name, InferenceResult result) {
    print(name + ".label", result.getLabel());
    print(name + ".score", result.getScore());
    if (result.isSetUuid()) {
      print(name + ".uuid", result.getUuid());
    }
    if (result.isSetClass_id()) {
      print(name + ".class_id", result.getClass_id());
    }
    for (int place = 0; result.isSetTop_k() && place < result.getTop_kSize(); place++) {
      ClassScore entry = result.getTop_k().get(place);
      print(name + ".top_k." + place + ".class_id", entry.getClass_id());
      print(name + ".top_k." + place + ".label", entry.getLabel());
      print(name + ".top_k." + place + ".score", entry.getScore());
    }
    if (result.isSetError()) {
      print(name + ".error.code", result.getError().getCode().getValue());
      print(name + ".error.message", result.getError().getMessage());
    }
    if (result.isSetStage_times_ms()) {
      print(
          name + ".stages",
          String.join(",", new TreeMap<>(result.getStage_times_ms()).keySet()));
    }
  }

  private static void printResults(String name, List<InferenceResult> results) {
    for (int i = 0; i < results.size(); i++) {
      printResult(name + "." + i, results.get(i));
    }
  }

  private static String pairs(Map<String, String> map) {
    return new TreeMap<>(map)
        .entrySet().stream()
            .map(pair -> pair.getKey() + "=" + pair.getValue())
            .collect(Collectors.joining(","));
  }

  private static void lists(InferenceService.Client client, List<byte[]> images)
      throws TException {
    List<InferenceParams> requests = new ArrayList<>();
    for (int i = 0; i < images.size(); i++) {
      requests.add(params(images.get(i), "u" + i));
    }
    List<InferenceParams> withBad = new ArrayList<>(requests);
    withBad.add(1, params("no image".getBytes(StandardCharsets.US_ASCII), "bad"));
    InferOptions options =
        new InferOptions().setTop_k(2).setTimeout_ms(60_000).setWith_stage_times(true);
    printResults("with_options", client.infer_images(withBad, options));
    printResults("without_options", client.infer_images(requests, null));
  }

  private static void info(InferenceService.Client client) throws TException {
    ServerInfo answer = client.server_info();
    print("server_info.handler", answer.getHandler());
    print("server_info.engine", answer.getEngine());
    print("server_info.precision", answer.getPrecision());
    print("server_info.model", answer.getModel());
    print("server_info.model_sha256", answer.getModel_sha256());
    print("server_info.config_sha256", answer.getConfig_sha256());
    print("server_info.pid", answer.getPid());
    print("server_info.worker", answer.isSetWorker() ? answer.getWorker() : "None");
    print("server_info.workers", answer.isSetWorkers() ? answer.getWorkers() : "None");
    print("server_info.versions", pairs(answer.getVersions()));
    print("server_info.settings", pairs(answer.getSettings()));
    Health health = client.health();
    print("health.ready", health.isReady());
    print("health.reason", health.getReason());
  }

  private static void exceptions(InferenceService.Client client, byte[] image)
      throws TException {
    try {
      client.infer_batch(params("no image".getBytes(StandardCharsets.US_ASCII), "bad"));
    } catch (InvalidImage error) {
      print("invalid_image.message", error.getMessage());
      print("invalid_image.uuid", error.getUuid());
    }
    try {
      client.infer_images(List.of(params(image)), new InferOptions().setTop_k(0));
    } catch (InvalidRequest error) {
      print("invalid_request.message", error.getMessage());
    }
    try {
      client.infer_batch(params(after("late:", image)));
    } catch (DeadlineExceeded error) {
      print("deadline_exceeded.message", error.getMessage());
      print("deadline_exceeded.timeout_ms", error.getTimeout_ms());
    }
    try {
      client.infer_batch(params(after("fail:", image)));
    } catch (InternalError error) {
      print("internal_error.message", error.getMessage());
      print("internal_error.error_id", error.getError_id().length());
    }
  }

  private static void applicationErrors(TProtocol protocol) throws TException {
    EmptyCalls calls = new EmptyCalls(protocol);
    try {
      calls.call("classify", new InferenceService.ping_result());
    } catch (TApplicationException error) {
      print("unknown_method.type", error.getType());
      print("unknown_method.message", error.getMessage());
    }
    try {
      calls.call("infer_batch", new InferenceService.infer_batch_result());
    } catch (TApplicationException error) {
      print("missing_argument.type", error.getType());
      print("missing_argument.message", error.getMessage());
    }
  }

  /** Two calls before an answer is read; a client checks one sequence id at a time, so two do. */
  private static void pipelined(TProtocol protocol, List<byte[]> images) throws TException {
    InferenceService.Client first = new InferenceService.Client(protocol);
    InferenceService.Client second = new InferenceService.Client(protocol);
    first.send_infer_batch(params(images.get(0)));
    second.send_infer_batch(params(images.get(1)));
    printResult("pipelined.0", first.recv_infer_batch());
    printResult("pipelined.1", second.recv_infer_batch());
  }

  private static void overload(
      InferenceService.Client client, InferenceService.Client other, byte[] image)
      throws TException {
    List<InferenceParams> many = Collections.nCopies(WHOLE_SERVER, params(image));
    List<InferenceParams> held = Collections.singletonList(params(after("hold:", image)));
    other.send_infer_images(held, null);
    client.infer_batch(params(after("held:", image)));
    try {
      client.infer_images(many, null);
    } catch (Overloaded error) {
      print("overloaded.message", error.getMessage());
      print(
          "overloaded.retry_after_ms", error.getRetry_after_ms() > 0 ? "positive" : "none");
    }
    client.infer_batch(params(after("free:", image)));
    printResult("overloaded.other", other.recv_infer_images().get(0));
  }

  public static void main(String[] arguments) throws Exception {
    if (arguments.length < 5) {
      System.err.println("usage: InteropClient HOST PORT framed|buffered IMAGE IMAGE...");
      System.exit(2);
    }
    int port = Integer.parseInt(arguments[1]);
    List<byte[]> images = new ArrayList<>();
    for (int i = 3; i < arguments.length; i++) {
      images.add(Files.readAllBytes(Path.of(arguments[i])));
    }
    TProtocol protocol = connect(arguments[0], port, arguments[2]);
    TProtocol otherProtocol = connect(arguments[0], port, arguments[2]);
    InferenceService.Client client = new InferenceService.Client(protocol);
    InferenceService.Client other = new InferenceService.Client(otherProtocol);
    client.ping();
    print("ping", "None");
    for (int i = 0; i < images.size(); i++) {
      printResult("infer_batch." + i, client.infer_batch(params(images.get(i))));
    }
    lists(client, images);
    info(client);
    exceptions(client, images.get(0));
    applicationErrors(protocol);
    pipelined(protocol, images);
    overload(client, other, images.get(0));
    protocol.getTransport().close();
    otherProtocol.getTransport().close();
    OUT.flush();
  }
}
