package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// rawCodec passes messages as the bytes they are.
type rawCodec struct{}

func (rawCodec) Name() string                       { return "rig" }
func (rawCodec) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error { *v.(*[]byte) = bytes.Clone(data); return nil }

const (
	grpcService = "rig.App"
	grpcLimit   = 8 << 20 // bytes of a message
)

// A call is the one message that a caller sends: the ask, and for Unary its body.
type call struct {
	Ask  Ask
	Body []byte
}

func (c *call) encode() *[]byte {
	b, _ := json.Marshal(c) // of plain fields
	return &b
}

// grpcServer has the methods Unary and Stream.
func (a *App) grpcServer() *grpc.Server {
	s := grpc.NewServer(grpc.ForceServerCodec(rawCodec{}), grpc.MaxRecvMsgSize(grpcLimit))
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: grpcService,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var in []byte
			if err := dec(&in); err != nil {
				return nil, err
			}
			return a.unary(in)
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Stream", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error { return a.stream(s) }}},
	}, nil)
	return s
}

func (a *App) called(in []byte) (*call, error) {
	c := &call{}
	if err := json.Unmarshal(in, c); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	a.Journal.note(c.Ask.ID, "began", "POST")
	return c, nil
}

func (a *App) unary(in []byte) (any, error) {
	c, err := a.called(in)
	if err != nil {
		return nil, err
	}
	a.hanging.Add(1)
	defer a.hanging.Add(-1)
	if !bytes.Equal(c.Body, bodyOf(c.Ask.ID, c.Ask.Size)) {
		a.Journal.note(c.Ask.ID, "body", bodyWrong)
		return nil, status.Error(codes.DataLoss, "the body is not what was announced")
	}
	a.Journal.note(c.Ask.ID, "body", bodyWhole)
	return &c.Body, nil
}

func (a *App) stream(s grpc.ServerStream) error {
	var in []byte
	if err := s.RecvMsg(&in); err != nil {
		return err
	}
	c, err := a.called(in)
	if err != nil {
		return err
	}
	a.hanging.Add(1)
	defer a.hanging.Add(-1)
	for i := range c.Ask.pieces() {
		if i > 0 {
			time.Sleep(c.Ask.Pause)
		}
		message := c.Ask.message(i)
		if err := s.SendMsg(&message); err != nil {
			return err
		}
	}
	return nil
}

// call judges a Unary or a Stream. An OK status with less than all messages is a truncation.
func (v *Visitor) call(ctx context.Context, o *Result, alive func()) error {
	conn, err := v.grpcConn()
	if err != nil {
		return err
	}
	if o.Ask.Kind == Unary {
		return v.unary(ctx, conn, o)
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/"+grpcService+"/Stream")
	if err == nil {
		err = stream.SendMsg((&call{Ask: o.Ask}).encode())
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return o.status(err)
	}
	for i := 0; ; i++ {
		var message []byte
		err := stream.RecvMsg(&message)
		alive()
		switch {
		case err == io.EOF && i == o.Ask.pieces():
			return o.end(Full, nil)
		case err == io.EOF:
			return o.end(Truncated, fmt.Errorf("status OK after %d messages of %d", i, o.Ask.pieces()))
		case err != nil:
			return o.status(err)
		case i >= o.Ask.pieces() || !bytes.Equal(message, o.Ask.message(i)):
			return o.wrong(message, fmt.Errorf("message %d is not the one that was sent", i))
		}
		o.Got += int64(len(message))
	}
}

func (v *Visitor) unary(ctx context.Context, conn *grpc.ClientConn, o *Result) error {
	body := bodyOf(o.Ask.ID, o.Ask.Size)
	var answer []byte
	if err := conn.Invoke(ctx, "/"+grpcService+"/Unary", (&call{Ask: o.Ask, Body: body}).encode(), &answer); err != nil {
		return o.status(err)
	}
	o.Got = int64(len(answer))
	if !bytes.Equal(answer, body) {
		return o.wrong(answer, errors.New("the answer is not what was sent"))
	}
	return o.end(Full, nil)
}

// status judges a status that is not OK.
func (o *Result) status(err error) error {
	s := status.Convert(err)
	if s.Code() == codes.DataLoss {
		return o.end(Truncated, err) // the app says so
	}
	o.Code = s.Code().String()
	return err
}
