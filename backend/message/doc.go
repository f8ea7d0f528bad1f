// Package message reads internet messages as they are found, not as they should be.
//
// An Index says where each MIME part of a message lies in its raw bytes, so that every section a
// client asks for is cut from those bytes and no message is ever rebuilt. Nothing in a message makes
// it unreadable: fields that cannot be understood are skipped, structures that cannot be taken apart
// stay whole, and only the reader's own failures are returned as errors. What is served always
// has the length that was announced, because both come from the same offsets.
//
// Memory is bounded by the number of parts, never by the size of the message.
package message
