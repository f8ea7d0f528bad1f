package imapd

import "slices"

// threadByReferences makes the threads of REFERENCES. The numbers in the comments are the steps of RFC 5256 section 3.
func threadByReferences(messages []threadMessage) *threads {
	l := linkMessages(messages) // 1, 2
	t := l.prune(messages)      // 3
	t.sortRoots()               // 4
	t.collateSubjects()         // 5
	for n := range t.messages { // 6; the children of dummies
		t.sortNodes(t.kids[n]) //    come with their roots
	}
	t.sortRoots()
	return t
}

// linkedNode is a message or, behind the messages, one that is only referred to.
type linkedNode struct {
	parent, first, last, next, prev int32 // -1: none
}

// linker builds the tree of step 1.
type linker struct{ nodes []linkedNode }

func (l *linker) add() int32 {
	l.nodes = append(l.nodes, linkedNode{-1, -1, -1, -1, -1})
	return int32(len(l.nodes) - 1)
}

// linkMessages links messages by their references.
func linkMessages(messages []threadMessage) *linker {
	l := &linker{nodes: make([]linkedNode, 0, len(messages)+len(messages)/2)}
	byID := make(map[uint64]int32, len(messages))
	for i := range messages {
		l.add()
		// Of messages with one id the first has it, the others are treated as without.
		if id := messages[i].keys.id; id != 0 {
			if _, taken := byID[id]; !taken {
				byID[id] = int32(i)
			}
		}
	}
	for i := range messages {
		// 1A: a link that is there already is kept.
		parent := int32(-1)
		for _, id := range messages[i].keys.refs {
			n, ok := byID[id]
			if !ok {
				n = l.add()
				byID[id] = n
			}
			if parent >= 0 && l.nodes[n].parent < 0 && !l.isAbove(n, parent) {
				l.link(parent, n)
			}
			parent = n
		}
		// 1B: what the message says of itself counts more than what others said.
		n := int32(i)
		if l.nodes[n].parent >= 0 {
			l.unlink(n)
		}
		if parent >= 0 && !l.isAbove(n, parent) {
			l.link(parent, n)
		}
	}
	return l
}

func (l *linker) link(parent, child int32) {
	p, c := &l.nodes[parent], &l.nodes[child]
	c.parent, c.prev, c.next = parent, p.last, -1
	if p.last >= 0 {
		l.nodes[p.last].next = child
	} else {
		p.first = child
	}
	p.last = child
}

func (l *linker) unlink(child int32) {
	c := &l.nodes[child]
	p := &l.nodes[c.parent]
	if c.prev >= 0 {
		l.nodes[c.prev].next = c.next
	} else {
		p.first = c.next
	}
	if c.next >= 0 {
		l.nodes[c.next].prev = c.prev
	} else {
		p.last = c.prev
	}
	c.parent, c.prev, c.next = -1, -1, -1
}

// isAbove reports whether a is b or above b; a has no parent. It looks upwards from b and through what is below a in
// step, and stops when either comes to its end: so linking costs no more than the smaller of the two trees, and all of
// it n·log n, however references are woven.
func (l *linker) isAbove(a, b int32) bool {
	if a == b {
		return true
	}
	up, down := b, a
	for {
		if up = l.nodes[up].parent; up < 0 {
			return false
		}
		if up == a {
			return true
		}
		// The next one below a, parents before children.
		switch n := &l.nodes[down]; {
		case n.first >= 0:
			down = n.first
		default:
			for down != a && l.nodes[down].next < 0 {
				down = l.nodes[down].parent
			}
			if down == a {
				return false // all seen, and b was not among them
			}
			down = l.nodes[down].next
		}
		if down == b {
			return true
		}
	}
}

// prune makes a forest in which no dummies are but roots that have several children.
func (l *linker) prune(messages []threadMessage) *threads {
	t := &threads{messages: messages, kids: make([][]int32, len(messages))}
	var stack []int32
	// real returns the messages below n with no other message between.
	real := func(n int32) []int32 {
		var found []int32
		stack = stack[:0]
		for c := l.nodes[n].last; c >= 0; c = l.nodes[c].prev {
			stack = append(stack, c)
		}
		for len(stack) > 0 {
			c := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if !t.isDummy(c) {
				found = append(found, c)
				continue
			}
			for c := l.nodes[c].last; c >= 0; c = l.nodes[c].prev {
				stack = append(stack, c)
			}
		}
		return found
	}
	for i := range messages {
		t.kids[i] = real(int32(i))
	}
	for n := range l.nodes {
		n := int32(n)
		if l.nodes[n].parent >= 0 {
			continue
		}
		if !t.isDummy(n) {
			t.roots = append(t.roots, n)
			continue
		}
		switch kids := real(n); len(kids) {
		case 0:
		case 1:
			t.roots = append(t.roots, kids[0])
		default:
			t.roots = append(t.roots, t.addDummy(kids))
		}
	}
	return t
}

func (t *threads) addDummy(kids []int32) int32 {
	t.kids = append(t.kids, kids)
	return int32(len(t.kids) - 1)
}

func (t *threads) sortNodes(nodes []int32) {
	if len(nodes) > 1 {
		slices.SortFunc(nodes, t.compare)
	}
}

// leader is the message whose date and subject a root has: a dummy has those of its first child.
func (t *threads) leader(n int32) int32 {
	if t.isDummy(n) {
		return t.kids[n][0]
	}
	return n
}

// sortRoots sorts the roots by date, and before them the children of dummies.
func (t *threads) sortRoots() {
	for _, n := range t.roots {
		if t.isDummy(n) {
			t.sortNodes(t.kids[n])
		}
	}
	slices.SortFunc(t.roots, func(a, b int32) int { return t.compare(t.leader(a), t.leader(b)) })
}

// collateSubjects joins threads with the same base subject.
func (t *threads) collateSubjects() {
	subject := func(n int32) string { return t.messages[t.leader(n)].keys.subject }
	isReply := func(n int32) bool { return !t.isDummy(n) && t.messages[n].keys.reply }

	// 5B: of each subject the root that the others will join, as an index of roots: a dummy rather than a message,
	// a message rather than a reply.
	table := make(map[string]int, len(t.roots))
	for i, n := range t.roots {
		s := subject(n)
		if s == "" {
			continue
		}
		j, ok := table[s]
		if !ok {
			table[s] = i
			continue
		}
		if old := t.roots[j]; !t.isDummy(old) && (t.isDummy(n) || isReply(old) && !isReply(n)) {
			table[s] = i
		}
	}

	// 5C
	const joined = -1
	for i, n := range t.roots {
		s := subject(n)
		if s == "" {
			continue
		}
		j := table[s]
		if j == i {
			continue
		}
		switch into := t.roots[j]; {
		case t.isDummy(into) && t.isDummy(n):
			t.kids[into] = append(t.kids[into], t.kids[n]...)
		case t.isDummy(into), isReply(n) && !isReply(into):
			t.kids[into] = append(t.kids[into], n)
		default:
			t.roots[j] = t.addDummy([]int32{into, n})
		}
		t.roots[i] = joined
	}
	t.roots = slices.DeleteFunc(t.roots, func(n int32) bool { return n == joined })
}
