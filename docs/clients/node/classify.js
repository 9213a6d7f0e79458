// Classify image files: node classify.js HOST PORT FILE...
"use strict";

const fs = require("node:fs");
const { setTimeout: pause } = require("node:timers/promises");
const thrift = require("thrift");
const InferenceService = require("./gen-nodejs/InferenceService");
const types = require("./gen-nodejs/inference_types");

const TOP_K = 3;
const TIMEOUT_MS = 10_000; // of the call, with all tries

// The results of the requests; what the server refuses as overload is tried again.
async function classify(client, requests) {
  const end = Date.now() + TIMEOUT_MS;
  for (;;) {
    const left = Math.max(1, end - Date.now());
    const options = new types.InferOptions({ top_k: TOP_K, timeout_ms: left });
    try {
      return await client.infer_images(requests, options);
    } catch (error) {
      if (!(error instanceof types.Overloaded)) throw error;
      const wait = error.retry_after_ms + Math.random() * 50;
      if (Date.now() + wait >= end) throw error;
      console.error(`overloaded, trying again in ${Math.round(wait)} ms`);
      await pause(wait);
    }
  }
}

async function main(host, port, ...files) {
  const connection = thrift.createConnection(host, Number(port), {
    transport: thrift.TFramedTransport,
    protocol: thrift.TBinaryProtocol,
    connect_timeout: TIMEOUT_MS,
  });
  const broken = new Promise((_, reject) => {
    connection.on("error", reject);
    connection.on("close", () => reject(new Error("the server closed the connection")));
    // A server that hangs keeps no promise of timeout_ms.
    setTimeout(() => reject(new Error("no answer in time")), TIMEOUT_MS + 1000).unref();
  });
  const client = thrift.createClient(InferenceService, connection);
  const requests = files.map(
    (file) => new types.InferenceParams({ uuid: file, data: fs.readFileSync(file) }),
  );
  try {
    for (const result of await Promise.race([classify(client, requests), broken])) {
      if (result.error) {
        console.error(`${result.uuid}: ${result.error.message}`);
        process.exitCode = 1;
        continue;
      }
      for (const entry of result.top_k) {
        console.log(`${result.uuid}\t${entry.label}\t${entry.score.toFixed(4)}`);
      }
    }
  } finally {
    broken.catch(() => {});
    connection.end();
  }
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
});
