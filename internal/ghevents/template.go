package ghevents

import (
	"strconv"
	"strings"
)

// template is text cut at its placeholder: rendering is one copy a piece.
type template []string

func cut(text string) template { return strings.Split(text, "{}") }

func (t template) append(dst []byte, value string) []byte {
	dst = append(dst, t[0]...)
	for _, piece := range t[1:] {
		dst = append(dst, value...)
		dst = append(dst, piece...)
	}
	return dst
}

// The repeated parts of GitHub's objects: lists of addresses that differ in one name.
var (
	userURLs = cut(`"gravatar_id":"","url":"https://api.github.com/users/{}","html_url":"https://github.com/{}",` +
		`"followers_url":"https://api.github.com/users/{}/followers","following_url":"https://api.github.com/users/{}/following{/other_user}",` +
		`"gists_url":"https://api.github.com/users/{}/gists{/gist_id}","starred_url":"https://api.github.com/users/{}/starred{/owner}{/repo}",` +
		`"subscriptions_url":"https://api.github.com/users/{}/subscriptions","organizations_url":"https://api.github.com/users/{}/orgs",` +
		`"repos_url":"https://api.github.com/users/{}/repos","events_url":"https://api.github.com/users/{}/events{/privacy}",` +
		`"received_events_url":"https://api.github.com/users/{}/received_events"`)
	repoURLs = cut(`"url":"https://api.github.com/repos/{}","forks_url":"https://api.github.com/repos/{}/forks",` +
		`"keys_url":"https://api.github.com/repos/{}/keys{/key_id}","collaborators_url":"https://api.github.com/repos/{}/collaborators{/collaborator}",` +
		`"teams_url":"https://api.github.com/repos/{}/teams","hooks_url":"https://api.github.com/repos/{}/hooks",` +
		`"issue_events_url":"https://api.github.com/repos/{}/issues/events{/number}","events_url":"https://api.github.com/repos/{}/events",` +
		`"assignees_url":"https://api.github.com/repos/{}/assignees{/user}","branches_url":"https://api.github.com/repos/{}/branches{/branch}",` +
		`"tags_url":"https://api.github.com/repos/{}/tags","blobs_url":"https://api.github.com/repos/{}/git/blobs{/sha}",` +
		`"git_tags_url":"https://api.github.com/repos/{}/git/tags{/sha}","git_refs_url":"https://api.github.com/repos/{}/git/refs{/sha}",` +
		`"trees_url":"https://api.github.com/repos/{}/git/trees{/sha}","statuses_url":"https://api.github.com/repos/{}/statuses/{sha}",` +
		`"languages_url":"https://api.github.com/repos/{}/languages","stargazers_url":"https://api.github.com/repos/{}/stargazers",` +
		`"contributors_url":"https://api.github.com/repos/{}/contributors","subscribers_url":"https://api.github.com/repos/{}/subscribers",` +
		`"subscription_url":"https://api.github.com/repos/{}/subscription","commits_url":"https://api.github.com/repos/{}/commits{/sha}",` +
		`"git_commits_url":"https://api.github.com/repos/{}/git/commits{/sha}","comments_url":"https://api.github.com/repos/{}/comments{/number}",` +
		`"issue_comment_url":"https://api.github.com/repos/{}/issues/comments/{number}","contents_url":"https://api.github.com/repos/{}/contents/{+path}",` +
		`"compare_url":"https://api.github.com/repos/{}/compare/{base}...{head}","merges_url":"https://api.github.com/repos/{}/merges",` +
		`"archive_url":"https://api.github.com/repos/{}/{archive_format}{/ref}","downloads_url":"https://api.github.com/repos/{}/downloads",` +
		`"issues_url":"https://api.github.com/repos/{}/issues{/number}","pulls_url":"https://api.github.com/repos/{}/pulls{/number}",` +
		`"milestones_url":"https://api.github.com/repos/{}/milestones{/number}",` +
		`"notifications_url":"https://api.github.com/repos/{}/notifications{?since,all,participating}",` +
		`"labels_url":"https://api.github.com/repos/{}/labels{/name}","releases_url":"https://api.github.com/repos/{}/releases{/id}"`)
	cloneURLs = cut(`"git_url":"git://github.com/{}.git","ssh_url":"git@github.com:{}.git","clone_url":"https://github.com/{}.git",` +
		`"svn_url":"https://github.com/{}"`)
)

// number appends n in decimal.
func number(dst []byte, n int) []byte { return strconv.AppendInt(dst, int64(n), 10) }

// person appends u as the API shows an account.
func person(dst []byte, u *user) []byte {
	dst = append(dst, `{"login":"`...)
	dst = append(dst, u.login...)
	dst = append(dst, `","id":`...)
	dst = strconv.AppendUint(dst, u.id, 10)
	dst = append(dst, `,"avatar_url":"https://avatars.githubusercontent.com/u/`...)
	dst = strconv.AppendUint(dst, u.id, 10)
	dst = append(dst, `?v=3",`...)
	dst = userURLs.append(dst, u.login)
	kind := "User"
	if u.org {
		kind = "Organization"
	}
	dst = append(dst, `,"type":"`...)
	dst = append(dst, kind...)
	return append(dst, `","site_admin":false}`...)
}

// repository appends a repository as the API shows it, without the closing brace.
func (g *Generator) repository(dst []byte, owner *user, r *repo, isFork bool) []byte {
	full := owner.login + "/" + r.name
	dst = append(dst, `{"id":`...)
	dst = strconv.AppendUint(dst, r.id, 10)
	dst = append(dst, `,"name":"`...)
	dst = append(dst, r.name...)
	dst = append(dst, `","full_name":"`...)
	dst = append(dst, full...)
	dst = append(dst, `","owner":`...)
	dst = person(dst, owner)
	dst = append(dst, `,"private":false,"html_url":"https://github.com/`...)
	dst = append(dst, full...)
	dst = append(dst, `","description":"`...)
	dst = g.title(dst, g.sample(&descBody))
	dst = append(dst, `","fork":`...)
	dst = strconv.AppendBool(dst, isFork)
	dst = append(dst, ',')
	dst = repoURLs.append(dst, full)
	dst = append(dst, `,"created_at":`...)
	dst = append(dst, g.now...)
	dst = append(dst, `,"updated_at":`...)
	dst = append(dst, g.now...)
	dst = append(dst, `,"pushed_at":`...)
	dst = append(dst, g.now...)
	dst = append(dst, ',')
	dst = cloneURLs.append(dst, full)
	dst = append(dst, `,"homepage":null,"size":`...)
	dst = number(dst, g.below(90_000))
	stars, issues := g.below(2000)/(1+g.below(100)), g.below(60)/(1+g.below(20))
	dst = append(dst, `,"stargazers_count":`...)
	dst = number(dst, stars)
	dst = append(dst, `,"watchers_count":`...)
	dst = number(dst, stars)
	dst = append(dst, `,"language":`...)
	dst = append(dst, r.lang...)
	dst = append(dst, `,"has_issues":true,"has_downloads":true,"has_wiki":true,"has_pages":false,"forks_count":`...)
	dst = number(dst, stars/3)
	dst = append(dst, `,"mirror_url":null,"open_issues_count":`...)
	dst = number(dst, issues)
	dst = append(dst, `,"forks":`...)
	dst = number(dst, stars/3)
	dst = append(dst, `,"open_issues":`...)
	dst = number(dst, issues)
	dst = append(dst, `,"watchers":`...)
	dst = number(dst, stars)
	dst = append(dst, `,"default_branch":"`...)
	dst = append(dst, r.ref...)
	return append(dst, '"')
}
