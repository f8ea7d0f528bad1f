package wire

import (
	"slices"

	"github.com/emersion/go-imap/v2"
)

// numRange is a range as go-imap keeps it: 0 stands for "*", start <= stop but
// for n:*, which is {n, 0}.
type numRange struct{ start, stop uint32 }

// SeqSet expects a set of sequence numbers. The set comes back sorted, with
// overlapping ranges merged, in time n·log n at most.
func (d *Decoder) SeqSet() imap.SeqSet {
	ranges := d.ranges()
	set := make(imap.SeqSet, len(ranges))
	for i, r := range ranges {
		set[i] = imap.SeqRange{Start: r.start, Stop: r.stop}
	}
	return set
}

// UIDSet expects a set of UIDs, sorted and merged as that of SeqSet.
func (d *Decoder) UIDSet() imap.UIDSet {
	ranges := d.ranges()
	set := make(imap.UIDSet, len(ranges))
	for i, r := range ranges {
		set[i] = imap.UIDRange{Start: imap.UID(r.start), Stop: imap.UID(r.stop)}
	}
	return set
}

// NumSet expects a set of UIDs or of sequence numbers, or "$", which stands for
// the saved result of a search (RFC 5182) and is returned as imap.SearchRes().
func (d *Decoder) NumSet(uid bool) imap.NumSet {
	if d.Try('$') {
		return imap.SearchRes()
	}
	if uid {
		return d.UIDSet()
	}
	return d.SeqSet()
}

func (d *Decoder) ranges() []numRange {
	if d.err != nil {
		return nil
	}
	var ranges []numRange
	sorted := true
	for {
		start := d.setNumber()
		r := numRange{start, start}
		if d.Try(':') {
			r.stop = d.setNumber()
			// *:5 is 5:*, and 9:3 is 3:9.
			if r.start == 0 || (r.stop != 0 && r.stop < r.start) {
				r.start, r.stop = r.stop, r.start
			}
		}
		if d.err != nil {
			return nil
		}
		if n := len(ranges); n > 0 && !ranges[n-1].before(r) {
			sorted = false
		}
		if len(ranges) >= d.lim.Set {
			d.Fail(&LimitError{Text: "set of numbers too long"})
			return nil
		}
		ranges = append(ranges, r)
		if !d.Try(',') {
			break
		}
	}
	if !sorted {
		ranges = mergeRanges(ranges)
	}
	return ranges
}

// before reports whether r ends before s starts, with a gap or not.
func (r numRange) before(s numRange) bool {
	return r.stop != 0 && (s.start == 0 || r.stop < s.start)
}

func mergeRanges(ranges []numRange) []numRange {
	slices.SortFunc(ranges, func(a, b numRange) int {
		// "*" alone, start 0, comes last.
		switch {
		case a.start-1 < b.start-1:
			return -1
		case a.start-1 > b.start-1:
			return 1
		}
		return 0
	})
	merged := ranges[:1]
	for _, r := range ranges[1:] {
		last := &merged[len(merged)-1]
		switch {
		case last.stop == 0: // n:* or *: holds all that follows
		case r.start == 0 || (last.stop < r.start-1):
			merged = append(merged, r)
		case r.stop == 0 || r.stop > last.stop:
			last.stop = r.stop
		}
	}
	return merged
}

func (d *Decoder) setNumber() uint32 {
	if d.Try('*') {
		return 0
	}
	n := d.Number()
	if n == 0 {
		d.Fail(syntaxErrorf("numbers of a set start at 1"))
	}
	return n
}
