package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"strings"

	"github.com/hozo-dev/hozo/fault"
)

// Codec writes and reads the values of a topic or a call. It must be safe for concurrent use, and Marshal must give the
// same bytes for the same value as far as the exactly-once effects of a stage are to hold.
type Codec interface {
	// ContentType is the media type of what Marshal gives. It travels with the data.
	ContentType() string
	Marshal(v any) ([]byte, error)
	// Unmarshal fills what v points to. contentType is the media type that came with data, "" when none did. It returns
	// an error, ErrContentType or one of its own, when it cannot read such data; the event is then parked.
	Unmarshal(contentType string, data []byte, v any) error
}

// ErrContentType says that a codec does not read a content type.
var ErrContentType = errors.New("the content type is not one that the topic reads")

// Option changes a Topic or a Call.
type Option func(*options)

type options struct {
	codec      Codec // nil: by the type
	ceType     string
	idempotent bool
	key        any // a func(T) string of a Topic[T]; nil: by the stream's path
}

// WithCodec sets how values are written and read. Without it []byte and json.RawMessage pass through as they are and
// everything else is JSON. Package bus/protobuf has the one for protocol buffers.
func WithCodec(c Codec) Option { return func(o *options) { o.codec = c } }

// CloudEvents puts the attributes of a CloudEvent into the headers of each live event, request and answer; eventType is
// its type, by default the subject. Bare events of a stream with frames: off and dead letters have them in any case.
func CloudEvents(eventType string) Option {
	return func(o *options) { o.ceType = orSubject(eventType) }
}

// subjectType as a type means the subject.
const subjectType = "*"

func orSubject(eventType string) string {
	if eventType == "" {
		return subjectType
	}
	return eventType
}

// Idempotent says of a Call that being asked twice does no harm: Ask then tries again, until its context ends, while
// nobody serves it or the bus is away.
func Idempotent() Option { return func(o *options) { o.idempotent = true } }

func optionsOf(opts []Option) options {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

const contentJSON = "application/json"

// contentType is the media type of values of T; "" for what passes through.
func contentTypeOf[T any](o *options) string {
	if o.codec != nil {
		return o.codec.ContentType()
	}
	switch any((*T)(nil)).(type) {
	case *[]byte:
		return ""
	}
	return contentJSON
}

// stated is what a header says of a content type: JSON is not worth one.
func stated(contentType string) string {
	if contentType == contentJSON {
		return ""
	}
	return contentType
}

// readsJSON reports whether data of a content type is JSON by itself: not the envelope of a structured CloudEvent.
func readsJSON(contentType string) bool {
	if contentType == "" || contentType == contentJSON {
		return true
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	return media == contentJSON || media == "text/json" ||
		strings.HasSuffix(media, "+json") && !strings.HasPrefix(media, "application/cloudevents")
}

func encode[T any](subject string, o *options, v T) ([]byte, error) {
	if o.codec != nil {
		data, err := o.codec.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("encode event for %s: %w", subject, err)
		}
		return data, nil
	}
	switch b := any(v).(type) {
	case []byte:
		return b, nil
	case json.RawMessage:
		return b, nil
	}
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode event for %s: %w", subject, err)
	}
	return data, nil
}

// rawValue returns *v as what an event's own bytes are put into, or nil when they have to be decoded; onlyJSON says that
// they are so unless they come with a content type that is not JSON.
func rawValue[T any](o *options, v *T) (raw *[]byte, onlyJSON bool) {
	if o.codec != nil {
		return nil, false
	}
	switch p := any(v).(type) {
	case *[]byte:
		return p, false
	case *json.RawMessage:
		return (*[]byte)(p), true
	}
	return nil, false
}

// decode fills *v from data, which came with a content type or, contentType being "", without. []byte and
// json.RawMessage alias data.
func decode[T any](o *options, contentType string, data []byte, v *T) error {
	if raw, onlyJSON := rawValue(o, v); raw != nil && (!onlyJSON || readsJSON(contentType)) {
		*raw = data
		return nil
	}
	var err error
	switch {
	case o.codec != nil:
		err = o.codec.Unmarshal(contentType, data, v)
	case !readsJSON(contentType):
		err = ErrContentType
	default:
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		f := &fault.Error{
			Code: CodeDecode, What: fmt.Sprintf("the event is no %T", *v), Err: err,
			Fix: "correct the producer, or the type of the topic",
		}
		if contentType != "" {
			f.What = fmt.Sprintf("the event, %s, is no %T", contentType, *v)
		}
		return f
	}
	return nil
}
