//go:build unix

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// maxMessage is above what a message of the tests has.
const maxMessage = 8 << 20

// grpcApp is gRPC's own test service.
type grpcApp struct {
	testpb.UnimplementedTestServiceServer
	ended chan error // why the context of a hanging call ended
}

// UnaryCall answers with what it got, or with the status that is asked for.
func (a *grpcApp) UnaryCall(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if want := in.GetResponseStatus(); want != nil {
		s, err := status.New(codes.Code(want.Code), want.Message).WithDetails(wrapperspb.String("detail"))
		if err != nil {
			return nil, err
		}
		return nil, s.Err()
	}
	md, _ := metadata.FromIncomingContext(ctx)
	if err := grpc.SetHeader(ctx, metadata.Pairs("x-header", fmt.Sprint(md["x-request"]))); err != nil {
		return nil, err
	}
	deadline, ok := ctx.Deadline()
	if err := grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "end", "x-bin-bin", "\x00\xff", "x-deadline", fmt.Sprint(ok && time.Until(deadline) > 50*time.Minute))); err != nil {
		return nil, err
	}
	return &testpb.SimpleResponse{Payload: in.Payload}, nil
}

// EmptyCall hangs until its context ends.
func (a *grpcApp) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	<-ctx.Done()
	a.ended <- ctx.Err()
	return nil, status.FromContextError(ctx.Err()).Err()
}

// StreamingInputCall adds sizes up.
func (a *grpcApp) StreamingInputCall(stream testpb.TestService_StreamingInputCallServer) error {
	var n int32
	for {
		in, err := stream.Recv()
		if err == io.EOF {
			return stream.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: n})
		}
		if err != nil {
			return err
		}
		n += int32(len(in.Payload.GetBody()))
	}
}

// StreamingOutputCall sends a message of each size.
func (a *grpcApp) StreamingOutputCall(in *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
	for i, p := range in.ResponseParameters {
		if err := stream.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: noise(int(p.Size), byte(i))}}); err != nil {
			return err
		}
	}
	stream.SetTrailer(metadata.Pairs("x-trailer", "end"))
	return nil
}

// FullDuplexCall sends its header, and then each message back. It tells how it
// ended.
func (a *grpcApp) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	if err := stream.SendHeader(metadata.Pairs("x-header", "first")); err != nil {
		return err
	}
	for {
		in, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			a.ended <- stream.Context().Err()
			return err
		}
		if err := stream.Send(&testpb.StreamingOutputCallResponse{Payload: in.Payload}); err != nil {
			return err
		}
	}
}

// TestGRPC calls a grpc-go server with a grpc-go client.
func TestGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := &grpcApp{ended: make(chan error, 10)}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage))
	testpb.RegisterTestServiceServer(server, served)
	go server.Serve(l)
	t.Cleanup(server.Stop)

	eachTransport(t, func(t *testing.T, transport string) {
		public := expose(t, "h2c://"+l.Addr().String(), transport)
		conn, err := grpc.NewClient("passthrough:///"+hostOf(t, public),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return loopback(ctx, "tcp", addr) }),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		c := testpb.NewTestServiceClient(conn)
		for name, f := range map[string]func(*testing.T, testpb.TestServiceClient){
			"unary": grpcUnary, "client streams": grpcClientStreams, "server streams": grpcServerStreams,
			"both stream": grpcBothStream, "trailers only": grpcTrailersOnly,
		} {
			t.Run(name, func(t *testing.T) { f(t, c) })
		}
		t.Run("deadline", func(t *testing.T) { grpcDeadline(t, c, served) })
		t.Run("cancel", func(t *testing.T) { grpcCancel(t, c, served) })
	})
}

// grpcUnary has metadata both ways, the deadline's announcement, and 4 MB.
func grpcUnary(t *testing.T, c testpb.TestServiceClient) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "x-request", "one", "x-request", "two")
	for _, size := range []int{0, 1, 4 << 20} {
		var header, trailer metadata.MD
		body := noise(size, 6)
		res, err := c.UnaryCall(ctx, &testpb.SimpleRequest{Payload: &testpb.Payload{Body: body}}, grpc.Header(&header), grpc.Trailer(&trailer))
		if err != nil || !bytes.Equal(res.Payload.GetBody(), body) {
			t.Fatalf("%d bytes: got %d, %v", size, len(res.GetPayload().GetBody()), err)
		}
		got := fmt.Sprintf("%q %q %q %q", header["x-header"], trailer["x-trailer"], trailer["x-bin-bin"], trailer["x-deadline"])
		if want := `["[one two]"] ["end"] ["\x00\xff"] ["true"]`; got != want {
			t.Errorf("metadata %s, want %s", got, want)
		}
	}
}

func grpcClientStreams(t *testing.T, c testpb.TestServiceClient) {
	stream, err := c.StreamingInputCall(bounded(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	for range 64 {
		if err := stream.Send(&testpb.StreamingInputCallRequest{Payload: &testpb.Payload{Body: noise(64<<10, 7)}}); err != nil {
			t.Fatal(err)
		}
	}
	if res, err := stream.CloseAndRecv(); err != nil || res.AggregatedPayloadSize != 64*64<<10 {
		t.Errorf("got %v, %v", res, err)
	}
}

func grpcServerStreams(t *testing.T, c testpb.TestServiceClient) {
	in := &testpb.StreamingOutputCallRequest{}
	for i := range 50 {
		in.ResponseParameters = append(in.ResponseParameters, &testpb.ResponseParameters{Size: int32(i * 3000)})
	}
	stream, err := c.StreamingOutputCall(bounded(t, patience), in)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		res, err := stream.Recv()
		if err != nil || !bytes.Equal(res.Payload.GetBody(), noise(i*3000, byte(i))) {
			t.Fatalf("message %d: %d bytes, %v", i, len(res.GetPayload().GetBody()), err)
		}
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Errorf("the end is %v", err)
	}
	if got := fmt.Sprint(stream.Trailer()["x-trailer"]); got != "[end]" {
		t.Errorf("trailer %s", got)
	}
}

// grpcBothStream waits for the header, and then sends each message when the one
// before has come back.
func grpcBothStream(t *testing.T, c testpb.TestServiceClient) {
	stream, err := c.FullDuplexCall(bounded(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	if header, err := stream.Header(); err != nil || fmt.Sprint(header["x-header"]) != "[first]" {
		t.Fatalf("header %v, %v", header, err)
	}
	for i := range 100 {
		body := noise(i*100, byte(i))
		if i == 99 {
			body = noise(4<<20, 9)
		}
		if err := stream.Send(&testpb.StreamingOutputCallRequest{Payload: &testpb.Payload{Body: body}}); err != nil {
			t.Fatal(err)
		}
		res, err := stream.Recv()
		if err != nil || !bytes.Equal(res.Payload.GetBody(), body) {
			t.Fatalf("message %d: %d bytes, %v", i, len(res.GetPayload().GetBody()), err)
		}
	}
	stream.CloseSend()
	if _, err := stream.Recv(); err != io.EOF {
		t.Errorf("the end is %v", err)
	}
}

// grpcTrailersOnly fails calls, 4 at a time: an answer of trailers alone keeps
// its status, message and details each time.
func grpcTrailersOnly(t *testing.T, c testpb.TestServiceClient) {
	ctx := bounded(t, 2*patience)
	var callers sync.WaitGroup
	for caller := range 4 {
		callers.Go(func() {
			for i := range 100 {
				message := fmt.Sprintf("caller %d, call %d: grüße, 100%%\n", caller, i)
				_, err := c.UnaryCall(ctx, &testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Code: int32(codes.DataLoss), Message: message}})
				s := status.Convert(err)
				if s.Code() != codes.DataLoss || s.Message() != message || len(s.Details()) != 1 {
					t.Errorf("call %d: %v with %d details", i, err, len(s.Details()))
					return
				}
			}
		})
	}
	callers.Wait()
}

// grpcDeadline lets a deadline pass: both ends learn of it. Each has a clock of
// its own. Where the server's is first it resets the call, which is told as an
// error of the app; so it may take more than one call.
func grpcDeadline(t *testing.T, c testpb.TestServiceClient, served *grpcApp) {
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		_, err := c.EmptyCall(ctx, &testpb.Empty{})
		cancel()
		awaitOn(t, served.ended, "the end of the call at the server")
		switch status.Code(err) {
		case codes.DeadlineExceeded:
			return
		case codes.Canceled, codes.Unavailable:
			t.Log(err)
		default:
			t.Fatalf("got %v, want DeadlineExceeded", err)
		}
	}
	t.Error("the server's clock was always first")
}

// grpcCancel leaves a call in the middle: the server learns of it.
func grpcCancel(t *testing.T, c testpb.TestServiceClient, served *grpcApp) {
	ctx, cancel := context.WithCancel(bounded(t, 2*patience))
	stream, err := c.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("got %v, want Canceled", err)
	}
	if err := awaitOn(t, served.ended, "the end of the call at the server"); !errors.Is(err, context.Canceled) {
		t.Errorf("the server's context ended with %v", err)
	}
}
