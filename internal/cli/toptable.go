package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// topColumn is a column of the table of services. Where there is no room for all, those with the highest drop go first.
// Cells have the width of what is common, so that columns stand still while numbers change.
type topColumn struct {
	key, title string
	drop       int
	cell       func(topService) string
	value      func(topService) float64 // what it is sorted by, largest first; nil: by name, ascending
}

var topColumns = []topColumn{
	{"name", "SERVICE", 0, func(s topService) string { return s.Name }, nil},
	{"ready", "READY", 3, func(s topService) string { return fmt.Sprintf("%d/%d", s.Ready, s.Scale) }, func(s topService) float64 { return float64(s.Scale - s.Ready) }},
	{"in", "IN/s", 0, func(s topService) string { return fmt.Sprintf("%6.0f", s.In) }, func(s topService) float64 { return s.In }},
	{"out", "OUT/s", 1, func(s topService) string { return fmt.Sprintf("%6.0f", s.Out) }, func(s topService) float64 { return s.Out }},
	{"bytes", "BYTES IN", 6, func(s topService) string { return fmt.Sprintf("%10s", size(int64(s.Bytes))+"/s") }, func(s topService) float64 { return s.Bytes }},
	{"behind", "BEHIND", 2, func(s topService) string { return fmt.Sprintf("%7d", s.Behind) }, func(s topService) float64 { return float64(s.Behind) }},
	{"parked", "PARKED", 4, func(s topService) string { return fmt.Sprint(s.Parked) }, func(s topService) float64 { return float64(s.Parked) }},
	{"busy", "BUSY", 5, func(s topService) string { return fmt.Sprintf("%4.0f%%", s.Busy*100) }, func(s topService) float64 { return s.Busy }},
	{"cpu", "CPU", 7, func(s topService) string { return fmt.Sprintf("%4.0f%%", s.CPU*100) }, func(s topService) float64 { return s.CPU }},
	{"memory", "MEMORY", 8, func(s topService) string { return fmt.Sprintf("%8s", size(s.RSS)) }, func(s topService) float64 { return float64(s.RSS) }},
}

func columnKeys() (keys []string) {
	for _, c := range topColumns {
		keys = append(keys, c.key)
	}
	return keys
}

func columnNames() string { return strings.Join(columnKeys(), ", ") }

// columnNamed returns the index of a column; -1 is the manifest's order, which has no name.
func columnNamed(key string) (int, bool) {
	if key == "" {
		return -1, true
	}
	i := slices.Index(columnKeys(), key)
	return i, i >= 0
}

// ordered returns services in the order of a column, -1 as they are.
func ordered(services []topService, order int, reverse bool) []topService {
	services = slices.Clone(services)
	if order >= 0 {
		value := topColumns[order].value
		slices.SortStableFunc(services, func(a, b topService) int {
			if value == nil {
				return cmp.Compare(a.Name, b.Name)
			}
			return cmp.Compare(value(b), value(a))
		})
	}
	if reverse {
		slices.Reverse(services)
	}
	return services
}

// serviceLines are the table of services, its heads first, with as many columns as fit into width; 0 is any width.
func serviceLines(services []topService, width, order int, paint painter) []string {
	columns := make([]int, 0, len(topColumns))
	for i := range topColumns {
		columns = append(columns, i)
	}
	for {
		rows := [][]string{nil}
		for _, i := range columns {
			title := topColumns[i].title
			if i == order {
				title += "*"
			}
			rows[0] = append(rows[0], title)
		}
		for _, s := range services {
			var row []string
			for _, i := range columns {
				row = append(row, topColumns[i].cell(s))
			}
			rows = append(rows, row)
		}
		lines, total := aligned(rows)
		last := slices.MaxFunc(columns, func(a, b int) int { return cmp.Compare(topColumns[a].drop, topColumns[b].drop) })
		if width == 0 || total <= width || topColumns[last].drop == 0 {
			lines[0] = paint.bold(lines[0])
			return lines
		}
		columns = slices.DeleteFunc(columns, func(i int) bool { return i == last })
	}
}

// aligned pads the cells of each column to the width of its widest, the first column to the left and the others to the
// right, and returns the lines with the width of the widest.
func aligned(rows [][]string) (lines []string, total int) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], ansi.StringWidth(cell))
		}
	}
	for _, w := range widths {
		total += w + 2
	}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			space := strings.Repeat(" ", widths[i]-ansi.StringWidth(cell))
			if i == 0 {
				b.WriteString(cell + space)
			} else {
				b.WriteString("  " + space + cell)
			}
		}
		lines = append(lines, b.String())
	}
	return lines, total - 2
}
