package ghevents

// link appends "key":"prefix full/path number suffix", with a comma before it.
func link(dst []byte, key, prefix string, in *repo, path string, n int, suffix string) []byte {
	dst = append(dst, `,"`...)
	dst = append(dst, key...)
	dst = append(dst, `":"`...)
	dst = append(dst, prefix...)
	dst = append(dst, in.full...)
	dst = append(dst, path...)
	dst = number(dst, n)
	dst = append(dst, suffix...)
	return append(dst, '"')
}

const (
	apiRepos = "https://api.github.com/repos/"
	pages    = "https://github.com/"
)

// issueObject appends an issue.
func (g *Generator) issueObject(dst []byte, in *repo, n int, isOpen bool) []byte {
	dst = append(dst, `{"id":`...)
	dst = number(dst, 50_855_761+g.below(3_000_000))
	dst = link(dst, "url", apiRepos, in, "/issues/", n, "")
	dst = link(dst, "labels_url", apiRepos, in, "/issues/", n, "/labels{/name}")
	dst = link(dst, "comments_url", apiRepos, in, "/issues/", n, "/comments")
	dst = link(dst, "events_url", apiRepos, in, "/issues/", n, "/events")
	dst = link(dst, "html_url", pages, in, "/issues/", n, "")
	dst = append(dst, `,"number":`...)
	dst = number(dst, n)
	dst = append(dst, `,"title":"`...)
	dst = g.title(dst, g.sample(&titleBody))
	dst = append(dst, `","user":`...)
	dst = person(dst, g.user())
	dst = append(dst, `,"labels":[`...)
	if g.oneIn(4) {
		label := words[g.below(len(words))]
		dst = append(dst, `{"url":"https://api.github.com/repos/`...)
		dst = append(dst, in.full...)
		dst = append(dst, `/labels/`...)
		dst = append(dst, label...)
		dst = append(dst, `","name":"`...)
		dst = append(dst, label...)
		dst = append(dst, `","color":"fc2929"}`...)
	}
	state := `],"state":"closed"`
	if isOpen {
		state = `],"state":"open"`
	}
	dst = append(dst, state...)
	dst = append(dst, `,"locked":false,"assignee":`...)
	if g.oneIn(5) {
		dst = person(dst, g.user())
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"milestone":null,"comments":`...)
	dst = number(dst, g.below(40)/(1+g.below(20)))
	dst = append(dst, `,"closed_at":`...)
	dst = g.nullOrTime(dst, isOpen)
	return g.stamped(dst, &issueBody)
}

func (g *Generator) issues(dst []byte, _ *user, in *repo) []byte {
	isOpen := g.oneIn(2)
	action := `{"action":"closed","issue":`
	if isOpen {
		action = `{"action":"opened","issue":`
	}
	dst = append(dst, action...)
	dst = g.issueObject(dst, in, 1+g.below(2000), isOpen)
	return append(dst, '}')
}

func (g *Generator) issueComment(dst []byte, actor *user, in *repo) []byte {
	n, id := 1+g.below(2000), 68_475_779+g.below(9_000_000)
	dst = append(dst, `{"action":"created","issue":`...)
	dst = g.issueObject(dst, in, n, !g.oneIn(4))
	dst = append(dst, `,"comment":{"id":`...)
	dst = number(dst, id)
	dst = link(dst, "url", apiRepos, in, "/issues/comments/", id, "")
	dst = link(dst, "issue_url", apiRepos, in, "/issues/", n, "")
	dst = link(dst, "html_url", pages, in, "/issues/", n, "#issuecomment")
	dst = append(dst, `,"user":`...)
	dst = person(dst, actor)
	return append(g.stamped(dst, &commentBody), '}')
}

// side appends the head or the base of a pull request.
func (g *Generator) side(dst []byte, key string, owner *user, r *repo, isFork bool) []byte {
	dst = append(dst, `,"`...)
	dst = append(dst, key...)
	dst = append(dst, `":{"label":"`...)
	dst = append(dst, owner.login...)
	dst = append(dst, ':')
	name := len(dst)
	if isFork {
		dst = g.branch(dst)
	} else {
		dst = append(dst, r.ref...)
	}
	ref := dst[name:len(dst):len(dst)]
	dst = append(dst, `","ref":"`...)
	dst = append(dst, ref...)
	dst = append(dst, `","sha":"`...)
	dst = g.sha(dst)
	dst = append(dst, `","user":`...)
	dst = person(dst, owner)
	dst = append(dst, `,"repo":`...)
	dst = g.repository(dst, owner, r, isFork)
	return append(dst, `}}`...)
}

// pullLinks are the entries of a pull request's _links: open, owner/name, path, number, end.
var pullLinks = [...]struct{ open, path, end string }{
	{`"self":{"href":"https://api.github.com/repos/`, "/pulls/", `"}`},
	{`"html":{"href":"https://github.com/`, "/pull/", `"}`},
	{`"issue":{"href":"https://api.github.com/repos/`, "/issues/", `"}`},
	{`"comments":{"href":"https://api.github.com/repos/`, "/issues/", `/comments"}`},
	{`"review_comments":{"href":"https://api.github.com/repos/`, "/pulls/", `/comments"}`},
	{`"commits":{"href":"https://api.github.com/repos/`, "/pulls/", `/commits"}`},
}

// pullObject appends a pull request by author. The short form, in review comments, ends before the counts.
func (g *Generator) pullObject(dst []byte, author *user, in *repo, n int, isOpen, isShort bool) []byte {
	dst = append(dst, `{"id":`...)
	dst = number(dst, 26_738_755+g.below(2_000_000))
	dst = link(dst, "url", apiRepos, in, "/pulls/", n, "")
	dst = link(dst, "html_url", pages, in, "/pull/", n, "")
	dst = link(dst, "diff_url", pages, in, "/pull/", n, ".diff")
	dst = link(dst, "patch_url", pages, in, "/pull/", n, ".patch")
	dst = link(dst, "issue_url", apiRepos, in, "/issues/", n, "")
	dst = append(dst, `,"number":`...)
	dst = number(dst, n)
	state := `,"state":"closed"`
	if isOpen {
		state = `,"state":"open"`
	}
	dst = append(dst, state...)
	dst = append(dst, `,"locked":false,"title":"`...)
	dst = g.title(dst, g.sample(&titleBody))
	dst = append(dst, `","user":`...)
	dst = person(dst, author)
	dst = append(dst, `,"closed_at":`...)
	dst = g.nullOrTime(dst, isOpen)
	dst = append(dst, `,"merged_at":`...)
	dst = g.nullOrTime(dst, isOpen)
	dst = append(dst, `,"assignee":null,"milestone":null`...)
	dst = link(dst, "commits_url", apiRepos, in, "/pulls/", n, "/commits")
	dst = link(dst, "review_comments_url", apiRepos, in, "/pulls/", n, "/comments")
	dst = link(dst, "comments_url", apiRepos, in, "/issues/", n, "/comments")
	dst = g.side(dst, "head", author, in, true)
	dst = g.side(dst, "base", in.owner, in, false)
	dst = append(dst, `,"_links":{`...)
	for i, l := range pullLinks {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, l.open...)
		dst = append(dst, in.full...)
		dst = append(dst, l.path...)
		dst = number(dst, n)
		dst = append(dst, l.end...)
	}
	dst = append(dst, '}')
	if !isShort {
		dst = append(dst, `,"mergeable":true,"mergeable_state":"clean","merged_by":`...)
		if isOpen {
			dst = append(dst, "null"...)
		} else {
			dst = person(dst, in.owner)
		}
		dst = append(dst, `,"comments":`...)
		dst = number(dst, g.below(9))
		dst = append(dst, `,"commits":`...)
		dst = number(dst, 1+g.below(9))
		dst = append(dst, `,"additions":`...)
		dst = number(dst, g.below(900))
		dst = append(dst, `,"deletions":`...)
		dst = number(dst, g.below(300))
		dst = append(dst, `,"changed_files":`...)
		dst = number(dst, 1+g.below(30))
	}
	dst = append(dst, `,"merge_commit_sha":"`...)
	dst = g.sha(dst)
	dst = append(dst, '"')
	return g.stamped(dst, &pullBody)
}

func (g *Generator) pullRequest(dst []byte, actor *user, in *repo) []byte {
	n, isOpen := 1+g.below(2000), g.oneIn(2)
	action := `{"action":"closed","number":`
	if isOpen {
		action = `{"action":"opened","number":`
	}
	dst = append(dst, action...)
	dst = number(dst, n)
	dst = append(dst, `,"pull_request":`...)
	dst = g.pullObject(dst, actor, in, n, isOpen, false)
	return append(dst, '}')
}

func (g *Generator) reviewComment(dst []byte, actor *user, in *repo) []byte {
	n, id := 1+g.below(2000), 22_396_772+g.below(3_000_000)
	dst = append(dst, `{"action":"created","comment":{"id":`...)
	dst = number(dst, id)
	dst = link(dst, "url", apiRepos, in, "/pulls/comments/", id, "")
	dst = link(dst, "html_url", pages, in, "/pull/", n, "#discussion")
	dst = link(dst, "pull_request_url", apiRepos, in, "/pulls/", n, "")
	dst = append(dst, `,"diff_hunk":"@@ -11,7 +11,7 @@ `...)
	dst = g.text(dst, g.sample(&hunkBody))
	dst = append(dst, `","path":"`...)
	dst = g.branch(dst)
	dst = append(dst, `.go","position":`...)
	dst = number(dst, g.below(90))
	dst = append(dst, `,"user":`...)
	dst = person(dst, actor)
	dst = append(dst, `,"commit_id":"`...)
	dst = g.sha(dst)
	dst = append(dst, '"')
	dst = g.stamped(dst, &commentBody)
	dst = append(dst, `,"pull_request":`...)
	dst = g.pullObject(dst, g.user(), in, n, true, true)
	return append(dst, '}')
}
