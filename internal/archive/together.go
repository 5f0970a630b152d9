package archive

// Together has incarnations that several Finds answered share what is read for them, as those that one Select found do: sources of one
// cohort lie in the same blocks, and each is then read behind the one before, without going through all of the block again. It holds up to
// 16 MiB of blocks until the incarnations are let go of, and is not to be called while one of them is being read.
func Together(incs ...*Incarnation) {
	var s *session
	for _, inc := range incs {
		if p, ok := inc.parts.(*parts); ok && p.session != nil {
			s = p.session
			break
		}
	}
	if s == nil {
		s = &session{}
	}
	for _, inc := range incs {
		if p, ok := inc.parts.(*parts); ok {
			p.session = s
		}
	}
}
