package ghevents

// kind is one type of event: how often it comes and how its payload is written.
type kind struct {
	name    string
	weight  int // events of 7,702 in the real hour
	payload func(g *Generator, dst []byte, actor *user, in *repo) []byte
}

// totalWeight is the sum of the weights of kinds.
const totalWeight = 7702

// kinds are the types of the hour 2015-01-01-0 of GH Archive with their counts there.
var kinds = [...]kind{
	{"PushEvent", 4280, (*Generator).push},
	{"CreateEvent", 815, (*Generator).create},
	{"IssueCommentEvent", 650, (*Generator).issueComment},
	{"WatchEvent", 642, (*Generator).watch},
	{"IssuesEvent", 373, (*Generator).issues},
	{"PullRequestEvent", 315, (*Generator).pullRequest},
	{"ForkEvent", 213, (*Generator).fork},
	{"DeleteEvent", 141, (*Generator).deleted},
	{"GollumEvent", 90, (*Generator).gollum},
	{"PullRequestReviewCommentEvent", 85, (*Generator).reviewComment},
	{"CommitCommentEvent", 56, (*Generator).commitComment},
	{"ReleaseEvent", 24, (*Generator).release},
	{"MemberEvent", 16, (*Generator).member},
	{"PublicEvent", 2, (*Generator).madePublic},
}

func (g *Generator) kind() *kind {
	n := g.below(totalWeight)
	for i := range kinds {
		if n < kinds[i].weight {
			return &kinds[i]
		}
		n -= kinds[i].weight
	}
	panic("ghevents: internal error: totalWeight is not the sum of the weights")
}

// quantiles describe a distribution: a value at 0, 10, 25, 50, 75, 90, 99 and 100 percent, straight lines between.
type quantiles [8]int

var quantileSteps = [8]int{0, 100, 250, 500, 750, 900, 990, 1000}

// Lengths in bytes, and counts, as read from the real hour.
var (
	commentBody = quantiles{1, 17, 51, 112, 263, 538, 2113, 5072}
	issueBody   = quantiles{0, 32, 122, 304, 761, 1611, 5329, 15000}
	commitBody  = quantiles{3, 12, 18, 29, 48, 80, 320, 1200}
	pullBody    = quantiles{0, 0, 20, 90, 300, 800, 2200, 4000}
	hunkBody    = quantiles{60, 160, 280, 520, 1100, 2200, 5200, 9000}
	releaseBody = quantiles{0, 0, 10, 120, 900, 1600, 2400, 2600}
	descBody    = quantiles{0, 0, 0, 30, 55, 90, 200, 340}
	titleBody   = quantiles{6, 16, 24, 40, 58, 74, 110, 160}
	pushCommits = quantiles{1, 1, 1, 1, 1, 2, 16, 20}
)

// sample draws from q.
func (g *Generator) sample(q *quantiles) int {
	at := g.below(1000)
	for i := 1; ; i++ {
		if at < quantileSteps[i] {
			from, width := quantileSteps[i-1], quantileSteps[i]-quantileSteps[i-1]
			return q[i-1] + (q[i]-q[i-1])*(at-from)/width
		}
	}
}
