// Classify image files: classify HOST PORT FILE...
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"net"
	"os"
	"time"

	"github.com/apache/thrift/lib/go/thrift"

	"classify/gen-go/inference"
)

const (
	topK    = 3
	timeout = 10 * time.Second // of the call, with all tries
)

// classify returns the results of the requests; what the server refuses as overload is tried again.
func classify(client *inference.InferenceServiceClient, requests []*inference.InferenceParams) ([]*inference.InferenceResult_, error) {
	end := time.Now().Add(timeout)
	for {
		left := time.Until(end)
		options := &inference.InferOptions{
			TopK:      thrift.Int32Ptr(topK),
			TimeoutMs: thrift.Int32Ptr(int32(left.Milliseconds())),
		}
		results, err := client.InferImages(context.Background(), requests, options)
		var overloaded *inference.Overloaded
		if !errors.As(err, &overloaded) {
			return results, err
		}
		pause := time.Duration(int(overloaded.RetryAfterMs)+rand.Intn(50)) * time.Millisecond
		if pause >= left {
			return nil, err
		}
		fmt.Fprintf(os.Stderr, "overloaded, trying again in %d ms\n", pause.Milliseconds())
		time.Sleep(pause)
	}
}

func run(host, port string, files []string) error {
	configuration := &thrift.TConfiguration{ConnectTimeout: timeout, SocketTimeout: timeout}
	socket := thrift.NewTSocketConf(net.JoinHostPort(host, port), configuration)
	transport := thrift.NewTFramedTransportConf(socket, configuration)
	if err := transport.Open(); err != nil {
		return err
	}
	defer transport.Close()
	protocol := thrift.NewTBinaryProtocolConf(transport, configuration)
	client := inference.NewInferenceServiceClient(thrift.NewTStandardClient(protocol, protocol))

	var requests []*inference.InferenceParams
	for _, file := range files {
		image, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		requests = append(requests, &inference.InferenceParams{UUID: file, Data: image})
	}
	results, err := classify(client, requests)
	if err != nil {
		return err
	}
	failed := 0
	for _, result := range results {
		if result.Error != nil {
			fmt.Fprintf(os.Stderr, "%s: %s\n", result.GetUUID(), result.Error.Message)
			failed++
			continue
		}
		for _, entry := range result.TopK {
			fmt.Printf("%s\t%s\t%.4f\n", result.GetUUID(), entry.Label, entry.Score)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d images have no result", failed, len(results))
	}
	return nil
}

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
