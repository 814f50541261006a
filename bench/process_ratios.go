package main

// processRatios compares ours with Supervisor, and with itself: a program more must cost no more when there are many.
func processRatios(g *grid) []ratio {
	var all []ratio
	by := func(metric string) (ours, theirs sample) {
		return g.get(hozoName, metric), g.get(supervisordName, metric)
	}
	compare := func(name, metric string, bar float64, lower bool) {
		ours, theirs := by(metric)
		if len(ours) == 0 || len(theirs) == 0 {
			return
		}
		r := ratio{name, ours.over(theirs).median(), bar}
		if lower {
			r.Value = theirs.over(ours).median()
		}
		all = append(all, r)
	}
	compare("process_respawn_p50_vs_supervisord", "respawn p50", 100, true)
	compare("process_parent_rss_vs_supervisord", "RSS parent, 200", 1, true)
	compare("process_log_capture_vs_supervisord", "log capture", 5, false)
	few, some, many := g.get(hozoName, "RSS parent, 10").median(), g.get(hozoName, "RSS parent, 200").median(), g.get(hozoName, "RSS parent, 1000").median()
	if many > 0 && many > some && some > few {
		// 0.8: the garbage collector's share grows with the heap by steps, so equal costs differ by some percent.
		all = append(all, ratio{"process_rss_per_child_flat", (some - few) / (ordinary - 10) / ((many - some) / (1000 - ordinary)), 0.8})
	}
	return all
}
