// Package protobuf is the codec of protocol buffers for the topics and calls of package bus:
//
//	var orders = bus.NewTopic[*pb.Order]("orders", bus.WithCodec(protobuf.Codec))
//
// Messages are written in the binary format, deterministically, as application/protobuf. JSON events of other clients
// are read too, by the rules of protobuf's JSON mapping. Fields that a program does not know are kept and written back.
// It is a package of its own so that services without protocol buffers do not link them.
package protobuf

import (
	"fmt"
	"mime"
	"reflect"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/hozo-dev/hozo/bus"
)

// ContentType is what Codec writes.
const ContentType = "application/protobuf"

// Codec writes and reads pointers to generated messages.
var Codec bus.Codec = codec{}

type codec struct{}

func (codec) ContentType() string { return ContentType }

func (codec) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is no protobuf message", v)
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// Unmarshal fills a message, or a pointer to one, which is what a topic of *pb.Order gives.
func (codec) Unmarshal(contentType string, data []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		to := reflect.ValueOf(v)
		if to.Kind() != reflect.Pointer || to.Elem().Kind() != reflect.Pointer {
			return fmt.Errorf("%T is no pointer to a protobuf message", v)
		}
		fresh := reflect.New(to.Elem().Type().Elem())
		if m, ok = reflect.TypeAssert[proto.Message](fresh); !ok {
			return fmt.Errorf("%T is no protobuf message", fresh.Interface())
		}
		to.Elem().Set(fresh)
	}
	media := contentType
	if contentType != "" && contentType != ContentType {
		var err error
		if media, _, err = mime.ParseMediaType(contentType); err != nil {
			return fmt.Errorf("%w: %w", bus.ErrContentType, err)
		}
	}
	switch {
	case media == "", media == ContentType, media == "application/x-protobuf", media == "application/vnd.google.protobuf":
		return proto.Unmarshal(data, m)
	case media == "application/json", strings.HasSuffix(media, "+json") && !strings.HasPrefix(media, "application/cloudevents"):
		return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, m)
	}
	return bus.ErrContentType
}
