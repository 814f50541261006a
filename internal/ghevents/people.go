package ghevents

import "strconv"

// poolSize is how many users and repositories there are; the real hour has 3,648 and 4,113.
const poolSize = 4096

type user struct {
	id    uint64
	login string
	org   bool
}

type repo struct {
	id    uint64
	owner *user
	name  string
	full  string // owner/name
	ref   string // default branch
	lang  string // JSON: a string or null
}

// makePeople invents users and repositories. Three repositories in ten belong to an organisation, as in the real hour.
func (g *Generator) makePeople() {
	g.users = make([]user, poolSize)
	for i := range g.users {
		g.users[i] = user{id: uint64(1000 + g.below(10_300_000)), login: g.name(i), org: i%10 < 3}
	}
	g.repos = make([]repo, poolSize)
	languages := [...]string{"null", `"JavaScript"`, `"Go"`, `"Python"`, `"Java"`, `"Ruby"`, `"C++"`, `"PHP"`, `"C"`, `"CSS"`}
	for i := range g.repos {
		owner := &g.users[i]
		name := words[g.below(len(words))]
		if !g.oneIn(3) {
			name += "-" + words[g.below(len(words))]
		}
		branch := "master"
		if g.oneIn(8) {
			branch = "main"
		}
		g.repos[i] = repo{
			id: uint64(1_000_000 + g.below(27_600_000)), owner: owner, name: name, full: owner.login + "/" + name,
			ref: branch, lang: languages[g.below(len(languages))],
		}
	}
}

// name makes login i, different from every other.
func (g *Generator) name(i int) string {
	first, second := words[g.below(len(words))], words[g.below(len(words))]
	switch g.below(3) {
	case 0:
		return first + strconv.Itoa(i)
	case 1:
		return first + "-" + strconv.Itoa(i)
	default:
		return first + second + strconv.FormatInt(int64(i), 36)
	}
}

// user draws a person. Few people do much: the smaller of two draws favours the first. Organisations do not act; the
// person after them does, and the last of the pool is none.
func (g *Generator) user() *user {
	i := min(g.below(poolSize), g.below(poolSize))
	for g.users[i].org {
		i++
	}
	return &g.users[i]
}

func (g *Generator) repo() *repo { return &g.repos[min(g.below(poolSize), g.below(poolSize))] }
