// A client of generated stubs in another language: lists presets, then tells of events as they happen.
//
//	client ADDRESS
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "vmshepherd/client/gen/vmshepherd/orchestrator/v1"
)

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	shepherd, ctx := pb.NewOrchestratorServiceClient(connection), context.Background()
	listed, err := shepherd.ListPresets(ctx, &pb.ListPresetsRequest{})
	check(err)
	for _, preset := range listed.Presets {
		fmt.Println(preset.Name, preset.Phase, preset.VmsByStatus)
	}
	events, err := shepherd.WatchEvents(ctx, &pb.WatchEventsRequest{AfterSequence: new(int64)})
	check(err)
	for {
		chunk, err := events.Recv()
		check(err)
		for _, event := range chunk.Events {
			fmt.Println(event.Sequence, event.Kind, event.Preset, event.Message)
		}
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
