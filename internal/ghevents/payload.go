package ghevents

import "strconv"

func (g *Generator) push(dst []byte, actor *user, in *repo) []byte {
	commits := g.sample(&pushCommits)
	dst = append(dst, `{"push_id":`...)
	dst = number(dst, 536_740_396+g.below(9_000_000))
	dst = append(dst, `,"size":`...)
	dst = number(dst, commits)
	dst = append(dst, `,"distinct_size":`...)
	dst = number(dst, commits)
	dst = append(dst, `,"ref":"refs/heads/`...)
	if g.oneIn(4) {
		dst = g.branch(dst)
	} else {
		dst = append(dst, in.ref...)
	}
	dst = append(dst, `","head":"`...)
	head := len(dst)
	dst = g.sha(dst)
	dst = append(dst, `","before":"`...)
	dst = g.sha(dst)
	dst = append(dst, `","commits":[`...)
	for i := range commits {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"sha":"`...)
		sha := len(dst)
		if i == commits-1 {
			dst = append(dst, dst[head:head+40]...)
		} else {
			dst = g.sha(dst)
		}
		dst = append(dst, `","author":{"email":"`...)
		dst = g.sha(dst)
		dst = append(dst, `@example.com","name":"`...)
		dst = append(dst, actor.login...)
		dst = append(dst, `"},"message":"`...)
		dst = g.title(dst, g.sample(&commitBody))
		dst = append(dst, `","distinct":true,"url":"https://api.github.com/repos/`...)
		dst = append(dst, in.full...)
		dst = append(dst, `/commits/`...)
		dst = append(dst, dst[sha:sha+40]...)
		dst = append(dst, `"}`...)
	}
	return append(dst, `]}`...)
}

func (g *Generator) create(dst []byte, _ *user, in *repo) []byte {
	switch g.below(10) {
	case 0, 1, 2, 3:
		dst = append(dst, `{"ref":"`...)
		dst = g.branch(dst)
		dst = append(dst, `","ref_type":"branch"`...)
	case 4:
		dst = append(dst, `{"ref":"v`...)
		dst = number(dst, g.below(9))
		dst = append(dst, '.')
		dst = number(dst, g.below(40))
		dst = append(dst, `","ref_type":"tag"`...)
	default:
		dst = append(dst, `{"ref":null,"ref_type":"repository"`...)
	}
	dst = append(dst, `,"master_branch":"`...)
	dst = append(dst, in.ref...)
	dst = append(dst, `","description":"`...)
	dst = g.title(dst, g.sample(&descBody))
	return append(dst, `","pusher_type":"user"}`...)
}

func (g *Generator) watch(dst []byte, _ *user, _ *repo) []byte {
	return append(dst, `{"action":"started"}`...)
}

func (g *Generator) madePublic(dst []byte, _ *user, _ *repo) []byte { return append(dst, `{}`...) }

func (g *Generator) deleted(dst []byte, _ *user, _ *repo) []byte {
	dst = append(dst, `{"ref":"`...)
	dst = g.branch(dst)
	return append(dst, `","ref_type":"branch","pusher_type":"user"}`...)
}

func (g *Generator) fork(dst []byte, actor *user, in *repo) []byte {
	dst = append(dst, `{"forkee":`...)
	dst = g.repository(dst, actor, in, true)
	return append(dst, `,"public":true}}`...)
}

func (g *Generator) member(dst []byte, _ *user, _ *repo) []byte {
	dst = append(dst, `{"member":`...)
	dst = person(dst, g.user())
	return append(dst, `,"action":"added"}`...)
}

func (g *Generator) gollum(dst []byte, _ *user, in *repo) []byte {
	page := words[g.below(len(words))]
	dst = append(dst, `{"pages":[{"page_name":"`...)
	dst = append(dst, page...)
	dst = append(dst, `","title":"`...)
	dst = append(dst, page...)
	dst = append(dst, `","summary":null,"action":"edited","sha":"`...)
	dst = g.sha(dst)
	dst = append(dst, `","html_url":"https://github.com/`...)
	dst = append(dst, in.full...)
	dst = append(dst, `/wiki/`...)
	dst = append(dst, page...)
	return append(dst, `"}]}`...)
}

func (g *Generator) commitComment(dst []byte, actor *user, in *repo) []byte {
	id := 9_131_174 + g.below(900_000)
	dst = append(dst, `{"comment":{"url":"https://api.github.com/repos/`...)
	dst = append(dst, in.full...)
	dst = append(dst, `/comments/`...)
	dst = number(dst, id)
	dst = append(dst, `","html_url":"https://github.com/`...)
	dst = append(dst, in.full...)
	dst = append(dst, `/commit/`...)
	sha := len(dst)
	dst = g.sha(dst)
	dst = append(dst, `#commitcomment-`...)
	dst = number(dst, id)
	dst = append(dst, `","id":`...)
	dst = number(dst, id)
	dst = append(dst, `,"user":`...)
	dst = person(dst, actor)
	dst = append(dst, `,"position":null,"line":null,"path":"","commit_id":"`...)
	dst = append(dst, dst[sha:sha+40]...)
	dst = append(dst, '"')
	return append(g.stamped(dst, &commentBody), '}')
}

func (g *Generator) release(dst []byte, actor *user, in *repo) []byte {
	id, tag := 818_178+g.below(90_000), "v"+strconv.Itoa(g.below(9))+"."+strconv.Itoa(g.below(40))
	dst = append(dst, `{"action":"published","release":{"url":"https://api.github.com/repos/`...)
	dst = append(dst, in.full...)
	dst = append(dst, `/releases/`...)
	dst = number(dst, id)
	dst = append(dst, `","assets_url":"https://api.github.com/repos/`...)
	dst = append(dst, in.full...)
	dst = append(dst, `/releases/`...)
	dst = number(dst, id)
	dst = append(dst, `/assets","upload_url":"https://uploads.github.com/repos/`...)
	dst = append(dst, in.full...)
	dst = append(dst, `/releases/`...)
	dst = number(dst, id)
	dst = append(dst, `/assets{?name}","html_url":"https://github.com/`...)
	dst = append(dst, in.full...)
	dst = append(dst, `/releases/tag/`...)
	dst = append(dst, tag...)
	dst = append(dst, `","id":`...)
	dst = number(dst, id)
	dst = append(dst, `,"tag_name":"`...)
	dst = append(dst, tag...)
	dst = append(dst, `","target_commitish":"`...)
	dst = append(dst, in.ref...)
	dst = append(dst, `","name":"`...)
	dst = append(dst, tag...)
	dst = append(dst, `","draft":false,"author":`...)
	dst = person(dst, actor)
	dst = append(dst, `,"prerelease":false,"published_at":`...)
	dst = append(dst, g.now...)
	dst = append(dst, `,"assets":[],"tarball_url":"https://api.github.com/repos/`...)
	dst = append(dst, in.full...)
	dst = append(dst, `/tarball/`...)
	dst = append(dst, tag...)
	dst = append(dst, `","zipball_url":"https://api.github.com/repos/`...)
	dst = append(dst, in.full...)
	dst = append(dst, `/zipball/`...)
	dst = append(dst, tag...)
	dst = append(dst, '"')
	return append(g.stamped(dst, &releaseBody), '}')
}

// stamped ends an object: the times, a body of a length drawn from q, the brace.
func (g *Generator) stamped(dst []byte, q *quantiles) []byte {
	dst = append(dst, `,"created_at":`...)
	dst = append(dst, g.now...)
	dst = append(dst, `,"updated_at":`...)
	dst = append(dst, g.now...)
	dst = append(dst, `,"body":"`...)
	dst = g.text(dst, g.sample(q))
	return append(dst, `"}`...)
}
