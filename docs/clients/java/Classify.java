import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.ThreadLocalRandom;
import org.apache.thrift.TException;
import org.apache.thrift.protocol.TBinaryProtocol;
import org.apache.thrift.transport.TSocket;
import org.apache.thrift.transport.TTransport;
import org.apache.thrift.transport.layered.TFramedTransport;
import thriftpipe.inference.ClassScore;
import thriftpipe.inference.InferOptions;
import thriftpipe.inference.InferenceParams;
import thriftpipe.inference.InferenceResult;
import thriftpipe.inference.InferenceService;
import thriftpipe.inference.Overloaded;

/** Classify image files: java Classify HOST PORT FILE... */
public final class Classify {
  private static final int TOP_K = 3;
  /** Of the call, with all tries. */
  private static final int TIMEOUT_MS = 10_000;

  private Classify() {}

  /** The results of the requests; what the server refuses as overload is tried again. */
  private static List<InferenceResult> classify(
      InferenceService.Client client, List<InferenceParams> requests)
      throws TException, InterruptedException {
    long end = System.nanoTime() + TIMEOUT_MS * 1_000_000L;
    while (true) {
      long left = Math.max(1, (end - System.nanoTime()) / 1_000_000);
      InferOptions options = new InferOptions().setTop_k(TOP_K).setTimeout_ms((int) left);
      try {
        return client.infer_images(requests, options);
      } catch (Overloaded error) {
        long pause = error.getRetry_after_ms() + ThreadLocalRandom.current().nextLong(50);
        if (pause >= left) {
          throw error;
        }
        System.err.println("overloaded, trying again in " + pause + " ms");
        Thread.sleep(pause);
      }
    }
  }

  public static void main(String[] arguments) throws Exception {
    List<InferenceParams> requests = new ArrayList<>();
    for (String file : List.of(arguments).subList(2, arguments.length)) {
      byte[] image = Files.readAllBytes(Path.of(file));
      requests.add(new InferenceParams(file, ByteBuffer.wrap(image)));
    }
    PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    boolean failed = false;
    TSocket socket = new TSocket(arguments[0], Integer.parseInt(arguments[1]), TIMEOUT_MS);
    try (TTransport transport = new TFramedTransport(socket)) {
      transport.open();
      InferenceService.Client client =
          new InferenceService.Client(new TBinaryProtocol(transport));
      for (InferenceResult result : classify(client, requests)) {
        if (result.isSetError()) {
          System.err.println(result.getUuid() + ": " + result.getError().getMessage());
          failed = true;
          continue;
        }
        for (ClassScore entry : result.getTop_k()) {
          out.printf(
              Locale.ROOT, "%s\t%s\t%.4f%n", result.getUuid(), entry.getLabel(), entry.getScore());
        }
      }
    } catch (TException error) {
      System.err.println("error: " + error.getMessage());
      failed = true;
    }
    System.exit(failed ? 1 : 0);
  }
}
