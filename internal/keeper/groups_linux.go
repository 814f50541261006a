package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// groups are the cgroups of a project: one folder in each hierarchy that it uses, with one folder in it for each
// incarnation of a process. The zero groups have none.
type groups struct {
	log     *slog.Logger
	mounted hierarchies
	name    string   // of the project's folder in each
	trees   string   // TreesCgroup, TreesFreezer or TreesProcess
	made    []string // the project's folders, sorted
}

// openGroups finds the best way to hold trees together here, or takes the one that is asked for.
func openGroups(state, trees string, log *slog.Logger) (*groups, error) {
	name, err := projectGroup(state)
	if err != nil {
		return nil, err
	}
	mounted, err := findHierarchies()
	if err != nil {
		log.Warn("cgroups not found", "error", err) // /proc may be restricted
	}
	g := &groups{log: log, mounted: mounted, name: name, trees: TreesProcess}
	for _, base := range mounted {
		if dir := filepath.Join(base, name); isFolder(dir) {
			g.add(dir)
		}
	}
	for _, one := range []string{TreesCgroup, TreesFreezer} {
		if trees != one && trees != "" {
			continue
		}
		if err := g.holds(one); err != nil {
			if trees == one {
				return nil, failure("no-cgroup", fmt.Sprintf("trees cannot be held by %s here", one), "choose another way, or none", err)
			}
			continue
		}
		g.trees = one
		break
	}
	return g, nil
}

// holds makes the project's folder in the hierarchy of a kind of trees.
func (g *groups) holds(trees string) error {
	dir, err := g.project(hierarchyOf(trees))
	if err != nil {
		return err
	}
	needed := "cgroup.kill" // Linux 5.14
	if trees == TreesFreezer {
		needed = "freezer.state"
	}
	for _, file := range []string{needed, "cgroup.procs"} {
		if err := unix.Access(filepath.Join(dir, file), unix.W_OK); err != nil {
			_ = os.Remove(dir) // it is another's with something in it, or was made above
			g.made = slices.DeleteFunc(g.made, func(made string) bool { return made == dir })
			return fmt.Errorf("write %s: %w", filepath.Join(dir, file), err)
		}
	}
	return nil
}

func hierarchyOf(trees string) string {
	if trees == TreesFreezer {
		return "freezer"
	}
	return hierarchyV2
}

// project makes the project's folder in a hierarchy.
func (g *groups) project(hierarchy string) (string, error) {
	base, ok := g.mounted[hierarchy]
	if !ok {
		return "", fmt.Errorf("no such cgroup hierarchy is mounted: %w", fs.ErrNotExist)
	}
	dir := filepath.Join(base, g.name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	g.add(dir)
	return dir, nil
}

func (g *groups) add(dir string) {
	if at, known := slices.BinarySearch(g.made, dir); !known {
		g.made = slices.Insert(g.made, at, dir)
	}
}

// folders are the project's folders that there are, to be looked through by the next keeper.
func (g *groups) folders() []string {
	if g == nil {
		return nil
	}
	return g.made
}

func isFolder(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.IsDir()
}

// groupName is the folder of an incarnation.
func groupName(name, run string) string {
	const longest = 200 // of 255
	return strings.TrimLeft(name[:min(len(name), longest)], ".") + "-" + run
}

// make makes the group of an incarnation; nil without an error when trees are not held by one.
func (g *groups) make(name, run string) (*group, error) {
	if g == nil || g.trees == TreesProcess {
		return nil, nil
	}
	dir, err := g.project(hierarchyOf(g.trees))
	if err != nil {
		return nil, err
	}
	made := &group{dir: filepath.Join(dir, groupName(name, run)), v2: g.trees == TreesCgroup, home: g.mounted[hierarchyOf(g.trees)]}
	return made, os.Mkdir(made.dir, 0o755)
}

// find returns the group that an earlier keeper has made for an incarnation.
func (g *groups) find(name, run string) *group {
	if g == nil {
		return nil
	}
	for _, trees := range []string{TreesCgroup, TreesFreezer} {
		base, ok := g.mounted[hierarchyOf(trees)]
		if dir := filepath.Join(base, g.name, groupName(name, run)); ok && isFolder(dir) {
			return &group{dir: dir, v2: trees == TreesCgroup, home: base}
		}
	}
	return nil
}

// remove takes the project's folders away once nothing is in them. A folder with something in it stays: the next keeper
// ends that.
func (g *groups) remove() {
	if g == nil {
		return
	}
	for _, dir := range g.folders() {
		removeFolders(dir)
	}
}

// removeFolders removes a group and those below that are empty.
func removeFolders(dir string) {
	below, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range below {
		if e.IsDir() {
			removeFolders(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir) // what is not empty stays
}

// endLeftovers kills everything in the project's folders, and in those that an earlier keeper has named.
func (g *groups) endLeftovers(named []string) (survivors []int, err error) {
	folders := slices.Concat(g.made, named)
	slices.Sort(folders)
	for _, dir := range slices.Compact(folders) {
		if !strings.HasPrefix(filepath.Base(dir), "hozo-") || !isFolder(dir) {
			continue // keeper.json may be damaged
		}
		below, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("look for leftovers in %s: %w", dir, err)
		}
		for _, e := range below {
			if !e.IsDir() {
				continue
			}
			old := &group{dir: filepath.Join(dir, e.Name()), v2: isFile(filepath.Join(dir, e.Name(), "cgroup.kill"))}
			left, err := old.end(time.Now().Add(killTime))
			if err != nil {
				return nil, err
			}
			if len(left) == 0 {
				old.remove()
			}
			survivors = append(survivors, left...)
		}
	}
	return survivors, nil
}

func isFile(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
