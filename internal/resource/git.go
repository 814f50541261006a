package resource

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// git is a working tree at one commit of a repository. Files that git does not know stay; changes to others are refused.
type git struct {
	dir string
	id  string

	Repo    string `json:"repo"`
	Version string `json:"version"`
	User    string `json:"user"`
}

func gitKind() Kind {
	return Kind{
		Name: "git", Is: Path, Doc: "A working tree of a git repository.",
		Keys: []Key{
			{Name: "repo", Type: Text, Doc: "Where it comes from: a URL, or a path on the host.", Required: true},
			{Name: "version", Type: Text, Doc: "Branch, tag or full commit. A commit needs no network once it is there. Default HEAD."},
			{Name: "user", Type: Text, Doc: "Whose it is. Default root."},
		},
		make: func(s Spec) Resource { return &git{dir: s.Name, id: s.ID(), Version: "HEAD", User: "root"} },
	}
}

func (g *git) valid() error {
	if strings.HasPrefix(g.Version, "-") || strings.HasPrefix(g.Repo, "-") {
		return fmt.Errorf("repo and version do not begin with -")
	}
	return nil
}

func (g *git) isCommit() bool {
	return len(g.Version) == 40 && strings.Trim(g.Version, "0123456789abcdef") == ""
}

// Check implements Resource.
func (g *git) Check(ctx context.Context, h *Host) (Change, error) {
	var c Change
	head, dirty := "none", ""
	_, err := os.Lstat(filepath.Join(g.dir, ".git"))
	switch {
	case err == nil:
		if head, err = g.git(ctx, "rev-parse", "HEAD"); err != nil {
			return c, err
		}
		if dirty, err = g.git(ctx, "status", "--porcelain", "--untracked-files=no"); err != nil {
			return c, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return c, failed(g.id, "it cannot be looked at", "correct the path", err)
	case h.installing():
		c.do(Create, "once the package is there", nil)
		return c, nil
	default:
		if entries, err := os.ReadDir(g.dir); err == nil && len(entries) > 0 {
			return c, failed(g.id, "the folder is not empty and no working tree", "choose another, or empty it", nil)
		}
	}
	want := g.Version
	if !g.isCommit() {
		if want, err = g.remote(ctx); err != nil {
			return c, err
		}
	}
	if head == want {
		return c, nil
	}
	if dirty != "" {
		return c, failed(g.id, "files in it were changed by hand: "+lastLines(dirty, 10), "commit them elsewhere, or restore them with git checkout", nil)
	}
	op := Update
	if head == "none" {
		op = Create
	}
	c.do(op, fmt.Sprintf("commit %.12s -> %.12s", head, want), func(ctx context.Context) error { return g.checkout(ctx, want) })
	return c, nil
}

// remote returns the commit that the version names now.
func (g *git) remote(ctx context.Context) (string, error) {
	out, status, err := command(ctx, "/", g.User, "git", "ls-remote", "--", g.Repo, g.Version, g.Version+"^{}")
	if err != nil || status != 0 {
		return "", failed(g.id, "the repository does not answer: "+lastLines(out, 5), "see whether the host reaches it", err)
	}
	commit := ""
	for l := range strings.Lines(out) {
		f := strings.Fields(l)
		if len(f) != 2 {
			continue
		}
		// A tag's own commit, ref^{}, comes after the tag and is what a checkout gives.
		if commit == "" || strings.HasSuffix(f[1], "^{}") {
			commit = f[0]
		}
	}
	if commit == "" {
		return "", failed(g.id, "the repository has no "+g.Version, "correct version", nil)
	}
	return commit, nil
}

func (g *git) checkout(ctx context.Context, commit string) error {
	if _, err := os.Lstat(filepath.Join(g.dir, ".git")); err != nil {
		u, err := findUser(g.User)
		if err != nil || u == nil {
			return failed(g.id, "there is no user "+g.User+" on the host", "add it before", err)
		}
		if err := os.MkdirAll(g.dir, 0o755); err != nil {
			return failed(g.id, "the folder could not be made", "look at the host's disk", err)
		}
		if err := os.Chown(g.dir, u.uid, u.gid); err != nil {
			return failed(g.id, "the folder could not be given to "+g.User, "look at the host's disk", err)
		}
		if _, err := g.git(ctx, "init", "-q"); err != nil {
			return err
		}
	}
	// Fetched by commit where the server allows it, else everything.
	if _, err := g.git(ctx, "fetch", "-q", "--depth=1", "--", g.Repo, commit); err != nil {
		if _, err := g.git(ctx, "fetch", "-q", "--tags", "--", g.Repo, "+refs/heads/*:refs/remotes/origin/*"); err != nil {
			return err
		}
	}
	_, err := g.git(ctx, "-c", "advice.detachedHead=false", "checkout", "-q", "--detach", commit)
	return err
}

func (g *git) git(ctx context.Context, args ...string) (string, error) {
	out, status, err := command(ctx, g.dir, g.User, append([]string{"git", "--no-optional-locks", "-C", g.dir, "-c", "safe.directory=" + g.dir}, args...)...)
	if err != nil {
		return "", failed(g.id, "git could not be run", "add package: git before it", err)
	}
	if status != 0 {
		return "", failed(g.id, fmt.Sprintf("git %s ended with status %d: %s", args[0], status, lastLines(out, 10)), "correct what it says", nil)
	}
	return strings.TrimSpace(out), nil
}
