package graphsim

import (
	"fmt"
	"net/http"
	"time"
)

// apiError is a refusal as Graph words it.
type apiError struct {
	status  int
	code    string
	message string
	header  http.Header
}

func (e *apiError) Error() string { return fmt.Sprintf("%d %s: %s", e.status, e.code, e.message) }

// fail makes an apiError.
func fail(status int, code, format string, args ...any) *apiError {
	msg := format
	if len(args) > 0 {
		msg = fmt.Sprintf(format, args...)
	}
	return &apiError{status: status, code: code, message: msg}
}

// with adds a response header to the refusal.
func (e *apiError) with(name, value string) *apiError {
	if e.header == nil {
		e.header = http.Header{}
	}
	e.header.Set(name, value)
	return e
}

// The refusals that several calls share; the texts are the service's, as recorded by others.
func errItemNotFound() *apiError {
	return fail(404, "ErrorItemNotFound", "The specified object was not found in the store.")
}

func errFolderNotFound() *apiError {
	return fail(404, "ErrorItemNotFound",
		"The specified object was not found in the store., The process failed to get the correct properties.")
}

func errIDMalformed() *apiError { return fail(400, "ErrorInvalidIdMalformed", "Id is malformed.") }

func errAccessDenied() *apiError {
	return fail(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
}

func errBody(format string, args ...any) *apiError {
	return fail(400, "UnableToDeserializePostBody", "were unable to deserialize "+format, args...)
}

func errBadRequest(format string, args ...any) *apiError {
	return fail(400, "BadRequest", format, args...)
}

func errQuery(format string, args ...any) *apiError {
	return fail(400, "RequestBroker--ParseUri", format, args...)
}

func errMethod() *apiError {
	return fail(405, "Request_BadRequest", "Specified HTTP method is not allowed for the request target.")
}

func errSegment(name string) *apiError {
	return fail(400, "BadRequest", "Resource not found for the segment '%s'.", name)
}

// failure renders a refusal.
func (c *call) failure(e *apiError) *reply {
	p := jsonReply(e.status, object{{"error", object{
		{"code", e.code},
		{"message", e.message},
		{"innerError", object{
			{"date", c.sim.now().UTC().Format("2006-01-02T15:04:05")},
			{"request-id", c.requestID},
			{"client-request-id", c.clientID},
		}},
	}}})
	p.header.Set("Content-Type", "application/json")
	for k, v := range e.header {
		p.header[k] = v
	}
	return p
}

// stamp writes a time the way Graph does: UTC, whole seconds.
func stamp(unix int64) string { return time.Unix(unix, 0).UTC().Format("2006-01-02T15:04:05Z") }
